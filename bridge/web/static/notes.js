// Words in amber beside the controls that they concern: what a stage leaves out, that a picture is stretched, and what becomes
// of transparency.

import { el } from "./faces.js";
import { on, state } from "./link.js";

/** What a stage says that it leaves out -> the control of it. */
const OMITTED = { reprojection: "reproject", detail: "detail", "refinement of the matte": "mask_refine" };
const WHY = "A tick is too short for it. A smaller output or fewer pictures per second would hold it.";
const SIZES = "Such as 1920x1080; input is the source's size, model the model's.";

/** Follow the readings; `faces` are the widgets by the name of their control. */
export function notes(faces) {
  const marks = Object.entries(OMITTED)
    .filter(([, name]) => faces[name])
    .map(([what, name]) => {
      const mark = el("span", { class: "omitted", hidden: true, title: WHY }, "left out");
      faces[name].querySelector("label, .label").append(" ", mark);
      return [what, mark];
    });
  on("readings", ({ given_up: omitted }) => {
    const words = (omitted ?? "").split(", ");
    for (const [what, mark] of marks) mark.hidden = !words.includes(what);
  });
}

/** The widget of the output's size with words below it, for which the room is kept free: how a size is written, or that the
 * model's picture is stretched. */
export function sized(widget) {
  const words = el("p", { class: "beneath dim", id: "size-note", role: "status" }, SIZES);
  widget.querySelector("input").setAttribute("aria-describedby", words.id);
  on("readings", ({ stretched }) => {
    const text = stretched || SIZES;
    if (words.textContent === text) return;
    words.textContent = words.title = text;
    words.classList.toggle("amber", Boolean(stretched));
  });
  return el("div", {}, widget, words);
}

/** The widget of the output's transparency with words below it, for which the room is kept free: how the picture leaves. */
export function transparent(widget) {
  const words = el("p", { class: "beneath dim", id: "alpha-note", role: "status" }, "");
  widget.setAttribute("aria-describedby", words.id);
  const say = () => {
    const { alpha_state: leaves, alpha_unable: unable } = state.readings;
    const amber = leaves === "left out" || Boolean(unable);
    const text =
      leaves === "left out"
        ? "The picture is cut out, but nothing of it is sent transparent. Choose straight or premultiplied."
        : unable
          ? `${unable} cannot send transparency: the whole picture is sent.`
          : leaves === "opaque"
            ? "Nothing is transparent now: cut out with Mask, or send an input with alpha."
            : leaves === "straight"
              ? "The whole picture leaves, and its alpha."
              : leaves === "premultiplied"
                ? "What is transparent leaves darkened. Set the receiver to premultiplied too."
                : "For programs that lay the picture over another one. Straight suits most.";
    if (words.textContent === text) return;
    words.textContent = words.title = text;
    words.classList.toggle("amber", amber);
  };
  on("readings", say);
  say();
  return el("div", {}, widget, words);
}
