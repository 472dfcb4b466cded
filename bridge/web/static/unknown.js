// Words of a prompt that the model does not know: underlined, with the nearest known word beside them.

import { el } from "./faces.js";
import { on, state } from "./link.js";

/** Add the marks to a slot. Returns a function that draws them for the text that stands in `area` now. */
export function unknown(control, area, box, commit) {
  const layer = el("div", { class: "marks", "aria-hidden": "true" });
  const told = el("span", { class: "hidden", id: `unknown-${control.name}` });
  const instead = el("button", { type: "button", class: "instead", hidden: true, onclick: () => replace() });
  area.setAttribute("aria-describedby", told.id);
  area.after(layer);
  box.append(told, instead);
  let near = null; // [characters of the prompt, start, end, nearest word] of the word that can be replaced
  let drawn = null; // the words that are marked now: they may be many, and most calls change nothing

  const replace = () => {
    if (!near) return;
    const [characters, start, end, word] = near;
    area.value = [...characters.slice(0, start), word, ...characters.slice(end)].join("");
    commit();
    draw();
  };
  const draw = () => {
    const found = state.unknown[control.name];
    const words = found && found.text === area.value ? found.words : [];
    layer.style.height = area.style.height;
    layer.scrollTop = area.scrollTop;
    if (words === drawn || (!words.length && !drawn?.length)) return;
    drawn = words;
    const characters = words.length ? [...area.value] : []; // the places count these, not UTF-16 units
    const text = (from, to) => characters.slice(from, to).join("");
    const parts = [];
    let at = 0;
    for (const [start, end] of words) {
      parts.push(text(at, start), el("u", {}, text(start, end)));
      at = end;
    }
    layer.replaceChildren(...parts, text(at));
    layer.scrollTop = area.scrollTop;
    told.textContent = words.length ? `Not known: ${words.map(([start, end]) => text(start, end)).join(", ")}` : "";
    const first = words.find(([, , word]) => word);
    near = first ? [characters, ...first] : null;
    instead.hidden = !first;
    box.classList.toggle("offering", Boolean(first));
    if (!first) return;
    instead.textContent = `${first[2]}?`;
    instead.title = `Replace ${text(first[0], first[1])} by ${first[2]}`;
    instead.setAttribute("aria-label", instead.title);
  };
  area.addEventListener("scroll", () => (layer.scrollTop = area.scrollTop));
  on("unknown", draw);
  return draw;
}
