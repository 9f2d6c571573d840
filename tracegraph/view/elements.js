// Makes elements. Words reach the document by textContent and attributes alone.
"use strict";

function el(tag, given, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...inside.flat(Infinity).filter((part) => part != null && part !== ""));
  return made;
}
function drawn(tag, given, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}
function titled(said) {
  const made = drawn("title", {});
  made.textContent = said;
  return made;
}
function parsed(markup) {
  const holder = document.createElement("template");
  holder.innerHTML = markup;
  return holder.content.firstElementChild;
}
function unescaped(markup) {
  return markup.replace(/&(lt|gt|quot|#x27|amp);/g, (_, name) => ({ lt: "<", gt: ">", quot: '"', "#x27": "'", amp: "&" })[name]);
}
// How large the title of a box, seen from afar, may be to fill it: in pixels, 12 if no more fits.
function roomFor(title, wide) {
  let cells = 0;
  for (const letter of title) cells += letter.codePointAt(0) > 0x2e7f ? 2 : 1;
  return [28, 24, 20, 16].find((size) => cells * size * 0.6 <= wide - 24) || 12;
}
