// The beat strip: the beat as it goes, tap, where it comes from, what waits for it and how long, and the way back.
//
// The position is told ten times a second. Between two tellings the browser's own animations go on: they change nothing but
// transform and opacity, so nothing is laid out or painted, and the script does nothing.

import { change, el, register } from "./faces.js";
import { on, send, state } from "./link.js";

const $ = (id) => document.getElementById(id);
const NAMES = { internal: "Internal", tap: "Taps", midi: "MIDI", osc: "OSC", link: "Link" };
const SAID = { midi: "The MIDI clock", osc: "The beat over OSC", link: "Ableton Link" };
const STEP_MS = 15; // the animations are left alone while they are as close as this
const LATE_MS = 300; // a telling is on its way for less than this
const LEAK = 0.02;
const BAR_MS = 1000; // length of the animations at the rate 1
const still = matchMedia("(prefers-reduced-motion: reduce)");

// Where the beat is, in beats of the bar: `at0` at the page's time 0, and `rate` beats more each ms.
const beat = { at0: 0, rate: 0, bars: 0, known: false };
let moving = [];

/** Build the strip; `byName` are the rows of the controls, `commands` those of the commands. Returns what a tap does. */
export function strip(byName, commands) {
  const labels = Object.fromEntries([...commands, ...Object.values(byName)].map((row) => [row.name, row.label]));
  choice($("beat-source"), byName.tempo_source, (word) => NAMES[word] ?? word);
  choice($("beat-snap"), byName.snap, (word) => (word === "off" ? "Snap off" : sentence(word)));
  const tap = () => send("/tidecast/tempo/tap");
  // A tap counts when the finger comes down; a click without a pointer is that of a key.
  $("tap").addEventListener("pointerdown", (event) => event.button === 0 && tap());
  $("tap").addEventListener("click", (event) => event.detail === 0 && tap());
  $("take-back").addEventListener("click", () => send("/tidecast/snap/cancel"));

  on("control", ({ name, value }) => name === "tempo_quantum" && bars(value));
  on("online", (online) => online || move([0]));
  on("readings", (r) => {
    say(r);
    until(r);
    follow(r);
  });
  on("pending", (pending) => {
    const what = pending.map((one) => waiting(one, labels[one.what], one.what in byName));
    text($("beat-what"), what.length > 3 ? `${what.slice(0, 2).join(", ")} and ${what.length - 2} more` : what.join(", "));
    $("beat-what").title = what.join(", ");
    $("take-back").setAttribute("aria-disabled", String(!pending.length));
    until(state.readings);
  });
  return tap;
}

const sentence = (word) => (word[0].toUpperCase() + word.slice(1)).replace("-", " ");

function text(place, words) {
  if (place.textContent !== words) place.textContent = words;
}

/** A list of words as the face of a control. */
function choice(select, control, named) {
  select.append(...control.choices.map((word) => el("option", { value: word }, named(word))));
  select.addEventListener("change", () => change(control, select.value, null));
  const box = select.parentElement;
  box.show = (value) => (select.value = value);
  register(control, box);
}

/** One of the changes that wait, in words: of a control its label, of a command its argument too. */
function waiting({ what, value }, label, control) {
  return control || value === null || value === "" ? (label ?? what) : `${label ?? what} ${value}`;
}

function until(r) {
  const first = state.pending[0];
  const left = first && r.beat !== undefined ? Math.max(0, first.beat - r.beat).toFixed(1) : "";
  text($("beat-until"), left && ` in ${left} ${left === "1.0" ? "beat" : "beats"}`);
}

function say(r) {
  text($("bpm"), r.tempo === undefined ? "–" : r.tempo.toFixed(1));
  $("beat").dataset.state = r.tempo_state ?? "";
  const who = SAID[r.tempo_source] ?? "";
  const peers = r.tempo_peers === 1 ? "1 peer" : `${r.tempo_peers || "no"} peers`;
  const words = {
    lost: `${who} is silent. The beat goes on; tap to take over.`,
    stopped: `${who} has stopped.`,
    waiting: `Waiting for ${who.replace(/^The/, "the")}.`,
    running: r.tempo_source === "link" ? peers : "",
  };
  text($("beat-state"), words[r.tempo_state] ?? "");
  $("beat-state").title = $("beat-state").textContent;
}

/** As many cells as the bar has beats. */
function bars(count) {
  if (count === beat.bars) return;
  beat.bars = count;
  beat.known = false;
  for (const animation of moving) animation.cancel();
  const cells = Array.from({ length: count }, () => el("i"));
  $("beat-cells").replaceChildren(...cells.map((cell) => el("span", {}, cell)));
  const options = { duration: BAR_MS, iterations: Infinity };
  const flash = (n) => [
    { opacity: 0, offset: 0 },
    { opacity: 0, offset: n / count },
    { opacity: 1, offset: n / count },
    { opacity: 0, offset: Math.min(1, (n + 0.9) / count) },
    { opacity: 0, offset: 1 },
  ];
  moving = [
    ...cells.map((cell, n) => cell.animate(flash(n), options)),
    $("beat-sweep").animate([{ transform: "scaleX(0)" }, { transform: "scaleX(1)" }], options),
  ];
  for (const animation of moving) animation.pause();
}

/** Take what was told: how far the beat is, and how fast it goes. */
function follow(r) {
  if (r.bar === undefined || !beat.bars) return;
  const now = performance.now();
  const rate = r.tempo_state === "stopped" ? 0 : r.tempo / 60000;
  if (rate !== beat.rate) {
    beat.at0 += now * (beat.rate - rate); // it goes on from where it is
    beat.rate = rate;
  }
  // Each telling is late, each by another time: the least late is believed, and slowly forgotten.
  const told = r.bar * beat.bars - now * rate;
  const away = middle(told - beat.at0, beat.bars);
  const late = away < 0 && -away < LATE_MS * rate;
  beat.at0 += beat.known && late ? away * LEAK : away;
  beat.known = true;
  move([rate, (beat.at0 + now * rate) / beat.bars]);
}

/** The same place in a bar, from -half a bar to half a bar. */
function middle(beats, bar) {
  return beats - Math.round(beats / bar) * bar;
}

/** Let the animations go on from this place in the bar (0 to 1) at this rate; without a place, let them stand. */
function move([rate, place = null]) {
  const bar = place === null ? null : place - Math.floor(place);
  if (still.matches) {
    [...$("beat-cells").children].forEach(({ firstChild }, n) =>
      firstChild.classList.toggle("on", bar !== null && n === Math.floor(bar * beat.bars)),
    );
    for (const animation of moving) animation.cancel();
    return;
  }
  const speed = (rate * BAR_MS) / (beat.bars || 1);
  for (const animation of moving) {
    if (animation.playbackRate !== speed && speed) animation.playbackRate = speed;
    if (!speed) animation.pause();
    else if (animation.playState !== "running") animation.play();
    if (bar === null) continue;
    const away = middle((animation.currentTime ?? 0) / BAR_MS - bar, 1);
    if (!speed || Math.abs(away * beat.bars) > STEP_MS * rate) animation.currentTime = bar * BAR_MS;
  }
}
