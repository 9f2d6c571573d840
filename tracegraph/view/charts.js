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
function line(heading, unit, points, axis, { low = null, high = null, name = (at) => `${axis} ${short(at)}`, act = null, at = null } = {}) {
  if (points.length < 2) return [];
  const ys = points.map((p) => p[1]), least = Math.min(...ys), most = Math.max(...ys);
  const from = low == null ? points[0][0] : low, to = high == null ? points[points.length - 1][0] : high;
  const px = (value) => 12 + (376 * (value - from)) / (to - from || 1), py = (value) => 96 - (80 * (value - least)) / (most - least || 1);
  const chart = drawn("svg", { class: "chart", viewBox: "0 0 400 124", role: "img", "aria-label": `${heading} by ${axis}: ${ys.map(short).join(", ").slice(0, 2000)}` });
  chart.append(drawn("path", { class: "axis", d: "M12 102.5H388" }), drawn("path", { class: "curve", d: "M" + points.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("L") }));
  for (const [where, value] of points) {
    if (points.length > 80 && where !== at) continue;
    const dot = drawn("circle", { class: where === at ? "dot now" : "dot", cx: px(where), cy: py(value), r: where === at ? 5 : 3, ...(act ? { onclick: () => act(where) } : {}) });
    dot.append(titled(`${name(where)}: ${unit}${short(value)}`));
    chart.append(dot);
  }
  chart.append(words(12, 117, `${unit}${short(least)} … ${unit}${short(most)}`), words(388, 117, `${name(from)} to ${name(to)}`, "end"));
  return [el("h3", {}, heading), chart];
}
function scatter({ x: across, y: up, points }, act) {
  if (!points.length) return [];
  const range = (at) => { const all = points.map((p) => p[at]); return [Math.min(...all), Math.max(...all)]; };
  const [x0, x1] = range(1), [y0, y1] = range(2), best = points.filter((p) => p[3]).sort((a, b) => a[1] - b[1] || b[2] - a[2]);
  const px = (value) => 16 + (368 * (value - x0)) / (x1 - x0 || 1), py = (value) => 212 - (176 * (value - y0)) / (y1 - y0 || 1);
  const chart = drawn("svg", { class: "chart", viewBox: "0 0 400 242", role: "img", "aria-label": `Pareto front of ${across} and ${up}: ${best.map((p) => `${p[0]} (${short(p[1])}, ${short(p[2])})`).join("; ").slice(0, 2000)}` });
  chart.append(drawn("path", { class: "axis", d: "M12 220.5H388M12.5 28V220" }));
  if (best.length > 1) chart.append(drawn("path", { class: "line", d: "M" + best.map((p) => `${px(p[1]).toFixed(1)} ${py(p[2]).toFixed(1)}`).join("L") }));
  for (const [name, a, b, ahead] of points) { // squares are on the front, circles are not
    const onclick = () => act(name);
    const dot = ahead ? drawn("rect", { class: "dot front", x: px(a) - 4.5, y: py(b) - 4.5, width: 9, height: 9, onclick }) : drawn("circle", { class: "dot", cx: px(a), cy: py(b), r: 3, onclick });
    dot.append(titled(`${name}: ${across} ${short(a)}, ${up} ${short(b)}${ahead ? ", on the front" : ""}`));
    chart.append(dot);
  }
  chart.append(words(16, 235, `${across}: ${short(x0)} … ${short(x1)}`), words(14, 16, `${up}: ${short(y0)} … ${short(y1)}`), words(388, 235, "■ on the front", "end"));
  return [el("h3", {}, `Pareto front: ${across}, ${up}`), chart];
}
