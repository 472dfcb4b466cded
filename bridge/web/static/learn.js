// MIDI learn: a mode in which every control can be clicked, then the next knob that moves is bound to it.

import { el } from "./faces.js";
import { on, send, state } from "./link.js";

const button = document.getElementById("learn-button");
const bar = document.getElementById("learn-bar");
const text = document.getElementById("learn-text");
const switchOn = document.getElementById("learn-on");
const OFF = "MIDI is off: Tidecast was started without --midi.";
let waiting = "";
let inviting = false;
let heard = 0; // time of the newest error that was looked at

/** Prepare the mode. */
export function learn() {
  button.addEventListener("click", () => (document.body.classList.contains("learning") ? leave() : enter()));
  document.getElementById("learn-done").addEventListener("click", leave);
  switchOn.addEventListener("click", () => {
    text.textContent = "MIDI is being switched on …";
    send("/tidecast/midi/on");
  });
  document.addEventListener(
    "keydown",
    (event) => event.key === "Escape" && document.body.classList.contains("learning") && leave(),
  );
  on("midi", show);
  on("errors", (list) => {
    const failed = list.filter(({ topic, time_s }) => topic === "midi" && time_s > heard).at(-1);
    heard = Math.max(heard, list.at(-1)?.time_s ?? 0);
    if (failed && document.body.classList.contains("learning")) text.textContent = failed.reason;
  });
  on("reply", ({ address, args }) => {
    if (address === "/error" && waiting && args[0] === "/tidecast/midi/learn") {
      waiting = "";
      text.textContent = args[1];
      mark();
    }
  });
}

function enter() {
  document.body.classList.add("learning");
  button.setAttribute("aria-pressed", "true");
  bar.hidden = false;
  invite();
  for (const target of document.querySelectorAll("main [data-knob]")) {
    const cover = el(
      "button",
      {
        type: "button",
        class: "learn-target",
        onclick: (event) => {
          event.stopPropagation();
          ask(target.dataset.address);
        },
      },
      el("span", {}),
    );
    target.append(cover);
  }
  show();
}

/** What to do first; without MIDI, the offer to switch it on. */
function invite() {
  inviting = true;
  const { bindings, ports } = state.midi ?? {};
  switchOn.hidden = Boolean(bindings);
  text.textContent = !bindings
    ? (state.errors.filter(({ topic }) => topic === "midi").at(-1)?.reason ?? OFF)
    : ports?.length === 0
      ? "No MIDI device is connected. Plug one in; it is detected automatically."
      : "Choose a control, then turn a knob.";
}

function name(address) {
  return document.querySelector(`main [data-address="${address}"]`)?.dataset.label ?? address;
}

function leave() {
  if (waiting) send("/tidecast/midi/learn", "");
  waiting = "";
  document.body.classList.remove("learning");
  button.setAttribute("aria-pressed", "false");
  bar.hidden = true;
  for (const cover of document.querySelectorAll(".learn-target")) cover.remove();
}

function ask(address) {
  inviting = false;
  waiting = address;
  send("/tidecast/midi/learn", address);
  text.textContent = `Now turn the knob, or press the key, for ${name(address)} …`;
  mark();
}

function show() {
  const bindings = state.midi?.bindings ?? {};
  if (waiting && !state.midi?.learning && bindings[waiting]) {
    text.textContent = `${name(waiting)} is on ${bindings[waiting]}. Choose another control.`;
    waiting = "";
    inviting = false;
  } else if (inviting) invite();
  mark();
}

function mark() {
  const bindings = state.midi?.bindings ?? {};
  for (const cover of document.querySelectorAll(".learn-target")) {
    const address = cover.parentElement.dataset.address;
    cover.classList.toggle("waiting", address === waiting);
    cover.classList.toggle("bound", address in bindings);
    cover.firstElementChild.textContent = bindings[address] ?? "";
    const words = ["Learn", cover.parentElement.dataset.label, bindings[address]];
    cover.setAttribute("aria-label", words.filter(Boolean).join(" "));
  }
}
