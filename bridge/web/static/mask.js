// The mask's own widgets: a colour that can be picked from the picture of the input, and words about what the mask does.

import { change, el } from "./faces.js";
import { on, state } from "./link.js";
import { look } from "./picture.js";
import { widget } from "./widgets.js";

const RADIUS = 2; // a picked colour is the mean of a square around the point, in pixels of the preview
const views = document.getElementById("views");
const canvas = document.getElementById("canvas-input");
let ending = null; // ends the picking that is under way

/** A colour: as text, from the browser's own dialog, or by a press on the picture of the input. */
export function color(control) {
  const box = widget(control);
  const show = box.show;
  const swatch = el("input", { type: "color", "aria-label": `${control.label}: choose`, tabindex: 0 });
  swatch.addEventListener("change", () => change(control, swatch.value, null));
  const pick = el(
    "button",
    { type: "button", class: "quiet", "aria-pressed": "false", "aria-label": `${control.label}: pick from the input` },
    "Pick",
  );
  pick.addEventListener("click", () => (ending ? ending() : picking(pick, (found) => change(control, found, null))));
  box.append(swatch, pick);
  box.show = (value) => {
    show(value);
    const found = /^#?([0-9a-f]{6})$/i.exec(String(value).trim());
    if (found) swatch.value = `#${found[1].toLowerCase()}`;
  };
  box.show(state.values[control.name] ?? control.default);
  return box;
}

/** Wait for a press on the picture of the input and call `found` with the colour there. Escape ends it. */
function picking(button, found) {
  if (["output", "wipe"].includes(views.dataset.view)) look("split");
  const press = (event) => {
    event.preventDefault();
    event.stopPropagation();
    const at = placeIn(event);
    if (at) {
      found(colorAt(...at));
      ending();
    }
  };
  const key = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    ending();
  };
  ending = () => {
    ending = null;
    views.classList.remove("picking");
    button.setAttribute("aria-pressed", "false");
    views.removeEventListener("pointerdown", press, true);
    document.removeEventListener("keydown", key, true);
  };
  views.classList.add("picking");
  button.setAttribute("aria-pressed", "true");
  views.addEventListener("pointerdown", press, true);
  document.addEventListener("keydown", key, true);
}

/** The pixel of the input under a pointer; null if there is none. The canvas shows its picture whole. */
function placeIn(event) {
  if (!canvas.parentElement.classList.contains("live")) return null;
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const x = Math.floor((event.clientX - box.x - (box.width - canvas.width * scale) / 2) / scale);
  const y = Math.floor((event.clientY - box.y - (box.height - canvas.height * scale) / 2) / scale);
  return x >= 0 && y >= 0 && x < canvas.width && y < canvas.height ? [x, y] : null;
}

function colorAt(x, y) {
  const side = 2 * RADIUS + 1;
  const left = Math.max(0, Math.min(canvas.width - side, x - RADIUS));
  const top = Math.max(0, Math.min(canvas.height - side, y - RADIUS));
  const pixels = canvas.getContext("2d").getImageData(left, top, side, side).data;
  const mean = [0, 1, 2].map((channel) => {
    let sum = 0;
    for (let i = channel; i < pixels.length; i += 4) sum += pixels[i];
    return Math.round(sum / (pixels.length / 4));
  });
  return `#${mean.map((v) => v.toString(16).padStart(2, "0")).join("")}`;
}

/** What the mask needs from elsewhere. */
function missing({ mask_source: source, mask_background: background, mask_use: use }) {
  const needs = [
    source.startsWith("person") && "person mask",
    source.endsWith("input") && "picture for the matte",
    background === "second" && use !== "alpha" && "picture for the background",
  ];
  return needs.filter(Boolean).join(" or no ");
}

/** The widget of the source with words below it, for which the room is kept free: what the mask does. */
export function tellsState(box) {
  const words = el("p", { class: "beneath dim", id: "mask-note" }, "");
  const say = () => {
    const { values, readings } = state;
    const share = Math.round((readings.mask_area ?? 0) * 100);
    const amber =
      readings.mask_state === "missing" ||
      (values.mask_use === "alpha" && readings.alpha_state === "left out") ||
      (values.mask_view && values.mask_source !== "off");
    const text =
      values.mask_source === "off" || (values.mask_use === "off" && !values.mask_view)
        ? "Choose a source, and whether its inside or its outside is restyled."
        : readings.mask_state === "missing"
          ? `No ${missing(values)} comes. The whole picture is restyled.`
          : readings.mask_state === "held"
            ? "The person mask has jumped; the one before is shown for a moment."
            : values.mask_use === "alpha" && readings.alpha_state === "left out"
              ? "The picture is cut out, but Output alpha (Video) is off: nothing of it is sent transparent."
              : readings.mask_state === "on"
                ? `${values.mask_view ? "The output shows the matte. " : ""}It covers ${share} % of the picture.`
                : "The input is shown, so there is nothing to mask.";
    if (words.textContent === text) return;
    words.textContent = text;
    words.classList.toggle("amber", Boolean(amber));
  };
  on("readings", say);
  on("control", ({ name }) => name.startsWith("mask_") && say());
  say();
  return el("div", {}, box, words);
}
