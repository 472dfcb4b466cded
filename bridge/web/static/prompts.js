// Prompt slots with their weights, and the pad that crossfades between four of them.

import { change, el, register } from "./faces.js";
import { fader } from "./fader.js";
import { send, set, state } from "./link.js";
import { unknown } from "./unknown.js";

const INSET = 20; // half of the puck, so that it stays inside the pad
const BEGIN_PX = 5;
const FINE = 0.1;
const DOUBLE_MS = 350;
const STOPS = [0, 0.5, 1]; // corners, middles of the edges, and the centre
const CATCH = 0.03; // a drag is caught by a stop within this share of the pad,
const CATCH_TAP = 0.15; // a tap within this one
const CORNERS = [
  [0, 0],
  [1, 0],
  [0, 1],
  [1, 1],
];

/** Build the slots and the pad from the rows of the group "Prompts". Returns the rows that are still to be placed. */
export function prompts(rows, examples) {
  const texts = rows.filter((c) => /^prompt_\d$/.test(c.name));
  const weights = rows.filter((c) => /^weight_\d$/.test(c.name));
  const slots = document.getElementById("slots");
  texts.forEach((control, i) => slots.append(slot(control, weights[i], weights, i + 1)));
  pad(texts, weights);
  offer(examples, texts[0]);
  return rows.filter((c) => !texts.includes(c) && !weights.includes(c));
}

function slot(control, weight, weights, number) {
  const area = el("textarea", {
    id: `w-${control.name}`,
    rows: 1,
    "aria-label": control.label,
    placeholder: number === 1 ? "What the picture should become, then Enter" : "Another prompt",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    enterkeyhint: "send",
  });
  const box = el("div", { class: "slot" });
  const textBox = el(
    "div",
    { class: "slot-text" },
    el("span", { class: "number", "aria-hidden": "true" }, String(number)),
    area,
    el(
      "button",
      {
        type: "button",
        class: "only",
        "aria-label": `Only prompt ${number}`,
        title: "Only this prompt",
        onclick: () => weights.forEach((w, i) => change(w, i + 1 === number ? 1 : 0, null)),
      },
      "only",
    ),
  );
  let sent = "";
  const commit = () => {
    if (area.value === sent) return;
    sent = area.value;
    textBox.classList.remove("unsent");
    state.values[control.name] = sent;
    set(control, sent);
  };
  const marks = unknown(control, area, textBox, commit);
  // At rest a slot keeps its height, whatever its text; only while it is written does a longer one lie over what is below.
  const grow = () => {
    area.style.height = "";
    area.classList.remove("long");
    const writing = document.activeElement === area;
    if (area.scrollHeight > area.clientHeight) area.classList.add("long");
    if (writing) area.style.height = `${Math.min(Math.max(area.scrollHeight, area.clientHeight), 160)}px`;
    else area.scrollTop = 0;
    marks();
  };
  area.addEventListener("input", () => {
    textBox.classList.toggle("unsent", area.value !== sent);
    grow();
  });
  addEventListener("resize", grow);
  area.addEventListener("focus", grow);
  area.addEventListener("blur", grow);
  area.addEventListener("change", commit);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      commit();
      area.blur(); // the panic keys are single letters: the next key must not end up in the text
    } else if (event.key === "Escape") {
      area.value = sent;
      textBox.classList.remove("unsent");
      area.blur();
    }
  });
  textBox.show = (value) => {
    sent = value;
    box.classList.toggle("empty", value === "");
    if (document.activeElement === area && textBox.classList.contains("unsent")) return;
    area.value = value;
    textBox.classList.remove("unsent");
    marks();
    requestAnimationFrame(grow);
  };
  box.append(register(control, textBox), register(weight, fader(weight)));
  return box;
}

/** The share of each corner when the puck stands at x, y (0..1). */
export function shares(x, y) {
  return [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y];
}

/** Where the puck stands for these weights: their centre of mass. */
export function centre(weights) {
  const total = weights.reduce((a, b) => a + b, 0);
  if (total <= 0) return [0, 0];
  return [0, 1].map((axis) => weights.reduce((sum, w, i) => sum + w * CORNERS[i][axis], 0) / total);
}

function pad(texts, weights) {
  const box = document.getElementById("pad");
  let at = [0, 0];
  const paint = () => {
    box.style.setProperty("--x", at[0]);
    box.style.setProperty("--y", at[1]);
    const parts = shares(...at).map((s) => Math.round(s * 100));
    box.setAttribute("aria-valuenow", String(Math.round(at[0] * 100)));
    box.setAttribute("aria-valuetext", parts.map((p, i) => `prompt ${i + 1} ${p} %`).join(", "));
    box.querySelectorAll(".corner").forEach((corner, i) => {
      corner.style.setProperty("--share", parts[i] / 100);
      corner.classList.toggle("empty", !state.values[texts[i].name]);
    });
  };
  const move = (x, y) => {
    at = [Math.min(1, Math.max(0, x)), Math.min(1, Math.max(0, y))];
    paint();
    shares(...at).forEach((share, i) => change(weights[i], Math.round(share * 1000) / 1000, box));
  };
  // As with a fader: the puck follows how far the pointer moves, a tenth as far with Shift. A tap brings it to the place
  // while changes of the prompts take time; without that it would be a cut. A double tap brings it to the centre.
  const size = () => [box.clientWidth - 2 * INSET, box.clientHeight - 2 * INSET];
  const caught = (share, within) => STOPS.find((stop) => Math.abs(share - stop) <= within) ?? share;
  let drag = null;
  let tapped = -Infinity;
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { id: event.pointerId, x: event.clientX, y: event.clientY, from: [...at], moving: false };
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drag?.id) return;
    const by = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moving && Math.hypot(...by) < BEGIN_PX) return;
    drag.moving = true;
    const rate = event.shiftKey ? FINE : 1;
    drag.from = drag.from.map((share, axis) => Math.min(1, Math.max(0, share + (by[axis] * rate) / size()[axis])));
    [drag.x, drag.y] = [event.clientX, event.clientY];
    move(...drag.from.map((share) => (rate === 1 ? caught(share, CATCH) : share)));
  });
  box.addEventListener("pointerup", (event) => {
    if (event.pointerId !== drag?.id) return;
    const tap = !drag.moving;
    drag = null;
    if (!tap) return;
    const again = event.timeStamp - tapped < DOUBLE_MS;
    tapped = again ? -Infinity : event.timeStamp;
    if (again) return move(0.5, 0.5);
    if (!(state.values.prompt_seconds > 0)) return;
    const area = box.getBoundingClientRect();
    const place = [event.clientX - area.left, event.clientY - area.top];
    move(...place.map((px, axis) => caught(Math.min(1, Math.max(0, (px - INSET) / size()[axis])), CATCH_TAP)));
  });
  box.addEventListener("pointercancel", () => (drag = null));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") return move(0.5, 0.5);
    const step = event.shiftKey ? 0.2 : 0.05;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[
      event.key
    ];
    if (!by) return;
    event.preventDefault();
    move(at[0] + by[0], at[1] + by[1]);
  });
  const follow = () => {
    at = centre(weights.map((w) => state.values[w.name] ?? w.default));
    paint();
  };
  for (const control of [...weights, ...texts]) register(control, { dataset: {}, title: " ", show: follow });
}

/** Words to try, one tap each, after the button for all words: they become prompt 1 and nothing else. */
function offer(examples, first) {
  const box = document.getElementById("examples");
  const buttons = examples.map((words) =>
    el("button", { type: "button", onclick: () => send("/tidecast/prompt", words) }, words),
  );
  box.append(...buttons);
  register(first, {
    dataset: {},
    title: " ",
    show: (value) =>
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(examples[i] === value))),
  });
}
