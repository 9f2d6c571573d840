// A picture seen from afar, on one canvas: its lines and shapes, and titles where they can be read.
// What was drawn is moved and scaled as an image; it is drawn anew where the image ends, or looks too coarse.
"use strict";

function overview() {
  const AROUND = 0.5, PIXELS = 12e6, COARSE = 2.5, LEAST = 1.6, PLAIN = 5, LEGIBLE = 5.5;
  const canvas = el("canvas", { class: "overview", "aria-hidden": "true", hidden: true });
  const brush = canvas.getContext("2d");
  const roles = ["operation", "input", "output", "parameter", "failure"]; // what stands out is drawn last
  const probes = {}; // elements whose style says the inks, in light and in dark mode
  const inks = {}; // and those of titles
  const probe = drawn("svg", { class: "probe tg", "aria-hidden": "true" });
  for (const name of [...roles, "arrow", "arrow tg-way", "picked"]) {
    probes[name] = drawn("path", { class: name.startsWith("arrow") ? "tg-wire" : "tg-body" });
    probe.append(drawn("g", { class: "tg-" + name }, probes[name], (inks[name] = drawn("text", { class: "tg-title" }))));
  }
  let area = null; // what was drawn: its edges, scale, picture, and the mode of colours

  function shapes(picture) { // the paths of a picture's arrows and boxes, read once from its markup
    if (picture.shapes) return picture.shapes;
    const found = (text, pattern) => (pattern.exec(text) || []).slice(1);
    const [left, top] = found(picture.svg.querySelector(".tg-parts").getAttribute("transform"), /\(([^,]+),([^)]+)\)/).map(Number);
    return (picture.shapes = picture.elements.map((_, index) => {
      const text = picture.part(index);
      const [classes] = found(text, /class="([^"]*)"/);
      if (classes.startsWith("tg-arrow")) {
        const [path] = found(text, /class="tg-wire" d="([^"]*)"/);
        return { path: new Path2D(path), way: classes.includes("tg-way"), captured: classes.includes("tg-captured"), x: left, y: top };
      }
      const [x, y] = found(text, /translate\(([^,]+),([^)]+)\)/).map(Number), [path] = found(text, /class="tg-body" d="([^"]*)"/);
      const [title] = found(text, /class="tg-title"[^>]*>([^<]*)</);
      return { path: new Path2D(path), title: unescaped(title), role: found(classes, /tg-(parameter|input|operation|output|failure)/)[0], way: classes.includes("tg-way"), x: left + x, y: top + y };
    }));
  }

  // The image covers the window and what is around it, within the picture
  function edgesAround(picture, [left, top, right, bottom]) {
    const wide = (right - left) * AROUND, high = (bottom - top) * AROUND;
    return [Math.max(0, left - wide), Math.max(0, top - high), Math.min(picture.width, right + wide), Math.min(picture.height, bottom + high)];
  }
  function good(picture, view, scale, exact) {
    if (!area || area.picture !== picture) return false;
    const ratio = scale / area.scale;
    if (exact ? ratio !== 1 : ratio > COARSE || ratio < 1 / (2 * COARSE)) return false;
    return area.edges.every((edge, side) => (side < 2 ? edge <= Math.max(0, view[side]) : edge >= Math.min(view[side], side === 2 ? picture.width : picture.height)));
  }

  function draw(picture, view, scale, { near, picked, hits, searching }) {
    const edges = edgesAround(picture, view), [left, top, right, bottom] = edges;
    const wide = Math.max(1, (right - left) * scale), high = Math.max(1, (bottom - top) * scale);
    const fine = Math.min(window.devicePixelRatio || 1, Math.sqrt(PIXELS / (wide * high)));
    canvas.width = Math.ceil(wide * fine);
    canvas.height = Math.ceil(high * fine);
    canvas.style.width = canvas.width / fine + "px";
    canvas.style.height = canvas.height / fine + "px";
    area = { picture, edges, scale };
    const step = scale * fine, parts = shapes(picture), areas = picture.edges, lines = [[], [], [], []], boxes = new Map(roles.map((role) => [role, []]));
    const pick = getComputedStyle(probes.picked).stroke, above = [];
    parts.forEach((part, index) => {
      const at = index * 4;
      if (areas[at] > right || areas[at + 2] < left || areas[at + 1] > bottom || areas[at + 3] < top) return;
      if (!part.role) { lines[near.has(index) ? 3 : part.way ? 2 : part.captured ? 1 : 0].push(part); return; }
      const key = picture.order[index - picture.arrows.length];
      if (key === picked || hits.has(picture.number + ":" + key)) above.push([part, at, key === picked]);
      else boxes.get(part.role).push([part, at]);
    });
    const toward = (part) => brush.setTransform(step, 0, 0, step, (part.x - left) * step, (part.y - top) * step);
    lines.forEach((wires, kind) => {
      const style = getComputedStyle(probes[kind === 2 ? "arrow tg-way" : "arrow"]);
      brush.strokeStyle = kind === 3 ? pick : style.stroke;
      brush.globalAlpha = searching && kind < 3 ? 0.25 : Math.max(0.5, Math.min(1, 600 / wires.length));
      brush.lineWidth = Math.max(kind < 2 ? 1 : 1.6, (kind < 2 ? 1.3 : 2.6) * step) / step;
      brush.setLineDash(kind === 1 ? [5, 4] : []);
      for (const part of wires) { toward(part); brush.stroke(part.path); }
    });
    brush.setLineDash([]);
    const box = ([part, at], fill, stroke, width, least, ink) => {
      const high = (areas[at + 3] - areas[at + 1] - 12) * step;
      brush.fillStyle = high < PLAIN ? stroke : fill;
      brush.strokeStyle = stroke;
      if (high < PLAIN) { // a spot: its shape would not be seen
        brush.setTransform(1, 0, 0, 1, 0, 0);
        const wide = Math.max(least, (areas[at + 2] - areas[at] - 12) * step), tall = Math.max(least, high);
        brush.fillRect(((areas[at] + areas[at + 2]) / 2 - left) * step - wide / 2, ((areas[at + 1] + areas[at + 3]) / 2 - top) * step - tall / 2, wide, tall);
        return;
      }
      toward(part);
      brush.lineWidth = width / step;
      brush.fill(part.path);
      brush.stroke(part.path);
      const wide = areas[at + 2] - areas[at] - 12, size = roomFor(part.title, wide);
      if (size * scale < LEGIBLE) return;
      brush.fillStyle = ink;
      brush.font = `600 ${size}px ${family}`;
      brush.fillText(part.title, wide / 2, high / step / 2 + size * 0.35);
    };
    const family = getComputedStyle(inks.operation).fontFamily;
    brush.textAlign = "center";
    brush.globalAlpha = searching ? 0.25 : 1;
    for (const role of roles) {
      const style = getComputedStyle(probes[role]), ink = getComputedStyle(inks[role]).fill, least = (role === "operation" ? LEAST : 2 * LEAST) * fine;
      for (const one of boxes.get(role)) box(one, style.fill, style.stroke, fine, least, ink);
    }
    brush.globalAlpha = 1;
    for (const one of above) box(one, getComputedStyle(probes[one[0].role]).fill, pick, 3 * fine, 3 * LEAST * fine, getComputedStyle(inks[one[0].role]).fill);
  }

  // Shows `picture` at (x, y) and `scale`; `exact` asks for an image at just this scale.
  function show(picture, view, [x, y, scale], marks, exact) {
    if (!good(picture, view, scale, exact)) draw(picture, view, scale, marks);
    canvas.hidden = false;
    canvas.style.transform = `translate(${x + area.edges[0] * scale}px,${y + area.edges[1] * scale}px) scale(${scale / area.scale})`;
  }
  return { canvas, probe, show, stale() { area = null; }, hide() { canvas.hidden = true; area = null; } };
}
