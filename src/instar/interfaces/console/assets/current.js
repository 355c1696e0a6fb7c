// A page that keeps itself current: its own HTML, fetched again while somebody looks at it.

/** Renew `main` every `data-every` seconds, unless the reader points at it, selects text or looks elsewhere. */
export function keepCurrent(main, renewed) {
  if (!main) return;
  setInterval(async () => {
    if (document.hidden || main.matches(":hover, :focus-within") || !getSelection().isCollapsed) return;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = [...main.querySelectorAll("details")].map((part) => part.open);
      main.replaceChildren(...page.querySelector("main").childNodes);
      main.querySelectorAll("details").forEach((part, place) => (part.open = open[place] ?? part.open));
      renewed(main);
    } catch {
      // The server is away: what is shown stays, and the next turn asks again.
    }
  }, 1000 * Number(main.dataset.every));
}
