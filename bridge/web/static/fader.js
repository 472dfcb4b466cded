// A fader for fingers and mice: it follows how far the pointer moves, not where it stands, so that nothing jumps.
//
// A drag begins after a few pixels sideways; one that begins up or down scrolls the page and changes nothing. With Shift,
// or with the finger far above or below the fader, the value moves a tenth as fast. A tap on the number opens it for
// typing, a double tap goes back to the default. Arrow keys move it too, and Enter opens the number. A finger that rests on
// it, or the key M, asks for its modulator (event "modulate").

import { change, el, format, leaves } from "./faces.js";

const BEGIN_PX = 5;
const FINE = 0.1;
const FINE_PX = 70;
const DOUBLE_MS = 350;
const REST_MS = 600;

/** The number above the thumb: one for all faders, over everything, while a finger covers the fader. */
const bubble = el("div", { id: "bubble", "aria-hidden": "true", hidden: true });
document.body.append(bubble);

/** A horizontal fader with its label and value inside the bar. */
export function fader(control) {
  const id = `w-${control.name}`;
  const range = control.high - control.low;
  const step = control.unit === "ms" ? 10 : range / 200;
  const input = el("input", { type: "range", id, min: control.low, max: control.high, step: "any" });
  const value = el("output", { for: id });
  const number = el("span", { class: "value", title: "Tap to type a number" }, value, el("small", {}, control.unit));
  const mark = el("span", { class: "mark", "aria-hidden": "true", hidden: true });
  const moved = el("span", { class: "modulated", "aria-hidden": "true", hidden: true });
  const box = el("div", { class: "fader" }, input, mark, moved, el("label", { for: id }, control.label), number);
  let now = control.default;
  const clamp = (v) => Math.min(control.high, Math.max(control.low, v));
  const paint = (v) => {
    now = v;
    box.style.setProperty("--at", (v - control.low) / range);
    value.textContent = format(control, v);
    input.setAttribute("aria-valuetext", `${format(control, v)} ${control.unit}`);
  };
  const move = (v, by) => {
    v = Number(clamp(Math.round(v / by) * by).toFixed(6));
    if (v === now) return;
    input.value = v;
    paint(v);
    change(control, v, box);
  };

  let drag = null;
  let tapped = 0;
  let rest = 0;
  let rested = false;
  const share = (event) => (event.shiftKey || Math.abs(event.clientY - drag.y) > FINE_PX ? FINE : 1);
  const show = (event) => {
    bubble.hidden = event.pointerType === "mouse";
    bubble.textContent = `${format(control, now)} ${control.unit}${share(event) === FINE ? " fine" : ""}`.trim();
    bubble.classList.toggle("fine", share(event) === FINE);
    const half = bubble.offsetWidth / 2 + 6;
    bubble.style.left = `${Math.min(innerWidth - half, Math.max(half, event.clientX))}px`;
    bubble.style.top = `${Math.max(8, box.getBoundingClientRect().top - 68)}px`;
  };
  const modulate = () => box.dispatchEvent(new Event("modulate", { bubbles: true }));
  const end = () => {
    drag = null;
    clearTimeout(rest);
    bubble.hidden = true;
    box.classList.remove("held");
  };
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest(".typed, .learn-target")) return;
    drag = { id: event.pointerId, x: event.clientX, y: event.clientY, from: now, moving: false };
    // With a mouse nothing scrolls, so the pointer is ours from the start, even where it leaves the bar.
    if (event.pointerType === "mouse") box.setPointerCapture(event.pointerId);
    else
      rest = setTimeout(() => {
        rested = true;
        end();
        modulate();
      }, REST_MS);
  });
  box.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drag?.id) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moving) {
      if (Math.hypot(dx, dy) < BEGIN_PX) return;
      clearTimeout(rest);
      if (Math.abs(dy) > Math.abs(dx)) return end(); // a scroll
      Object.assign(drag, { moving: true, x: drag.x + Math.sign(dx) * BEGIN_PX, at: now });
      box.setPointerCapture(event.pointerId);
      box.classList.add("held");
    }
    const rate = share(event);
    drag.at = clamp(drag.at + ((event.clientX - drag.x) / box.clientWidth) * range * rate);
    drag.x = event.clientX;
    move(drag.at, step * rate);
    show(event);
  });
  box.addEventListener("pointercancel", end);
  // The finger that has opened a dialog is lifted over it: that is no tap on what lies there now.
  box.addEventListener("touchend", (event) => {
    if (rested) event.preventDefault();
    rested = false;
  });
  box.addEventListener("pointerup", (event) => {
    if (event.pointerId !== drag?.id) return;
    const tap = !drag.moving;
    end();
    if (!tap) return;
    const onNumber = document.elementsFromPoint(event.clientX, event.clientY).includes(number);
    if (event.timeStamp - tapped < DOUBLE_MS) change(control, control.default, null);
    else if (onNumber) type();
    else input.focus({ focusVisible: false });
    tapped = onNumber ? 0 : event.timeStamp;
  });

  /** Open the number for typing; Enter or a tap elsewhere takes it over, Escape does not. */
  const type = () => {
    const entry = el("input", {
      class: "typed",
      type: "text",
      inputmode: "decimal",
      "aria-label": `${control.label}, ${control.low} to ${control.high} ${control.unit}`.trim(),
    });
    entry.value = format(control, now);
    leaves(entry);
    entry.addEventListener("change", () => {
      const typed = Number(entry.value.replace(",", "."));
      if (entry.value.trim() !== "" && Number.isFinite(typed)) change(control, clamp(typed), null);
    });
    entry.addEventListener("blur", () => entry.remove());
    entry.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") requestAnimationFrame(() => input.focus());
    });
    box.append(entry);
    entry.focus();
    entry.select();
  };
  input.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const fine = event.shiftKey ? FINE : 1;
    const up = { ArrowRight: step, ArrowUp: step, PageUp: range / 10 };
    const down = { ArrowLeft: step, ArrowDown: step, PageDown: range / 10 };
    const by = up[event.key] ?? -down[event.key];
    if (by) move(now + by * fine, step * fine);
    else if (event.key === "Home") move(control.low, step);
    else if (event.key === "End") move(control.high, step);
    else if (event.key === "Enter") type();
    else if (event.key.toLowerCase() === "m") modulate();
    else return;
    event.preventDefault();
  });
  input.addEventListener("input", () => move(Number(input.value), step * FINE)); // assistive technology sets it directly

  box.show = (v) => {
    input.value = v;
    paint(v);
  };
  box.mark = (v) => {
    mark.hidden = v === null;
    if (v !== null) box.style.setProperty("--mark", (clamp(v) - control.low) / range);
  };
  box.modulated = (v) => {
    moved.hidden = v === null;
    if (v !== null) box.style.setProperty("--moved", (clamp(v) - control.low) / range);
  };
  box.show(control.default);
  return box;
}
