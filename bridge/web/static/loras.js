// The LoRAs: for each slot the name and the trigger words of what is loaded, its fader, its file, and why a file was refused.

import { change, el } from "./faces.js";
import { browse } from "./files.js";
import { on, state } from "./link.js";
import { widget } from "./widgets.js";

const NONE = "no LoRA";

/** Build the panel from the rows of the group "LoRA": a fader and a file for each slot. `texts` are the prompts. */
export function loras(title, rows, texts, column) {
  const slots = rows
    .filter((c) => /^lora_\d$/.test(c.name))
    .map((fader, i) => slot(i + 1, fader, rows.find((c) => c.name === `${fader.name}_file`), texts));
  column.append(
    el(
      "section",
      { class: "panel", id: "panel-lora", "data-group": title, "aria-labelledby": "panel-lora-title" },
      el("div", { class: "head" }, el("h2", { id: "panel-lora-title" }, title), el("p", { class: "say", role: "status" })),
      el("div", { class: "controls" }, ...slots),
    ),
  );
}

function slot(number, fader, file, texts) {
  const name = el("p", { class: "now", role: "status" }, NONE);
  const words = el("div", { class: "triggers", role: "group", "aria-label": `Trigger words of LoRA ${number}` });
  const choose = el(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-haspopup": "dialog",
      "aria-label": `Browse for LoRA ${number}`,
      onclick: () => browse("", { control: file, kind: "lora" }),
    },
    "Browse",
  );
  on("local", (local) => (choose.hidden = !local));
  let drawn = null;
  on("readings", (r) => {
    const found = told(r.loras ?? "").get(number) ?? { name: NONE, triggers: [], note: "" };
    const content = JSON.stringify(found);
    if (content === drawn) return; // nothing new: a button that has the focus keeps it
    drawn = content;
    name.textContent = name.title = [found.name, found.note].filter(Boolean).join(", ");
    name.classList.toggle("dim", found.name === NONE);
    words.replaceChildren(
      ...found.triggers.map((word) =>
        el("button", { type: "button", title: `Add to the strongest prompt: ${word}`, onclick: () => add(word, texts) }, word),
      ),
    );
  });
  return el(
    "div",
    { class: "source lora", role: "group", "aria-label": `LoRA ${number}` },
    el("div", { class: "lora-head" }, name, words),
    widget(fader),
    el("div", { class: "with-button" }, widget(file), choose),
    el("p", { class: "say", role: "status" }),
  );
}

/** What the reading says is loaded, by slot: "1 Film noir (noir, rain), 12 image-to-video keys ignored; 2 ink". */
export function told(text) {
  const found = new Map();
  for (const part of text.split("; ")) {
    const [, number, name, triggers, note] = /^(\d+) (.*?)(?: \(([^()]*)\))?(?:, (\d+ .* ignored))?$/.exec(part) ?? [];
    if (number) found.set(Number(number), { name, triggers: triggers ? triggers.split(", ") : [], note: note ?? "" });
  }
  return found;
}

/** Put trigger words into the prompt with the largest weight, unless they are there. */
function add(word, texts) {
  const weights = texts.map((_, i) => state.values[`weight_${i + 1}`] ?? 0);
  const control = texts[weights.indexOf(Math.max(...weights))];
  const before = (state.values[control.name] ?? "").trim();
  if (before.toLowerCase().includes(word.toLowerCase())) return;
  change(control, before ? `${before}, ${word}` : word, null);
}
