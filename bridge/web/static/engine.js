// The pickers of the model and of its size: a field for any of them, and buttons for those that are offered.

import { el } from "./faces.js";
import { on, set, state } from "./link.js";
import { widget } from "./widgets.js";

/** Which model is open, or is being loaded; and a list of models: [{ name, title, note }]. */
export function model(control, models) {
  const now = el("p", { class: "now dim", role: "status" });
  const buttons = models.map(({ name, title, note }) =>
    offer(control, name, el("span", {}, name), el("small", {}, note || title)),
  );
  on("readings", () => tell(now));
  on("control", ({ name }) => ["engine_model", "engine_size"].includes(name) && tell(now));
  return picker(control, now, "Models", "offers", buttons);
}

/** The sizes that are offered, as texts. */
export function size(control, sizes) {
  const buttons = sizes.map((text) => offer(control, text, text));
  return picker(control, null, "Model sizes", "offers sizes", buttons);
}

function offer(control, value, ...content) {
  const button = el("button", { type: "button", "aria-pressed": "false", onclick: () => set(control, value) }, ...content);
  button.dataset.value = value;
  return button;
}

/** What is refused stays in the field, to be mended; the buttons show the value in force. */
function picker(control, now, label, kind, buttons) {
  const mark = () => {
    for (const button of buttons)
      button.setAttribute("aria-pressed", String(button.dataset.value === state.values[control.name]));
  };
  on("control", ({ name }) => name === control.name && mark());
  mark();
  return el(
    "div",
    { class: "source picker" },
    widget(control),
    now,
    el("p", { class: "say", role: "status" }),
    buttons.length ? el("div", { class: kind, role: "group", "aria-label": label }, ...buttons) : null,
  );
}

function tell(now) {
  const { readings: r, values: v } = state;
  const text =
    r.state === "loading"
      ? `Loading ${v.engine_model} ${v.engine_size}. The output shows the input.`
      : `In force: ${[r.model, r.model_size].filter(Boolean).join(" ") || "no model"}`;
  if (now.textContent !== text) now.textContent = now.title = text;
}
