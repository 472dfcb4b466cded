// One widget for each kind of control, made from its row in the table. A widget is an element with `show(value)`.
// Echoes of the server are shown at once, except for a control that is being moved by hand.

import { on, send, set, state } from "./link.js";

const widgets = new Map();
const held = new Map();
const HOLD_MS = 400;

/** Make an element: el("div", {class: "x"}, child, "text"). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

/** A value as text for the page. */
export function format(control, value) {
  if (control.kind === "float")
    return Number(value).toFixed(control.high > 10 && control.unit === "ms" ? 0 : control.high > 10 ? 1 : 2);
  if (control.kind === "bool") return value ? "on" : "off";
  return String(value);
}

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

/** Register `element` (with a method `show`) as a face of a control: it shows echoes, and MIDI learn can bind it. */
export function register(control, element) {
  element.dataset.control = control.name;
  element.dataset.address = "/tidecast" + control.address;
  element.dataset.label = control.label;
  if (control.kind !== "text") element.dataset.knob = "";
  if (!element.title) element.title = `${control.help}\n/tidecast${control.address}`;
  if (!widgets.has(control.name)) widgets.set(control.name, []);
  widgets.get(control.name).push(element);
  if (control.name in state.values) element.show(state.values[control.name]);
  return element;
}

/** A value was changed by hand: show it everywhere on this page and send it. `from` is the face that is being moved. */
export function change(control, value, from) {
  state.values[control.name] = value;
  if (from) hold(control.name);
  for (const other of widgets.get(control.name) ?? []) if (other !== from) other.show(value);
  set(control, value);
}

/** Ignore echoes of a control while it is being moved; when it rests, show the value in force. */
function hold(name) {
  clearTimeout(held.get(name));
  held.set(
    name,
    setTimeout(() => {
      held.delete(name);
      showAll(name);
    }, HOLD_MS),
  );
}

function showAll(name) {
  for (const element of widgets.get(name) ?? []) element.show(state.values[name]);
}

on("control", ({ name }) => held.has(name) || showAll(name));

/** A horizontal fader with its label and value inside the bar. */
export function fader(control) {
  const id = `w-${control.name}`;
  const step = control.unit === "ms" ? 10 : (control.high - control.low) / 200;
  const input = el("input", { type: "range", id, min: control.low, max: control.high, step });
  const value = el("output", { for: id });
  const mark = el("span", { class: "mark", "aria-hidden": "true", hidden: true });
  const box = el(
    "div",
    { class: "fader" },
    input,
    mark,
    el("label", { for: id }, control.label),
    el("span", { class: "value" }, value, el("small", {}, control.unit)),
  );
  const paint = (v) => {
    box.style.setProperty("--at", (v - control.low) / (control.high - control.low));
    value.textContent = format(control, v);
    input.setAttribute("aria-valuetext", `${format(control, v)} ${control.unit}`);
  };
  input.addEventListener("input", () => {
    const v = Number(input.value);
    paint(v);
    change(control, v, box);
  });
  input.addEventListener("dblclick", () => change(control, control.default, null));
  box.show = (v) => {
    input.value = v;
    paint(v);
  };
  box.mark = (v) => {
    mark.hidden = v === null;
    if (v !== null)
      box.style.setProperty(
        "--mark",
        Math.min(1, Math.max(0, (v - control.low) / (control.high - control.low))),
      );
  };
  box.show(control.default);
  return box;
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

/** Enter sends what was typed (by the event `change`) and leaves the field; Escape leaves it with the old text. */
export function leaves(input) {
  let before = "";
  input.addEventListener("focus", () => (before = input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") input.value = before;
    if (event.key === "Escape" || event.key === "Enter") input.blur();
  });
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

/** A line of text, sent with Enter or when it loses the focus. */
function text(control) {
  const id = `w-${control.name}`;
  const input = el("input", { type: "text", id, autocomplete: "off", spellcheck: "false" });
  const box = el("div", { class: "entry" }, el("label", { for: id }, control.label), input);
  input.addEventListener("change", () => change(control, input.value, null));
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
