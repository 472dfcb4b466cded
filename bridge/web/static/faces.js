// What all widgets share. A widget is an element with `show(value)`: the face of a control.
// Echoes of the server are shown at once, except for a control that is being moved by hand.

import { on, set, state } from "./link.js";

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

/** Enter sends what was typed (by the event `change`) and leaves the field; Escape leaves it with the old text. */
export function leaves(input) {
  let before = "";
  input.addEventListener("focus", () => (before = input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") input.value = before;
    if (event.key === "Escape" || event.key === "Enter") input.blur();
  });
}
