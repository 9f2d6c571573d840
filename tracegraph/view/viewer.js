// Shows a page: pans, zooms and searches its pictures, and tells what there is to say of a box.
// Words reach the document by textContent alone; the drawings come from our own escaped SVG.
"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const page = read("page"), markup = document.getElementById("markup").textContent.split("\n");
  const frames = page.frames;
  const steps = frames.length - page.candidates; // the candidates, if any, are the last frame
  const root = document.getElementById("graph");
  const FAR = 0.42, FARTHER = 0.09, LEAST = 0.01, MOST = 4, EDGE = 24, MANY = 400, CROWD = 1000, READ = 0.55, CHUNK = 1500, TINY = 0.1, NARROW = 0.25;
  const ROLES = { parameter: "◆ parameter", input: "▷ input", operation: "● operation", output: "◎ output", failure: "✗ failure" };


  // The bar above

  const title = el("h1", { title: page.title }, page.title);
  const search = el("input", { type: "search", placeholder: "Search  ( / )", "aria-label": "Search boxes", autocomplete: "off", spellcheck: "false" });
  const found = el("output", { "aria-live": "polite", class: "quiet" });
  const slider = el("input", { type: "range", min: 0, max: Math.max(0, steps - 1), "aria-label": "Step" });
  const where = el("output", {});
  const button = (word, label, act) => el("button", { type: "button", "aria-label": label, title: label, onclick: act }, word);
  const before = button("‹", "Step before ( , )", () => show(now - 1));
  const after = button("›", "Next step ( . )", () => { if (now < steps - 1) show(now + 1); });
  const sideButton = button("Details", "Show or hide the details ( d )", () => openSide(side.hidden));
  const lineageButton = button("Candidates", "Candidates and curves of the run, or back ( c )", () => turnCandidates());
  const bar = el("header", { class: "bar" }, title,
    page.candidates && steps ? lineageButton : null,
    steps > 1 ? el("div", { class: "group", role: "group", "aria-label": "Steps" }, before, slider, after, where) : null,
    el("span", { class: "grow" }),
    el("div", { class: "group", role: "search" }, search, found),
    el("div", { class: "group", role: "group", "aria-label": "View" },
      button("−", "Zoom out ( - )", () => zoomBy(1 / 1.3)), button("+", "Zoom in ( + )", () => zoomBy(1.3)),
      button("Fit", "Show all ( 0 )", () => fit()), sideButton, button("?", "Help ( ? )", () => help.showModal())));
  const said = el("div", { class: "unseen", "aria-live": "polite", role: "status" });
  const side = el("aside", { class: "side", "aria-label": "Details", tabindex: "-1", hidden: true });
  const keys = [["/", "search; Enter and Shift+Enter walk through what was found"], ["↑ ↓", "to an input, to a user of the box"],
    ["← →", "to the neighbour in the row"], ["n p", "to the next, the previous box in order"], ["Enter", "open the details, or a box that stands for several"], ["Backspace", "leave the opened box"],
    ["+ − 0", "zoom in, out, show all"], [", .", "step before, next step"], ["c", "candidates and curves of the run"], ["d", "show or hide the details"], ["l", "all boxes as a list"], ["Esc", "close, clear"]];
  const help = el("dialog", { "aria-label": "Help" }, el("h2", {}, "Keys"),
    el("dl", {}, keys.map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])),
    el("p", { class: "quiet" }, "Drag to move, turn the wheel to zoom, click a box for its details, twice to open one that stands for several."),
    el("form", { method: "dialog" }, button("Close", "Close", (event) => { event.preventDefault(); help.close(); })));
  document.body.prepend(bar);
  document.body.append(side, said, help);
  root.setAttribute("tabindex", "-1");

  // The stage: one drawing at a time, moved and scaled as a whole

  const stage = el("div", { class: "stage" });
  const stages = new Map();
  let x = 0, y = 0, scale = 1, settle = 0, pending = 0, sharp = 0;
  let fitted = true; // the whole is shown, and shall be when the window changes
  let now = -1, graph = null, picked = null;
  let path = []; // the keys of the boxes that were opened, from the outside in
  const parents = new Map(); // by the number of a picture: the picture and the box that it is in
  page.pictures.forEach(({ keys, insides }, number) => page.lists[insides].forEach((inside, at) => { if (inside >= 0) parents.set(inside, [number, page.lists[keys][at]]); }));

  const crumbs = el("nav", { class: "crumbs", "aria-label": "Opened boxes", hidden: true });
  const far = overview();
  let afar = false, printing = false; // it is drawn on a canvas; it is on its way to paper
  const legend = drawn("svg", { class: "tg legend", "aria-hidden": "true" }); // stays in place at every scale
  root.append(far.probe, far.canvas, stage, legend, crumbs);
  function explainSigns() { // by the outermost picture: those inside have none
    const signs = load(frames[now].picture).svg.querySelector(".tg-legend");
    legend.replaceChildren(...(signs ? [signs.cloneNode(true)] : []));
    if (!signs) return;
    legend.firstChild.removeAttribute("transform");
    for (const [name, value] of [["viewBox", `-8 -6 ${signs.dataset.wide} 30`], ["width", signs.dataset.wide], ["height", 30]]) legend.setAttribute(name, value);
  }

  function load(number) {
    if (stages.has(number)) return stages.get(number);
    const told = page.pictures[number], list = (name) => page.lists[told[name]];
    const svg = parsed(told.frame.map((piece) => markup[piece]).join("")), arrows = list("arrows"), keys = list("keys");
    const wires = list("wires"), shapes = list("shapes"), texts = list("texts"), places = list("places");
    const part = (index) => { // the markup of an arrow or a box: what is its own, and what it shares
      const at = index - arrows.length;
      if (at < 0) return `<g data-tail="${arrows[index][0]}" data-head="${arrows[index][1]}"${markup[wires[index]]}`;
      return `<g data-key="${keys[at]}" transform="translate(${places[2 * at]},${places[2 * at + 1]})"${markup[shapes[at]]}${markup[texts[at]]}`;
    };
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-description", "press l for a list of all boxes");
    const inner = svg.querySelector(".tg-parts");
    const layers = [0, 1, 2].map(() => inner.appendChild(drawn("g")));
    const length = arrows.length + keys.length;
    const made = { number, svg, told, layers, length, part, arrows, levels: list("levels"), edges: Float64Array.from(list("areas")),
      elements: new Array(length).fill(null), unseen: new Uint8Array(length), covered: null,
      order: [], boxes: new Map(), rects: new Map(), at: new Map(), touching: new Map(), inputs: new Map(), users: new Map(),
      width: +svg.getAttribute("width"), height: +svg.getAttribute("height") };
    const add = (map, key, what) => { if (map.has(key)) map.get(key).push(what); else map.set(key, [what]); };
    arrows.forEach(([from, to, label, captured], index) => {
      const tail = String(from), head = String(to);
      add(made.inputs, head, [tail, label, captured]);
      add(made.users, tail, [head, label, captured]);
      add(made.touching, tail, index);
      if (head !== tail) add(made.touching, head, index);
    });
    keys.forEach((key, index) => {
      const at = arrows.length + index, words = page.words[list("told")[index]], [left, top, right, bottom] = made.edges.subarray(at * 4, at * 4 + 4);
      made.order.push(key);
      made.boxes.set(key, [...words, list("insides")[index]]);
      made.at.set(key, at);
      made.rects.set(key, { x: left, y: top, width: right - left, height: bottom - top });
    });
    stages.set(number, made);
    build(made, length < MANY ? made.elements.keys() : [made.at.get(made.order[0])]); // the Tab key must find one
    return made;
  }

  // Boxes and arrows become elements when they are seen for the first time

  function build(picture, wanted) {
    const fresh = [...wanted].filter((index) => !picture.elements[index]);
    if (!fresh.length) return;
    const holder = parsed(`<svg>${fresh.map((index) => picture.part(index)).join("")}</svg>`);
    const elements = [...holder.children], inside = [[], [], []];
    fresh.forEach((index, place) => {
      const part = elements[place];
      picture.elements[index] = part;
      inside[picture.levels[index]].push(part);
      const key = part.dataset.key;
      if (key == null) {
        if (picture === graph && picked != null && (part.dataset.tail === picked || part.dataset.head === picked)) part.classList.add("near");
        return;
      }
      const [name, role, kind, line, onPath, opens] = picture.boxes.get(key);
      part.setAttribute("role", "button");
      part.setAttribute("tabindex", key === picture.order[0] ? "0" : "-1");
      part.setAttribute("aria-label", `${name}, ${kind ? kind + " " : ""}${picture.told.words[role] || role}${opens >= 0 ? ", opens" : ""}${onPath ? ", " + (picture.told.words.way || "feedback passed through") : ""}${line ? ": " + line : ""}`);
      part.prepend(titled([name, line, ...(onPath ? [picture.told.words.way || "feedback passed through"] : [])].filter(Boolean).join("\n")));
      roomy(part, picture.rects.get(key));
      if (picture === graph && key === picked) part.classList.add("picked");
      if (hitKeys.has(picture.number + ":" + key)) part.classList.add("hit");
    });
    inside.forEach((parts, level) => picture.layers[level].append(...parts));
  }
  function roomy(box, { width, height }) { // from afar the title fills the box
    const title = box.querySelector(".tg-title"), wide = width - 12, size = roomFor(title.textContent, wide);
    title.style.setProperty("--room", size + "px");
    title.style.setProperty("--shift", wide / 2 - title.getAttribute("x") + "px");
    title.style.setProperty("--drop", (height - 12) / 2 + size * 0.35 - title.getAttribute("y") + "px");
  }
  function element(key) {
    build(graph, [graph.at.get(key)]);
    return graph.elements[graph.at.get(key)];
  }
  function cull() {
    if (graph.length < MANY) { far.hide(); return; }
    const l = -x / scale, t = -y / scale, w = root.clientWidth / scale, h = root.clientHeight / scale, was = graph.covered;
    if (was && l >= was[0] && t >= was[1] && l + w <= was[2] && t + h <= was[3] && was[2] - was[0] < 6 * w) { far.hide(); return; }
    const now = [l - w * 0.7, t - h * 0.7, l + w * 1.7, t + h * 1.7], edges = graph.edges, todo = [];
    graph.covered = now;
    for (let index = 0; index < graph.length; index++) {
      const at = index * 4, part = graph.elements[index];
      const out = +(edges[at] > now[2] || edges[at + 2] < now[0] || edges[at + 1] > now[3] || edges[at + 3] < now[1]);
      if (!part) { if (!out) todo.push(index); continue; }
      if (out !== graph.unseen[index] && !(out && part.getAttribute("tabindex") === "0")) { graph.unseen[index] = out; part.style.display = out ? "none" : ""; }
    }
    build(graph, todo.slice(0, CHUNK));
    if (todo.length > CHUNK) { graph.covered = null; move(); } // the rest with the next frames
    else far.hide();
  }
  window.addEventListener("beforeprint", () => { // all of it, with every word, whatever the window does
    printing = true;
    clearTimeout(settle);
    near();
    far.hide();
    stage.classList.remove("far", "farther");
    build(graph, graph.elements.keys());
    graph.unseen.fill(0);
    for (const part of graph.elements) part.style.display = "";
  });
  window.addEventListener("afterprint", () => { printing = false; move(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint());

  // A large picture at a scale at which no word can be read is drawn on a canvas

  function view() { return [-x / scale, -y / scale, (root.clientWidth - x) / scale, (root.clientHeight - y) / scale]; }
  function crowded() { return scale < READ && graph.length > CROWD; }
  function lookFar(exact) {
    const marks = { near: new Set(picked == null ? [] : graph.touching.get(picked)), picked, hits: hitKeys, searching: search.value.trim() !== "" };
    far.show(graph, view(), [x, y, scale], marks, exact);
  }
  function near() { // elements are shown again; the image stays until they are made
    afar = false;
    stage.classList.remove("afar");
    graph.covered = null;
  }
  function repaint() { far.stale(); if (afar) move(); }

  function place() {
    pending = 0;
    if (printing) return;
    if (!afar && crowded()) { afar = true; stage.classList.add("afar"); }
    if (afar) lookFar(false); else cull();
    stage.style.transform = `translate(${x}px,${y}px) scale(${scale})`;
    clearTimeout(settle);
    settle = setTimeout(() => {
      if (afar && crowded()) lookFar(true);
      else if (afar) { near(); cull(); }
      stage.classList.remove("gliding");
      if (scale !== sharp) sharpen();
      stage.classList.toggle("far", scale < FAR);
      stage.classList.toggle("farther", scale < FARTHER);
    }, 140);
  }
  function sharpen() { // a layer of its own is moved without being drawn; for a new scale it is drawn once
    sharp = scale;
    stage.classList.add("sharpening");
    requestAnimationFrame(() => requestAnimationFrame(() => stage.classList.remove("sharpening")));
  }
  function move() { if (!pending) pending = requestAnimationFrame(place); }
  function glide() { // a large drawing jumps: drawing it at every scale between would take long
    stage.classList.toggle("gliding", graph.length <= CROWD);
    move();
  }
  function zoomAt(px, py, factor) {
    const next = Math.min(MOST, Math.max(Math.min(LEAST, whole()), scale * factor));
    x = px - (px - x) * (next / scale);
    y = py - (py - y) * (next / scale);
    scale = next;
    fitted = false;
    move();
  }
  function zoomBy(factor) { zoomAt(root.clientWidth / 2, root.clientHeight / 2, factor); glide(); }
  function whole() { return Math.max(1e-4, Math.min((root.clientWidth - EDGE) / graph.width, (root.clientHeight - EDGE) / graph.height)); }
  function fit(most = 1.25) {
    const wide = root.clientWidth, high = root.clientHeight;
    scale = Math.min(most, whole());
    x = (wide - graph.width * scale) / 2;
    y = (high - graph.height * scale) / 2;
    fitted = true;
    move();
  }
  let size = [root.clientWidth, root.clientHeight];
  function resized() {
    const wide = root.clientWidth, high = root.clientHeight;
    if (!graph || (wide === size[0] && high === size[1])) return;
    if (fitted) fit();
    else { x += (wide - size[0]) / 2; y += (high - size[1]) / 2; } // the middle stays in the middle
    size = [wide, high];
    place();
  }
  function legible() { return graph.length > CROWD ? READ : FAR; } // from here on values can be read
  function reveal(key, closer) {
    const at = graph.rects.get(key);
    if (!at) return;
    const wide = root.clientWidth, high = root.clientHeight, left = at.x * scale + x, top = at.y * scale + y;
    if (left >= 0 && left + at.width * scale <= wide && top >= 0 && top + at.height * scale <= high && (!closer || scale >= legible())) return;
    fitted = false;
    if (closer && scale < legible()) scale = 0.8;
    x = wide / 2 - (at.x + at.width / 2) * scale;
    y = high / 2 - (at.y + at.height / 2) * scale;
    glide();
  }

  function enter() { // too large to be seen as a whole: begin at what failed, or at the end
    const roles = (role) => graph.order.filter((key) => graph.boxes.get(key)[1] === role).pop();
    reveal(roles("failure") || roles("output") || graph.order[graph.order.length - 1], true);
  }

  const fingers = new Map();
  let dragged = 0;
  root.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    if (!fingers.size) dragged = 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  root.addEventListener("pointermove", (event) => {
    const was = fingers.get(event.pointerId);
    if (!was) return;
    const dx = event.clientX - was[0], dy = event.clientY - was[1];
    dragged += Math.abs(dx) + Math.abs(dy);
    if (dragged > 4 && !root.hasPointerCapture(event.pointerId)) { root.setPointerCapture(event.pointerId); root.classList.add("held"); }
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const far = Math.hypot(event.clientX - other[0], event.clientY - other[1]), near = Math.hypot(was[0] - other[0], was[1] - other[1]);
      const area = root.getBoundingClientRect();
      if (near > 0) zoomAt(other[0] - area.left, other[1] - area.top, far / near);
    } else { x += dx; y += dy; fitted = false; move(); }
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const end of ["pointerup", "pointercancel"]) root.addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) root.classList.remove("held");
  });
  root.addEventListener("wheel", (event) => {
    event.preventDefault();
    const area = root.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 18 : 1;
    if (event.shiftKey) { x -= (event.deltaX || event.deltaY) * lines; fitted = false; move(); return; }
    zoomAt(event.clientX - area.left, event.clientY - area.top, Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0016)));
  }, { passive: false });
  root.addEventListener("click", (event) => {
    if (dragged > 4) return;
    const box = event.target.closest(".tg-box");
    if (event.detail === 2 && picked != null) enterBox(picked); // the first click may have moved it
    else if (box) pick(box.dataset.key);
    else if (afar) { const key = under(event); if (key != null) pick(key); }
  });
  function under(event) { // the box on the canvas that is nearest to the pointer, if one is near
    const area = root.getBoundingClientRect(), px = (event.clientX - area.left - x) / scale, py = (event.clientY - area.top - y) / scale;
    let best = null, least = (5 / scale) ** 2;
    for (const [key, its] of graph.rects) {
      const dx = Math.max(its.x - px, 0, px - its.x - its.width), dy = Math.max(its.y - py, 0, py - its.y - its.height);
      if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = key; }
    }
    return best;
  }
  root.addEventListener("pointermove", (event) => { // says what a spot is, as boxes do
    const key = afar && !fingers.size ? under(event) : null;
    root.title = key == null ? "" : graph.boxes.get(key)[0];
  });

  // Picking a box

  function pick(key, quiet) {
    mark(key);
    if (key == null) return;
    focusBox(key);
    if (!quiet) { tab = "box"; openSide(true); }
    reveal(key);
  }
  function mark(key) {
    for (const old of stage.querySelectorAll(".picked,.near")) old.classList.remove("picked", "near");
    picked = key;
    repaint();
    if (key == null || !graph.boxes.has(key)) return;
    element(key).classList.add("picked");
    for (const index of graph.touching.get(key) || []) if (graph.elements[index]) graph.elements[index].classList.add("near");
  }
  function focusBox(key) {
    const box = element(key);
    for (const old of stage.querySelectorAll('.tg-box[tabindex="0"]')) old.setAttribute("tabindex", "-1");
    box.setAttribute("tabindex", "0");
    box.style.display = ""; // what is hidden takes no focus
    box.focus({ preventScroll: true });
  }

  // Opening a box that stands for several, and leaving it

  function opens(key) { const words = graph.boxes.get(key); return words ? words[5] : -1; }
  function enterBox(key) {
    if (opens(key) < 0) return;
    path = [...path, key];
    turn();
    const first = graph.order.find((other) => graph.inputs.has(other)) || graph.order[0];
    mark(null);
    focusBox(first);
    if (scale < NARROW && !crowded()) reveal(first, true); // a row of turns, too wide to be read as a whole
    if (!side.hidden) fill();
    said.textContent = `${graph.told.heading} opened, ${graph.order.length} boxes`;
  }
  function leave(depth = path.length - 1) {
    if (!path.length) return;
    const key = path[depth];
    path = path.slice(0, depth);
    turn();
    pick(key, side.hidden);
  }
  function titleOf(number, key) {
    const { keys, told } = page.pictures[number];
    return page.words[page.lists[told][page.lists[keys].indexOf(key)]][0];
  }
  function within(number, key) { // the number of the picture inside a box, -1 if there is none
    const { keys, insides } = page.pictures[number], at = page.lists[keys].indexOf(key);
    return at < 0 ? -1 : page.lists[insides][at];
  }
  function current() { // the picture of this step, as far as the opened boxes are in it
    let number = frames[now].picture;
    const kept = [];
    for (const key of path) {
      const inside = within(number, key);
      if (inside < 0) break;
      kept.push(key);
      number = inside;
    }
    path = kept;
    return number;
  }
  function turn() { // shows the picture that `path` leads to
    graph = load(current());
    stage.replaceChildren(graph.svg);
    explainSigns();
    const names = [];
    let number = frames[now].picture;
    for (const key of path) { names.push(titleOf(number, key)); number = within(number, key); }
    crumbs.hidden = !path.length;
    crumbs.replaceChildren(...["whole graph", ...names].flatMap((name, depth, all) => depth < all.length - 1
      ? [el("button", { type: "button", onclick: () => leave(depth) }, name), el("span", { "aria-hidden": "true" }, "›")]
      : [el("b", { "aria-current": "location" }, name)]));
    fit();
    if (scale < TINY && root.clientWidth && root.clientHeight) enter();
    place();
  }
  function focused() {
    const box = document.activeElement && document.activeElement.closest(".tg-box");
    return box ? box.dataset.key : null;
  }
  function walk(key, where) {
    if (where === "up" || where === "down") {
      const next = (where === "up" ? graph.inputs : graph.users).get(key);
      return next ? next[0][0] : null;
    }
    if (where === "next" || where === "previous") return graph.order[graph.order.indexOf(key) + (where === "next" ? 1 : -1)] || null;
    const at = graph.rects.get(key), middle = at.x + at.width / 2;
    let best = null, least = Infinity;
    for (const [other, its] of graph.rects) {
      if (other === key || its.y + its.height <= at.y || its.y >= at.y + at.height) continue;
      const away = (its.x + its.width / 2 - middle) * (where === "right" ? 1 : -1);
      if (away > 0 && away < least) { least = away; best = other; }
    }
    return best;
  }
  stage.addEventListener("focusin", (event) => {
    const box = event.target.closest(".tg-box");
    if (box && box.matches(":focus-visible")) reveal(box.dataset.key);
  });
  // A focused box must not make the browser scroll what we move by a transform.
  root.addEventListener("scroll", () => { root.scrollLeft = root.scrollTop = 0; });

  // Searching

  let hits = [], hit = -1;
  const hitKeys = new Set(), haystacks = new Map();
  function haystack(key, words) {
    const name = now + ":" + key;
    if (!haystacks.has(name)) {
      const entries = (frames[now].details[key] || []).map((number) => page.entries[number])
        .map(([, , content]) => (typeof content === "number" ? page.texts[content] : JSON.stringify(content)));
      haystacks.set(name, [words[0], words[1], words[2], words[3], ...entries].join("\n").toLowerCase());
    }
    return haystacks.get(name);
  }
  function find() {
    for (const old of stage.querySelectorAll(".hit")) old.classList.remove("hit");
    const wanted = search.value.trim().toLowerCase(), seen = new Set();
    stage.classList.toggle("searching", wanted !== "");
    hits = [];
    hitKeys.clear();
    // Pictures inside are searched, too; what stands in several is found in the outermost.
    const waiting = wanted ? [frames[now].picture] : [];
    for (const number of waiting) {
      const { keys, told, insides } = page.pictures[number];
      page.lists[keys].forEach((key, index) => {
        const inside = page.lists[insides][index];
        if (inside >= 0) waiting.push(inside);
        if (seen.has(key)) return;
        seen.add(key);
        if (!haystack(key, page.words[page.lists[told][index]]).includes(wanted)) return;
        hits.push([number, key]);
        for (let at = [number, key]; at && !hitKeys.has(at.join(":")); at = parents.get(at[0])) hitKeys.add(at.join(":"));
      });
    }
    markHits();
    hit = -1;
    if (!side.hidden && tab === "list") fill();
    found.textContent = wanted ? (hits.length ? `${hits.length} found` : "none") : "";
  }
  function markHits() {
    repaint();
    for (const key of graph.order) if (hitKeys.has(graph.number + ":" + key) && graph.elements[graph.at.get(key)]) graph.elements[graph.at.get(key)].classList.add("hit");
  }
  function nextHit(by) {
    if (!hits.length) return;
    hit = (hit + by + hits.length) % hits.length;
    found.textContent = `${hit + 1} of ${hits.length}`;
    const [number, key] = hits[hit];
    if (number !== graph.number) {
      path = [];
      for (let at = parents.get(number); at; at = parents.get(at[0])) path.unshift(at[1]);
      turn();
      markHits();
    }
    mark(key);
    reveal(key, true);
    tab = "box";
    openSide(true);
  }
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); nextHit(event.shiftKey ? -1 : 1); }
  });

  // Keys

  const GO = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right", n: "next", p: "previous" };
  document.addEventListener("keydown", (event) => {
    if (help.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (search.value) { search.value = ""; find(); } else if (!side.hidden) openSide(false); else if (path.length) leave(); else mark(null);
      if (document.activeElement === search) search.blur();
      return;
    }
    if (event.target.closest("input, aside")) {
      if (event.target.closest("aside") && event.key === "/") { event.preventDefault(); search.focus(); }
      return;
    }
    const key = focused();
    if (GO[event.key]) {
      event.preventDefault();
      const next = key == null ? picked || graph.order[0] : walk(key, GO[event.key]);
      if (next != null) { if (side.hidden || tab !== "box") { focusBox(next); reveal(next, true); } else pick(next); }
    } else if ((event.key === "Enter" || event.key === " ") && key != null) { event.preventDefault(); if (opens(key) >= 0) enterBox(key); else { pick(key); side.focus(); } }
    else if (event.key === "Backspace" && path.length) { event.preventDefault(); leave(); }
    else if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); }
    else if (event.key === "+" || event.key === "=") zoomBy(1.3);
    else if (event.key === "-") zoomBy(1 / 1.3);
    else if (event.key === "0") { fit(); glide(); }
    else if (event.key === ",") before.click();
    else if (event.key === "c" && page.candidates && steps) turnCandidates();
    else if (event.key === ".") after.click();
    else if (event.key === "d") openSide(side.hidden);
    else if (event.key === "l") { tab = "list"; openSide(true); side.focus(); }
    else if (event.key === "?") help.showModal();
  });

  // The panel

  let tab = "step";
  const { SHOW, section, readable, lazily } = sections(page, side, said);
  const aboutSteps = page.candidates || page.curves.length || frames.some((f) => f.note || f.facts.length || f.rejections.length || f.exchanges.length || Object.keys(f.parameters).length || f.score != null || f.cost != null);

  function openSide(open) {
    side.hidden = !open;
    sideButton.setAttribute("aria-expanded", String(open));
    resized();
    if (open) fill(); else if (picked && side.contains(document.activeElement)) focusBox(picked);
  }
  function fill() {
    const tabs = el("div", { class: "tabs", role: "tablist" });
    const one = (name, word) => el("button", { type: "button", role: "tab", id: "tab-" + name, "aria-selected": String(tab === name), onclick: () => { tab = name; fill(); document.getElementById("tab-" + name).focus(); } }, word);
    tabs.append(one("box", "Box"), one("list", "List"));
    if (aboutSteps) tabs.append(one("step", now < steps ? "Step" : "Run"));
    else if (tab === "step") tab = "box";
    const close = button("✕", "Close the details (Esc)", () => openSide(false));
    close.classList.add("close");
    tabs.append(close);
    side.replaceChildren(tabs, ...(tab === "box" ? boxPanel() : tab === "list" ? listPanel() : stepPanel()));
    side.scrollTop = 0;
  }

  function called(role) {
    const word = graph.told.words[role];
    return word ? ROLES[role].slice(0, 2) + word : ROLES[role];
  }
  function boxPanel() {
    if (picked == null || !graph.boxes.has(picked)) return [el("p", { class: "quiet" }, "Click a box to see what it holds, or find it in the list.")];
    const [name, role, kind, line, onPath, inside] = graph.boxes.get(picked);
    const entries = (frames[now].details[picked] || []).map((number) => page.entries[number]);
    said.textContent = `${name}, ${role}. ${entries.length} details.`;
    const parts = [el("h2", {}, name), el("div", {}, el("span", { class: "tag " + role }, called(role)),
      kind ? el("span", { class: "tag" }, kind) : null, onPath ? el("span", { class: "tag path" }, graph.told.words.way || "↩ feedback passed through") : null)];
    if (inside >= 0) parts.push(el("p", {}, line), el("p", {}, el("button", { type: "button", class: "open", onclick: () => enterBox(picked) }, `Open: ${page.lists[page.pictures[inside].keys].length} boxes inside`)));
    for (const [heading, form, content] of entries) parts.push(...section(heading, form, content));
    parts.push(...links(graph.told.words.inputs || "Inputs", graph.inputs.get(picked)), ...links(graph.told.words.users || "Used by", graph.users.get(picked)));
    return parts;
  }
  function listPanel() { // every box of the picture, or what was found in it: in words, for eyes and for screen readers
    const searching = search.value.trim() !== "", keys = graph.order.filter((key) => !searching || hitKeys.has(graph.number + ":" + key));
    const heading = searching ? `Found here (${keys.length} of ${graph.order.length})` : `Boxes (${keys.length})`;
    said.textContent = heading;
    return [el("h3", {}, heading), boxLinks(keys)];
  }
  function boxLinks(keys) {
    const list = el("div", { class: "links" }), more = el("button", { type: "button", onclick: () => add(true) });
    let shown = 0;
    const add = (asked) => {
      const fresh = keys.slice(shown, shown + 200).map((key) => {
        const [name, role, , line] = graph.boxes.get(key);
        return el("button", { type: "button", "aria-current": String(key === picked), onclick: () => { pick(key); reveal(key, true); } }, el("b", {}, name), el("code", {}, line), el("span", { class: "tag " + role }, called(role)));
      });
      shown += fresh.length;
      more.remove();
      list.append(...fresh);
      if (shown < keys.length) { more.textContent = `${Math.min(200, keys.length - shown)} more of ${keys.length - shown}`; list.append(more); }
      if (asked && fresh.length) fresh[0].focus();
    };
    add(false);
    return list;
  }
  function links(heading, ends) {
    if (!ends) return [];
    const shown = ends.slice(0, 60);
    return [el("h3", {}, `${heading} (${ends.length})`), el("div", { class: "links" }, shown.map(([key, label, captured]) => {
      const words = graph.boxes.get(key);
      return el("button", { type: "button", onclick: () => { pick(key); reveal(key); } },
        label ? el("code", {}, label + (captured ? " (read inside)" : "")) : null, el("b", {}, words[0]), el("code", {}, words[3]));
    }), ends.length > shown.length ? el("p", { class: "quiet" }, `and ${ends.length - shown.length} more`) : null)];
  }

  // The panel of a step

  function runPanel() {
    const parts = [el("h2", {}, "Run")];
    said.textContent = "Candidates and curves of the run";
    for (const [name, unit, points] of page.curves) parts.push(...line(name, unit, points, name.endsWith("candidate") ? "candidate" : "step"));
    const point = (name) => { const key = graph.order.find((other) => graph.boxes.get(other)[0] === name.slice(0, 12)); if (key) pick(key); };
    for (const front of page.fronts) parts.push(...scatter(front, point));
    const names = graph.order.filter((key) => graph.boxes.get(key)[5] < 0);
    parts.push(el("h3", {}, `Candidates (${names.length})`), boxLinks(names));
    return parts;
  }
  function stepPanel() {
    if (now >= steps) return runPanel();
    const frame = frames[now], parts = [el("h2", {}, frame.title || `Step ${now + 1}`)];
    said.textContent = frame.title || `Step ${now + 1}`;
    if (frame.note) parts.push(el("p", {}, frame.note));
    const facts = [...(frame.score != null ? [["score", short(frame.score)]] : []), ...(frame.cost != null ? [["cost", "$" + short(frame.cost)]] : []), ...frame.facts];
    if (facts.length) parts.push(SHOW.facts(facts));
    const shown = frames.slice(0, steps);
    parts.push(...curve("Score", shown.map((f) => f.score), ""));
    let spent = 0;
    parts.push(...curve("Spend", shown.some((f) => f.cost != null) ? shown.map((f) => (spent += f.cost || 0)) : [], "$"));
    if (frame.rejections.length) {
      parts.push(el("h3", {}, `Rejected (${frame.rejections.length})`));
      for (const [parameter, reason, proposal] of frame.rejections) parts.push(el("div", { class: "reason" }, el("b", {}, page.texts[parameter]), ": ", page.texts[reason],
        page.texts[proposal] ? el("details", {}, el("summary", {}, "the proposal"), el("pre", {}, page.texts[proposal])) : null));
    }
    const names = Object.keys(frame.parameters);
    if (names.length) parts.push(el("h3", {}, `Parameters (${names.length})`));
    const was = now > 0 ? frames[now - 1].parameters : {};
    const changed = (name) => was[name] && was[name][1] !== frame.parameters[name][1];
    names.sort((a, b) => Number(changed(b) || 0) - Number(changed(a) || 0));
    for (const name of names) parts.push(parameter(name, frame.parameters[name], changed(name) ? was[name] : null));
    frame.exchanges.forEach(([prompt, reply, model], index) => {
      if (!index) parts.push(el("h3", {}, `Model calls (${frame.exchanges.length})`));
      parts.push(lazily(el("details", { class: "item" }, el("summary", {}, `call ${index + 1} ${page.texts[model]}`)), () => [...section("Prompt", "text", prompt), ...section("Reply", ...readable(reply))]));
    });
    return parts;
  }
  function parameter(name, [version, text, kind, origin, trusted], old) {
    const badge = `${kind}, version ${version}${origin ? ", by " + origin : ""}${trusted ? "" : ", not trusted"}`;
    const made = el("details", { class: "item", "data-name": name }, el("summary", {}, el("b", {}, name), " ", el("span", { class: "quiet" }, badge), " ", old ? el("span", { class: "tag path" }, "changed") : null));
    lazily(made, () => [
      ...(old ? [el("h3", {}, `From version ${old[0]} to ${version}`), diff(page.texts[old[1]], page.texts[text])] : []),
      ...section("Value", kind === "code" ? "code" : "text", text)], old);
    return made;
  }
  function curve(heading, values, unit) {
    const points = values.map((value, index) => [index, value]).filter(([, value]) => value != null);
    const name = (index) => frames[index].title || `step ${index + 1}`;
    return line(heading, unit, points, "step", { low: 0, high: steps - 1, name, act: (index) => show(index), at: now });
  }

  // Steps

  let step = 0; // the one that was shown last
  function turnCandidates() {
    show(now < steps ? steps : step);
    tab = "step";
    openSide(true);
  }
  function show(number) {
    if (number < 0 || number >= frames.length || number === now) return;
    const fresh = !graph, held = picked, hadFocus = focused() != null, was = graph;
    now = number;
    if (number < steps) slider.value = String(number);
    slider.setAttribute("aria-valuetext", frames[number].title || `step ${number + 1}`);
    if (number < steps) { step = number; where.textContent = `${number + 1} / ${steps}`; }
    lineageButton.setAttribute("aria-pressed", String(number >= steps));
    before.disabled = number === 0 || number >= steps;
    after.disabled = number >= steps - 1;
    if (fresh && aboutSteps && (frames.length > 1 || frames[number].note) && root.clientWidth > 1000) side.hidden = false;
    const deep = path.length, next = load(current());
    if (fresh || path.length !== deep || next.width !== was.width || next.height !== was.height) turn();
    else if (next !== was) { graph = next; stage.replaceChildren(next.svg); explainSigns(); place(); }
    mark(held != null && graph.boxes.has(held) ? held : null);
    if (hadFocus && picked != null) focusBox(picked);
    if (search.value) find();
    if (!side.hidden) fill();
  }
  slider.addEventListener("input", () => show(+slider.value));
  new ResizeObserver(resized).observe(root);
  show(Math.max(0, steps - 1));
  document.documentElement.dataset.ready = "yes";
})();
