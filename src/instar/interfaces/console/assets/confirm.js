// What a page has shown is done when the reader says so: one call of the API, with the version of what was looked at.

/** Let every form inside `root` that carries a call send it, with its fields, and say beside it what came of that. */
export function confirmations(root) {
  for (const form of root.querySelectorAll("form[data-call]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      confirmed(form, form.querySelector("button"));
    });
  }
}

async function confirmed(form, button) {
  const call = JSON.parse(form.dataset.call);
  const looked = call.if_match ? { "if-match": call.if_match } : {};
  button.disabled = true;
  const reply = await fetch(call.path, {
    method: call.method,
    headers: { "content-type": "application/json", accept: "application/json", ...looked },
    body: JSON.stringify({ ...call.body, ...Object.fromEntries(new FormData(form)) }),
  }).catch(() => null);
  const said = await reply?.json().catch(() => null);
  if (reply?.ok && !said?.effect?.problem) {
    location.assign(form.dataset.then);
    return;
  }
  // A change that gateways are late to take up is decided, and not to be sent twice.
  button.disabled = Boolean(reply?.ok);
  const place = form.querySelector("[role=alert]");
  place.textContent = reply?.ok
    ? `It is on the record. ${said.effect.problem}`
    : (said?.error ?? "The server does not answer. Try again.");
  place.hidden = false;
}
