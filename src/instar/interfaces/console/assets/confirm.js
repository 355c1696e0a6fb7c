// What a page has shown is done when the reader says so: one call of the API, with the version of what was looked at.

/** Let every button inside `root` that carries a call send it, and say above it what came of that. */
export function confirmations(root) {
  for (const button of root.querySelectorAll("button[data-call]")) {
    button.addEventListener("click", () => confirmed(button));
  }
}

async function confirmed(button) {
  const call = JSON.parse(button.dataset.call);
  button.disabled = true;
  const reply = await fetch(call.path, {
    method: call.method,
    headers: { "content-type": "application/json", accept: "application/json", "if-match": call.if_match },
    body: JSON.stringify(call.body),
  }).catch(() => null);
  const said = await reply?.json().catch(() => null);
  if (reply?.ok && !said?.effect?.problem) {
    location.assign(button.dataset.then);
    return;
  }
  // A change that gateways are late to take up is decided, and not to be sent twice.
  button.disabled = Boolean(reply?.ok);
  say(button, reply?.ok ? `It is on the record. ${said.effect.problem}` : (said?.error ?? "The server does not answer. Try again."));
}

function say(button, text) {
  const place = button.parentElement.querySelector("[role=alert]");
  place.textContent = text;
  place.hidden = false;
}
