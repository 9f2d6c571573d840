// The sections of the panel: each form of entry as it is read, with its button to copy it.
"use strict";

function sections(page, side, said) {
  const SHOW = {
    text: (words) => el("pre", {}, words),
    code: (words) => el("pre", {}, ...coloured(words)),
    error: (words) => el("pre", { class: "error" }, ...words.split(/(?<=\n)/).map((line) => (line.includes("  <--- (") ? el("span", { class: "marked" }, line) : line))),
    tree: (data) => el("div", { class: "tree" }, grown(data, "", 0)),
    facts: (pairs) => el("dl", {}, pairs.map(([name, what]) => [el("dt", {}, name), el("dd", {}, what)])),
    histogram: (data) => histogram(data),
    diff: ([before, after]) => diff(page.texts[before], page.texts[after]),
    image: (source) => el("img", { class: "picture", alt: "the values as a picture", src: source.startsWith("data:image/png;base64,") ? source : "" }),
  };
  function section(heading, form, content, raw) {
    const words = typeof content === "number" ? page.texts[content] : content, copied = raw || (typeof words === "string" && form !== "image" ? words : null);
    return [el("h3", {}, heading, copied == null ? null : copier(copied)), SHOW[form](words)];
  }
  function copier(words) {
    const made = el("button", { type: "button", class: "small", onclick: async () => {
      try { await navigator.clipboard.writeText(words); } catch {
        const area = el("textarea", { class: "unseen" });
        area.value = words;
        side.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      made.textContent = "copied";
      said.textContent = "copied";
      setTimeout(() => { made.textContent = "copy"; }, 1200);
    } }, "copy");
    return made;
  }
  function readable(number) { // a reply in JSON as a tree, in which texts have their lines; not where a number would be read inexactly
    try {
      const read = JSON.parse(page.texts[number]);
      if (read !== null && typeof read === "object" && !/\d{16}/.test(page.texts[number])) return ["tree", asTree(read), page.texts[number]];
    } catch { /* it is text */ }
    return ["text", number];
  }
  function lazily(details, make, open) {
    const inside = el("div", { class: "in" });
    details.append(inside);
    const unfold = () => { if (!inside.hasChildNodes()) inside.append(...make()); };
    details.addEventListener("toggle", unfold);
    if (open) { unfold(); details.open = true; }
    return details;
  }
  return { SHOW, section, readable, lazily };
}
