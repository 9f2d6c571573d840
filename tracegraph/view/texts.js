// Shows texts: coloured code, trees that open, and what changed from one text to another.
"use strict";

const PYTHON = /(#[^\n]*)|((?:\b[rbfuRBFU]{1,2})?(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|\b(and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|match|case|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False)\b|\b(\d[\w.]*)/g;
function coloured(words) {
  const parts = [];
  let end = 0;
  for (const match of words.matchAll(PYTHON)) {
    if (match.index > end) parts.push(words.slice(end, match.index));
    parts.push(el("span", { class: match[1] ? "c" : match[2] ? "s" : match[3] ? "k" : "n" }, match[0]));
    end = match.index + match[0].length;
  }
  parts.push(words.slice(end));
  return parts;
}
function grown(data, name, depth) {
  const label = name === "" ? [] : [el("span", { class: "k" }, name), ": "];
  if (data !== null && typeof data === "object") {
    if ("o" in data) return el("div", {}, ...label, el("span", { class: "c" }, data.o));
    const pairs = "m" in data, parts = pairs ? data.m : data.l;
    const ends = pairs ? ["{", "}"] : ["[", "]"];
    if (!data.n) return el("div", {}, ...label, ends.join(""));
    const made = el("details", {}, el("summary", {}, ...label, `${ends[0]} ${data.n} ${ends[1]}`));
    let filled = false;
    const unfold = () => {
      if (filled) return;
      filled = true;
      parts.forEach((part, index) => made.append(grown(pairs ? part[1] : part, pairs ? part[0] : String(index), depth + 1)));
      if (parts.length < data.n) made.append(el("div", { class: "c" }, `… ${data.n - parts.length} more`));
    };
    made.addEventListener("toggle", unfold);
    if (depth < 3) { unfold(); made.open = true; }
    return made;
  }
  if (typeof data === "string" && data.includes("\n")) return el("div", {}, ...label, el("pre", {}, data));
  const kind = typeof data === "string" ? "s" : typeof data === "number" ? "n" : "k";
  const words = data === null ? "None" : data === true ? "True" : data === false ? "False" : typeof data === "string" ? JSON.stringify(data) : String(data);
  return el("div", {}, ...label, el("span", { class: kind }, words));
}
function asTree(value) { // what JSON told, in the form that `grown` takes
  if (Array.isArray(value)) return { l: value.map(asTree), n: value.length };
  if (value === null || typeof value !== "object") return value;
  const pairs = Object.entries(value);
  return { m: pairs.map(([name, part]) => [name, asTree(part)]), n: pairs.length };
}
function diff(before, after) {
  const made = el("pre", { class: "diff" });
  for (const [sign, line] of lineDiff(before.split("\n"), after.split("\n")))
    made.append(el("span", { class: sign === "+" ? "add" : sign === "-" ? "cut" : "same" }, `${sign} ${line}`));
  return made;
}
function lineDiff(a, b) {
  // Longest common subsequence of lines between what is equal at both ends.
  let start = 0, enda = a.length, endb = b.length;
  while (start < enda && start < endb && a[start] === b[start]) start++;
  while (enda > start && endb > start && a[enda - 1] === b[endb - 1]) { enda--; endb--; }
  const rows = enda - start, cols = endb - start, out = a.slice(0, start).map((line) => [" ", line]);
  if (rows * cols > 4e6) {
    for (let i = start; i < enda; i++) out.push(["-", a[i]]);
    for (let j = start; j < endb; j++) out.push(["+", b[j]]);
  } else {
    const best = new Uint32Array((rows + 1) * (cols + 1)), w = cols + 1;
    for (let i = rows - 1; i >= 0; i--) for (let j = cols - 1; j >= 0; j--)
      best[i * w + j] = a[start + i] === b[start + j] ? best[(i + 1) * w + j + 1] + 1 : Math.max(best[(i + 1) * w + j], best[i * w + j + 1]);
    let i = 0, j = 0;
    while (i < rows || j < cols) {
      if (i < rows && j < cols && a[start + i] === b[start + j]) { out.push([" ", a[start + i]]); i++; j++; }
      else if (j >= cols || (i < rows && best[(i + 1) * w + j] >= best[i * w + j + 1])) out.push(["-", a[start + i++]]);
      else out.push(["+", b[start + j++]]);
    }
  }
  return out.concat(a.slice(enda).map((line) => [" ", line]));
}
