// Values under the pointer: the nearest moment of a chart and each line's value there.

const SVG = "http://www.w3.org/2000/svg";

/** Give every chart inside `root` its readout. */
export function readouts(root) {
  for (const svg of root.querySelectorAll("svg[data-chart]")) readout(svg);
}

function readout(svg) {
  const lines = [...svg.querySelectorAll("[data-points]")].map((path) => ({
    name: path.dataset.name,
    points: JSON.parse(path.dataset.points),
  }));
  const box = document.createElement("div");
  box.className = "readout";
  box.hidden = true;
  svg.parentElement.append(box);
  const rule = document.createElementNS(SVG, "path");
  rule.setAttribute("class", "pointer");
  svg.append(rule);

  svg.addEventListener("pointermove", (event) => {
    const across = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    const near = lines
      .map((line) => ({ name: line.name, point: nearest(line.points, across) }))
      .filter((found) => found.point);
    if (near.length === 0) return;
    const at = near.reduce((a, b) => (Math.abs(b.point[0] - across) < Math.abs(a.point[0] - across) ? b : a)).point;
    const rows = near.filter((found) => found.point[2] === at[2]);
    box.replaceChildren(line(at[2], "quiet"), ...rows.map((row) => line(`${row.name}: ${row.point[3].toPrecision(3)}`)));
    box.hidden = false;
    rule.setAttribute("d", `M${at[0]} ${svg.viewBox.baseVal.y}v${svg.viewBox.baseVal.height - 28}`);
    place(box, svg, event);
  });
  svg.addEventListener("pointerleave", () => {
    box.hidden = true;
    rule.removeAttribute("d");
  });
}

function nearest(points, across) {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < across) low = middle;
    else high = middle;
  }
  const [a, b] = [points[low], points[high]];
  return !a || (b && Math.abs(b[0] - across) < Math.abs(a[0] - across)) ? b : a;
}

function line(text, name = "") {
  const row = document.createElement("div");
  row.className = name;
  row.textContent = text;
  return row;
}

function place(box, svg, event) {
  const frame = svg.parentElement.getBoundingClientRect();
  const left = event.clientX - frame.left;
  // The style is set through the object model, which a content policy without inline styles allows.
  box.style.top = `${event.clientY - frame.top + 14}px`;
  box.style.left = `${left > frame.width / 2 ? left - box.offsetWidth - 14 : left + 14}px`;
}
