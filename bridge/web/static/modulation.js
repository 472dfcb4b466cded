// Modulators: a moving mark on every fader that one moves, the list of all, and the dialog in which one is set.
//
// A modulator is a control whose value is a line of text: target, shape, and key=value. The dialog writes that line; keys
// that it does not show stay in it as they are.

import { el, leaves, register } from "./faces.js";
import { tell } from "./errors.js";
import { on, set, state } from "./link.js";

const $ = (id) => document.getElementById(id);
const SHAPES = {
  sine: "sine",
  triangle: "triangle",
  up: "ramp up",
  down: "ramp down",
  square: "square",
  random: "random, smooth",
  hold: "random, held",
  drunk: "drunk",
  envelope: "hit",
  follow: "follows a signal",
};
const SIGNALS = ["audio/level", "audio/low", "audio/mid", "audio/high", "audio/onset"];
const USUAL = { depth: "0.5", phase: "0", attack: "10", release: "300", beats: "4" };

/** The parts of a modulator's text: target, shape and keys; null for an empty text. */
export function parse(text) {
  const [target, shape, ...rest] = (text ?? "").split(/\s+/).filter(Boolean);
  if (!shape) return null;
  const keys = rest.map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]);
  return { target, shape, ...Object.fromEntries(keys) };
}

/** The text of these parts. */
export function write({ target, shape, ...keys }) {
  const words = Object.entries(keys).filter(([key, value]) => value !== "" && value !== USUAL[key]);
  return [target, shape, ...words.map(([key, value]) => `${key}=${value}`)].join(" ");
}

/** Build the panel and the dialog. `rows` are the controls of the group, `makePanel` makes its panel from the first of them,
 * `byName` has every control. */
export function modulation(rows, makePanel, byName) {
  const slots = rows.filter((c) => c !== byName.mod_depth);
  const box = makePanel(byName.mod_depth).mod_depth.closest(".controls");
  const hint = el("p", { class: "dim" }, "None. Right click a fader, rest a finger on it, or press M on it.");
  const list = el("div", { class: "offers mods", role: "group", "aria-label": "Modulators" }, hint);
  const edit = dialog(slots, byName);
  let moved = new Set(); // the names of the controls that modulators move
  const mark = () => {
    for (const fader of document.querySelectorAll(".fader[data-control]")) {
      const { control: name } = fader.dataset;
      fader.modulated(moved.has(name) ? (state.readings[`modulated_${name}`] ?? null) : null);
    }
  };
  for (const control of slots) {
    const row = el(
      "button",
      { type: "button", "aria-haspopup": "dialog", hidden: true, onclick: () => edit(control, null) },
      el("span", {}),
      el("small", {}),
    );
    row.show = (text) => {
      const parts = parse(text);
      row.hidden = !parts;
      row.children[0].textContent = parts ? (byName[parts.target]?.label ?? parts.target) : "";
      row.children[1].textContent = parts ? about(parts) : "";
      moved = new Set(slots.map((c) => parse(state.values[c.name])?.target));
      hint.hidden = slots.some((c) => state.values[c.name]);
      mark();
    };
    list.append(register(control, row));
  }
  box.append(list);
  on("readings", mark);

  const ask = (event) => {
    const face = event.target.closest?.(".fader[data-control]");
    const control = byName[face?.dataset.control];
    if (!control || event.target.closest(".typed") || document.body.classList.contains("learning")) return;
    event.preventDefault();
    if ($("modulator").open) return; // a finger that rests makes both events in some browsers
    if (control.kind !== "float" || control.stored !== "always") {
      tell({ topic: "modulation", reason: `${control.label} cannot be modulated: it does not belong to the look.` });
      return;
    }
    const own = slots.find((c) => parse(state.values[c.name])?.target === control.name);
    const free = own ?? slots.find((c) => !state.values[c.name]);
    if (free) edit(free, control);
    else tell({ topic: "modulation", reason: `All ${slots.length} modulators are in use. Switch one off first.` });
  };
  document.addEventListener("contextmenu", ask);
  document.addEventListener("modulate", ask);
}

/** A modulator in words. */
function about({ shape, beats, hz, source, trigger }) {
  if (shape === "follow") return `follows ${source}`;
  const cycle = hz ? `${hz} Hz` : `${beats ?? USUAL.beats} beats`;
  return `${SHAPES[shape] ?? shape} · ${trigger ? `with ${trigger}` : cycle}`;
}

/** Prepare the dialog. Returns edit(slot, target), which opens it; without a target the modulator has one. */
function dialog(slots, byName) {
  const box = $("modulator");
  const field = Object.fromEntries(
    ["shape", "rate", "unit", "depth", "phase", "polarity", "signal", "attack", "release", "say", "off"].map((key) => [
      key,
      $(`mod-${key}`),
    ]),
  );
  let slot = null;
  let parts = null; // as they were set last
  field.shape.append(
    el("option", { value: "" }, "off"),
    ...Object.entries(SHAPES).map(([shape, words]) => el("option", { value: shape }, words)),
  );

  const fill = () => {
    const { shape, beats, hz, trigger, source } = parts;
    const follows = shape === "follow";
    field.shape.value = shape;
    field.unit.value = hz ? "hz" : "beats";
    field.rate.value = hz ?? beats ?? USUAL.beats;
    for (const key of ["depth", "phase", "attack", "release"]) field[key].value = parts[key] ?? USUAL[key];
    field.polarity.value = parts.polarity ?? "";
    field.signal.value = (follows ? source : trigger) ?? "";
    field.signal.placeholder = follows ? "audio/low, osc/…, midi/…" : "the bar; or a signal";
    $("mod-signal-label").textContent = follows ? "Follows" : "Begins with";
    for (const key of ["rate", "unit", "phase"]) field[key].disabled = !shape || follows;
    for (const key of ["depth", "polarity", "signal"]) field[key].disabled = !shape;
    for (const key of ["attack", "release"]) field[key].disabled = shape !== "envelope" && !follows;
    field.off.disabled = !shape;
    numbers();
  };
  const numbers = () => {
    box.querySelector("[for=mod-depth]").textContent = `${Math.round(field.depth.value * 100)} %`;
    box.querySelector("[for=mod-phase]").textContent = Number(field.phase.value).toFixed(2);
  };
  const apply = () => {
    field.say.textContent = "";
    set(slot, parts.shape ? write(parts) : "");
  };
  const choose = () => {
    const before = parts.shape;
    parts.shape = field.shape.value;
    if (parts.shape === "follow") {
      for (const key of ["beats", "hz", "trigger", "phase"]) delete parts[key];
      parts.source ??= SIGNALS[0];
    } else if (before === "follow") for (const key of ["source", "low", "high"]) delete parts[key];
    fill();
    apply();
  };
  field.shape.addEventListener("change", choose);
  field.off.addEventListener("click", () => {
    field.shape.value = "";
    choose();
    box.close();
  });
  const rate = () => {
    const number = Number(field.rate.value.replace(",", "."));
    if (!(number > 0)) {
      field.say.textContent = "A cycle is a number above 0.";
      return;
    }
    for (const key of ["beats", "hz"]) delete parts[key];
    parts[field.unit.value] = String(number);
    apply();
  };
  field.rate.addEventListener("change", rate);
  field.unit.addEventListener("change", rate);
  for (const key of ["depth", "phase"])
    field[key].addEventListener("input", () => {
      parts[key] = field[key].value;
      numbers();
      apply();
    });
  for (const key of ["attack", "release"])
    field[key].addEventListener("change", () => {
      parts[key] = field[key].value.replace(",", ".").trim();
      apply();
    });
  field.polarity.addEventListener("change", () => {
    parts.polarity = field.polarity.value;
    apply();
  });
  field.signal.addEventListener("change", () => {
    parts[parts.shape === "follow" ? "source" : "trigger"] = field.signal.value.trim();
    apply();
  });
  for (const key of ["rate", "signal", "attack", "release"]) leaves(field[key]);
  $("mod-form").addEventListener("submit", (event) => event.preventDefault());
  on("errors", (list) => {
    const last = list.at(-1);
    if (box.open && last?.topic === `/tidecast${slot.address}`) field.say.textContent = last.reason;
  });
  on("control", ({ name, value }) => {
    if (!box.open || name !== slot.name || box.contains(document.activeElement)) return;
    const now = parse(value);
    parts = now ?? { ...parts, shape: "" };
    fill();
  });

  return (control, target) => {
    slot = control;
    parts = parse(state.values[slot.name]) ?? { target: target.name, shape: "" };
    const named = byName[parts.target];
    $("mod-title").textContent = `Modulate ${named?.label ?? parts.target}`;
    const heard = (state.readings.mod_signals ?? "").split(" ").filter(Boolean);
    $("mod-signals").replaceChildren(
      ...[...new Set([...SIGNALS, ...heard])].map((name) => el("option", { value: name })),
    );
    field.say.textContent = "";
    fill();
    box.showModal();
  };
}
