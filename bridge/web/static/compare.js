// A/B: the picture with and without Reproject and Detail, by a button and a key. A control holds the state, so every page,
// controller and program shows the same.

import { change, register } from "./faces.js";
import { on, state } from "./link.js";

const HOLD_MS = 500;
const FINISH = ["reproject", "detail"];
const button = document.getElementById("compare");
const caption = document.querySelector("#views [data-kind=output] figcaption");

/** Follow the control. Returns { press, release } for a key: a short press changes over; a long one only while it lasts. */
export function compare(control) {
  let now = false;
  let pressed = null; // [what was shown before, when]
  const say = () => {
    const same = FINISH.every((name) => !state.values[name]);
    caption.textContent = !now ? "output" : same ? "output B, like A: Reproject and Detail are 0" : "output B, plain";
  };
  button.title = `${control.help}\nHold the key C to look for a moment.\n/tidecast${control.address}`;
  button.addEventListener("click", () => change(control, !now, null));
  register(control, {
    dataset: {},
    title: " ",
    show: (value) => {
      now = Boolean(value);
      button.setAttribute("aria-pressed", String(now));
      caption.classList.toggle("plain", now);
      say();
    },
  });
  on("control", ({ name }) => FINISH.includes(name) && say());
  return {
    press: (at) => {
      pressed = [now, at];
      change(control, !now, null);
    },
    release: (at) => {
      if (pressed && at - pressed[1] >= HOLD_MS) change(control, pressed[0], null);
      pressed = null;
    },
  };
}
