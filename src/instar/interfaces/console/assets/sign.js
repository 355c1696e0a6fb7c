// Signing in and out: the token goes to the server once, and comes back as a cookie that no script can read.

const form = document.querySelector("#sign-in");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = form.querySelector("#token").value;
  const refused = form.querySelector("#refused");
  const reply = await fetch("/api/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token }),
  }).catch(() => null);
  if (reply?.ok) {
    location.assign(target());
    return;
  }
  refused.textContent = reply?.status === 401 ? "Nobody has that token." : "The server does not answer. Try again.";
  refused.hidden = false;
});

document.querySelector("#sign-out")?.addEventListener("click", async () => {
  await fetch("/api/session", { method: "DELETE" });
  location.assign("/console/sign-in");
});

// Only a path of this server: never an address that somebody put into the link.
function target() {
  const asked = new URLSearchParams(location.search).get("to") ?? "/console";
  const found = new URL(asked, location.origin);
  return found.origin === location.origin && asked.startsWith("/") ? found.pathname : "/console";
}
