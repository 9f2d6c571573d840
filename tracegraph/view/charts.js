// Draws numbers: histograms, curves, and points by two scores.
"use strict";

const short = (number) => (Number.isInteger(number) && Math.abs(number) < 1e6 ? String(number) : Number(number.toPrecision(4)).toString());
function words(px, py, said, anchor) {
  const made = drawn("text", { x: px, y: py, "text-anchor": anchor || "start" });
  made.textContent = said;
  return made;
}
function histogram([low, high, counts]) {
  const most = Math.max(...counts, 1), wide = 380 / counts.length;
  const chart = drawn("svg", { class: "chart", viewBox: "0 0 400 120", role: "img", "aria-label": `histogram from ${short(low)} to ${short(high)}: ${counts.join(", ")}` });
  const edge = (index) => short(low + ((high - low) * index) / counts.length);
  counts.forEach((count, index) => chart.append(drawn("rect", { class: "bin", x: 10 + index * wide + 0.5, y: 96 - (86 * count) / most, width: Math.max(1, wide - 1), height: (86 * count) / most },
    titled(`${edge(index)} … ${edge(index + 1)}: ${count}`))));
  chart.append(drawn("path", { class: "axis", d: "M10 96.5H390" }), words(10, 112, short(low)), words(390, 112, short(high), "end"));
  return chart;
}
// The axes of a chart: the range of y to the left, that of x below.
function axes(left, right, top, bottom, [least, most], [from, to]) {
  const made = [drawn("path", { class: "axis", d: `M${left} ${bottom + 6.5}H${right}` })];
  for (const [at, said] of least === most ? [[bottom, least]] : [[bottom, least], [top, most]])
    made.push(drawn("path", { class: "grid", d: `M${left} ${at}H${right}` }), words(left - 6, at + 3.5, said, "end"));
  made.push(words(left, bottom + 22, from), words(right, bottom + 22, to, "end"));
  return made;
}
function line(heading, unit, points, axis, { low = null, high = null, name = (at) => `${axis} ${short(at)}`, act = null, at = null } = {}) {
  if (points.length < 2) return [];
  const ys = points.map((p) => p[1]), least = Math.min(...ys), most = Math.max(...ys), said = (value) => unit + short(value);
  const from = low == null ? points[0][0] : low, to = high == null ? points[points.length - 1][0] : high;
  const left = 22 + 6 * Math.max(said(least).length, said(most).length);
  const px = (value) => left + ((388 - left) * (value - from)) / (to - from || 1), py = (value) => 98 - (84 * (value - least)) / (most - least || 1);
  const chart = drawn("svg", { class: act ? "chart goes" : "chart", viewBox: "0 0 400 126", role: "img", "aria-label": `${heading} by ${axis}: ${ys.map(short).join(", ").slice(0, 2000)}` });
  chart.append(...axes(left, 388, 14, 98, [said(least), said(most)], [name(from), name(to)]),
    drawn("path", { class: "curve", d: "M" + points.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("L") }));
  for (const [where, value] of points) {
    const dot = drawn("circle", { class: where === at ? "dot now" : "dot", cx: px(where), cy: py(value), r: where === at ? 5 : points.length > 80 ? 1 : 3 });
    dot.append(titled(`${name(where)}: ${said(value)}`));
    chart.append(dot);
  }
  if (act) chart.addEventListener("click", (event) => { // goes to what is nearest
    const area = chart.getBoundingClientRect(), x = ((event.clientX - area.left) / area.width) * 400;
    act(points.reduce((best, point) => (Math.abs(px(point[0]) - x) < Math.abs(px(best[0]) - x) ? point : best))[0]);
  });
  return [el("h3", {}, heading), chart];
}
function scatter({ x: across, y: up, points }, act) {
  if (!points.length) return [];
  const range = (at) => { const all = points.map((p) => p[at]); return [Math.min(...all), Math.max(...all)]; };
  const [x0, x1] = range(1), [y0, y1] = range(2), best = points.filter((p) => p[3]).sort((a, b) => a[1] - b[1] || b[2] - a[2]);
  const left = 26 + 6 * Math.max(short(y0).length, short(y1).length);
  const px = (value) => left + 8 + ((372 - left) * (value - x0)) / (x1 - x0 || 1), py = (value) => 204 - (168 * (value - y0)) / (y1 - y0 || 1);
  const chart = drawn("svg", { class: "chart", viewBox: "0 0 400 236", role: "img", "aria-label": `Pareto front of ${across} and ${up}: ${best.map((p) => `${p[0]} (${short(p[1])}, ${short(p[2])})`).join("; ").slice(0, 2000)}` });
  chart.append(...axes(left, 388, 36, 204, [short(y0), short(y1)], [short(x0), short(x1)]));
  if (best.length > 1) chart.append(drawn("path", { class: "line", d: "M" + best.map((p) => `${px(p[1]).toFixed(1)} ${py(p[2]).toFixed(1)}`).join("L") }));
  for (const [name, a, b, ahead] of points) { // squares are on the front, circles are not
    const onclick = () => act(name);
    const dot = ahead ? drawn("rect", { class: "dot front", x: px(a) - 4.5, y: py(b) - 4.5, width: 9, height: 9, onclick }) : drawn("circle", { class: "dot", cx: px(a), cy: py(b), r: 3, onclick });
    dot.append(titled(`${name}: ${across} ${short(a)}, ${up} ${short(b)}${ahead ? ", on the front" : ""}`));
    chart.append(dot);
  }
  chart.append(words(left, 16, `↑ ${up}`), words((left + 388) / 2, 226, `${across} →`, "middle"), words(388, 16, "■ on the front", "end"));
  return [el("h3", {}, `Pareto front: ${across}, ${up}`), chart];
}
