// The keyboard: panic keys that work everywhere, single keys that work outside text fields, and the list in the help.

import { el } from "./faces.js";
import { flip, PANIC } from "./panels.js";
import { lookOn } from "./picture.js";

const MEANING = {
  bypass: "Bypass: show the input unchanged",
  freeze: "Freeze: hold the last frame",
  black: "Black",
};
const MOVES = [
  ["Enter", "In a field: send what was typed and leave the field"],
  ["Escape", "In a field: leave it and keep the old text. In a dialog: close it"],
  ["Enter", "On a fader: type its number. On the pad: go to the centre"],
  ["M", "On a fader: its modulator, as a right click or a finger that rests on it"],
  ["Tab", "Next control: picture, panic, snapshots, the beat, then the other panels; Shift+Tab goes back"],
  ["← →", "Move the fader or pad that has the focus; with Shift a fader moves finer and the pad further"],
];

/** Follow the keyboard. `byName` are the rows of the controls; `press` recalls a snapshot; `compare` is the key of A/B; `go`
 * begins the next cue; `tap` taps the tempo. */
export function keyboard(byName, press, compare, go, tap) {
  const panic = Object.entries(PANIC).filter(([name]) => name in byName);
  const acts = {
    P: () => document.getElementById("w-prompt_1").focus(),
    V: lookOn,
    C: (event) => compare.press(event.timeStamp),
    G: go,
    T: tap,
    "?": () => document.getElementById("help").showModal(),
  };
  const always = {};
  for (const [name, [letter, everywhere]] of panic)
    acts[letter] = always[everywhere] = () => flip(byName[name]);

  const row = (keys, words) =>
    el("div", {}, el("dt", {}, ...keys.map((key) => el("kbd", {}, key))), el("dd", {}, words));
  document.getElementById("keys").append(
    ...panic.map(([name, [letter, everywhere]]) =>
      row([letter, everywhere], `${MEANING[name]}. ${everywhere} also works while you type`),
    ),
    row(["P"], "Go to the first prompt"),
    row(["1 … 9"], "Recall a snapshot"),
    row(["G"], "GO: begin the next cue"),
    row(["V"], "Next view of the picture"),
    row(["C"], "Compare A/B: without Reproject and Detail, and back. Held: only while it is held"),
    row(["T"], "Tap the tempo: each tap is a beat"),
    row(["?"], "This help"),
    ...MOVES.map(([key, words]) => row([key], words)),
  );

  const lettersOn = document.getElementById("keys-on");
  lettersOn.checked = localStorage.getItem("keys") !== "off";
  lettersOn.addEventListener("change", () => localStorage.setItem("keys", lettersOn.checked ? "on" : "off"));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in always) {
      event.preventDefault(); // the browser's own help and search
      if (!event.repeat) always[event.key]();
      return;
    }
    const typing = event.target.closest?.("textarea, select, input:not([type=range], [type=checkbox])");
    if (event.repeat || typing || !lettersOn.checked) return;
    const key = event.key.toUpperCase();
    if (/^[1-9]$/.test(key)) press(Number(key), false);
    else if (key in acts) {
      event.preventDefault();
      acts[key](event);
    }
  });
  document.addEventListener("keyup", (event) => event.key?.toUpperCase() === "C" && compare.release(event.timeStamp));
}
