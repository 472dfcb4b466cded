// Errors: beside the control that they are about if it can be seen, else over the foot of the picture. Never over a control.

import { el } from "./faces.js";
import { on, state } from "./link.js";

const $ = (id) => document.getElementById(id);
const SHOWN_MS = 30000;
let toldUntil = null;
let overPicture = 0;
const shown = new Map(); // what is said beside controls: place -> { about, timer }

/** Follow the errors. */
export function errors() {
  on("errors", (list) => {
    for (const error of fresh(list)) tell(error);
    $("errors").replaceChildren(
      ...list
        .slice()
        .reverse()
        .map((error) =>
          el(
            "li",
            {},
            el("time", {}, new Date(error.time_s * 1000).toLocaleTimeString()),
            el("b", {}, error.topic),
            el("span", {}, error.reason),
          ),
        ),
    );
  });
  // A control that was set to something else has no error any more.
  on("control", ({ name }) => shown.forEach(({ about }, place) => about?.dataset.control === name && clear(place)));
  on("readings", () => {
    // The notice over the picture tells it better.
    if (state.readings.state !== "running" && $("alert").querySelector("b").textContent === "engine") hide();
  });
  $("alert").querySelector("button").addEventListener("click", hide);
}

/** What was reported since the page was opened and is not told yet. */
function fresh(list) {
  const from = toldUntil ?? list.at(-1)?.time_s ?? 0;
  toldUntil = Math.max(from, list.at(-1)?.time_s ?? 0);
  return list.filter((error) => error.time_s > from);
}

/** Tell an error: { topic, reason }. */
export function tell(error) {
  const [place, about] = beside(error.topic);
  if (place) say(place, about, error.reason);
  if (!place || !visible(place)) {
    $("alert").querySelector("b").textContent = error.topic;
    $("alert").querySelector("span").textContent = error.reason;
    $("alert").hidden = false;
    clearTimeout(overPicture);
    overPicture = setTimeout(hide, SHOWN_MS);
  }
}

function hide() {
  $("alert").hidden = true;
}

/** The place for words about `topic` and the control that it is about: null for what has neither on this page. */
function beside(topic) {
  const address = topic === "/input" ? "/tidecast/input" : topic.replace(/\/(norm|midi)$/, ""); // from the capture
  const about = document.querySelector(`#rest [data-address="${CSS.escape(address)}"]`);
  if (about) return [about.closest(".source, .panel").querySelector(".say"), about];
  if (topic === "/tidecast/inputs") return [document.querySelector(".source .say"), null];
  if (topic === "/prompt") return [document.querySelector("[data-group=Prompts] .say"), null]; // from the engine
  if (topic === "tempo" || topic === "snap") return [document.querySelector("[data-group=Tempo] .say"), null];
  if (/^(\/tidecast\/)?cue\b/.test(topic)) return [document.querySelector("[data-group=Cues] .say"), null];
  if (topic === "audio") return [document.querySelector("[data-group=Audio] .say"), null];
  if (topic === "mask") return [document.querySelector("[data-group=Mask] .say"), null];
  if (topic === "record") return [$("panel-recording")?.querySelector(".say"), null];
  return [null, null];
}

function say(place, about, words) {
  clear(place);
  place.textContent = place.title = words;
  about?.classList.add("refused");
  shown.set(place, { about, timer: setTimeout(() => clear(place), SHOWN_MS) });
}

function clear(place) {
  const { about, timer } = shown.get(place) ?? {};
  clearTimeout(timer);
  about?.classList.remove("refused");
  place.textContent = place.title = "";
  shown.delete(place);
}

/** Whether a place is inside the frame that it scrolls in, and not hidden. */
function visible(place) {
  const box = place.getBoundingClientRect();
  if (box.width < 40) return false;
  const frame = (place.closest(".column, #rest") ?? document.body).getBoundingClientRect();
  const outer = (place.closest("#rest") ?? document.body).getBoundingClientRect();
  return [frame, outer].every((f) => box.top >= f.top - 1 && box.top + 17 <= f.bottom + 1);
}
