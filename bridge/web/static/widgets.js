// One widget for each kind of control, made from its row in the table; the fader has a module of its own.

import { change, el, leaves, register } from "./faces.js";
import { fader } from "./fader.js";
import { send, set } from "./link.js";

/** Build the widget of a control. */
export function widget(control) {
  const build = {
    float: fader,
    int: control.high - (control.low ?? 0) <= 8 ? choices : number,
    bool: toggle,
    choice: choices,
    text: text,
  }[control.kind];
  return register(control, build(control));
}

/** A row of buttons of which one is pressed: for choices, or a few whole numbers. */
function choices(control) {
  const options =
    control.kind === "int"
      ? Array.from({ length: control.high - control.low + 1 }, (_, i) => control.low + i)
      : control.choices;
  const buttons = options.map((option) =>
    el(
      "button",
      { type: "button", "aria-pressed": "false", onclick: () => change(control, option, null) },
      String(option),
    ),
  );
  const box = el(
    "div",
    { class: "choices", role: "group", "aria-label": control.label },
    el("span", { class: "label", "aria-hidden": "true" }, control.label),
    el("div", { class: "segments" }, ...buttons),
  );
  box.show = (v) =>
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i] === v)));
  box.mark = (v) => buttons.forEach((button, i) => button.classList.toggle("in-force", options[i] === v));
  return box;
}

/** A switch. */
function toggle(control) {
  const button = el(
    "button",
    { type: "button", class: "toggle", "aria-pressed": "false" },
    el("span", { class: "label" }, control.label),
    el("span", { class: "lever", "aria-hidden": "true" }),
  );
  const box = el("div", { class: "toggle-box" }, button);
  let now = false;
  button.addEventListener("click", () => change(control, !now, null));
  box.show = (v) => {
    now = Boolean(v);
    button.setAttribute("aria-pressed", String(now));
  };
  return box;
}

/** A whole number with a wide range, with a button that picks a random one. */
function number(control) {
  const id = `w-${control.name}`;
  const input = el("input", {
    type: "number",
    id,
    min: control.low,
    max: control.high,
    step: 1,
    inputmode: "numeric",
  });
  const roll = el(
    "button",
    {
      type: "button",
      "aria-label": `New ${control.label.toLowerCase()}`,
      onclick: () => change(control, Math.floor(Math.random() * 100000), null),
    },
    "New",
  );
  const box = el("div", { class: "entry" }, el("label", { for: id }, control.label), input, roll);
  input.addEventListener("change", () => input.value !== "" && change(control, Number(input.value), null));
  leaves(input);
  box.show = (v) => {
    if (document.activeElement !== input) input.value = v;
  };
  return box;
}

/** A line of text, sent with Enter or when it loses the focus. What is refused stays in it, so that it can be mended:
 * only the echo of a value in force changes what this page takes for it. */
function text(control) {
  const id = `w-${control.name}`;
  const input = el("input", { type: "text", id, autocomplete: "off", spellcheck: "false" });
  const box = el("div", { class: "entry" }, el("label", { for: id }, control.label), input);
  input.addEventListener("change", () => set(control, input.value));
  leaves(input);
  box.show = (v) => {
    if (document.activeElement !== input) input.value = v;
  };
  return box;
}

/** A button that sends a command without arguments. */
export function trigger(command) {
  return el(
    "button",
    {
      type: "button",
      title: `${command.help}\n/tidecast${command.address}`,
      "data-command": command.name,
      onclick: () => send("/tidecast" + command.address),
    },
    command.label,
  );
}
