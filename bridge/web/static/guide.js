// What to do: the notice over the picture, the guides for other programs, the help with keys and addresses.

import { change, el } from "./faces.js";
import { on, state } from "./link.js";
import { drawn } from "./picture.js";

const $ = (id) => document.getElementById(id);

/** Fill the dialogs and follow the state. */
export function guide(table, input) {
  for (const g of table.about.guides) {
    $("guides").append(
      el(
        "section",
        {},
        el("h3", {}, g.program),
        el("ol", {}, ...g.steps.map((step) => el("li", {}, step))),
        el("div", { class: "row" }, ...g.copy.map(copy)),
      ),
    );
  }
  $("connect-button").addEventListener("click", () => $("connect").showModal());
  $("help-button").addEventListener("click", () => $("help").showModal());
  for (const dialog of document.querySelectorAll("dialog"))
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  for (const c of table.controls) {
    const range = c.numeric
      ? `${c.low}–${c.high} ${c.unit}`
      : c.kind === "choice"
        ? c.choices.join(", ")
        : c.kind === "bool"
          ? "on, off"
          : "text";
    $("addresses").tBodies[0].append(
      el(
        "tr",
        {},
        el("th", { scope: "row" }, c.label),
        el("td", {}, el("code", {}, table.prefix + c.address)),
        el("td", {}, range),
        el("td", {}, c.help),
      ),
    );
  }
  for (const topic of ["readings", "online", "inputs", "errors"]) on(topic, () => notice(input));
  setInterval(() => notice(input), 1000);
}

function copy(words) {
  return el(
    "button",
    {
      type: "button",
      class: "copy",
      onclick: async (event) => {
        const button = event.currentTarget;
        if (!navigator.clipboard) return getSelection().selectAllChildren(button);
        await navigator.clipboard.writeText(words);
        button.classList.add("done");
        setTimeout(() => button.classList.remove("done"), 1200);
      },
      "aria-label": `Copy ${words}`,
    },
    words,
  );
}

function advice() {
  const r = state.readings;
  if (!state.online)
    return [
      "No connection to Tidecast",
      "The show may still be running, but this page cannot see or control it. It keeps trying to reconnect.",
      [`Is Tidecast running on ${location.hostname}, and is this device in the same network?`],
    ];
  switch (r.state) {
    case undefined:
    case "loading":
      return [
        "Loading",
        r.message || `The engine is starting${r.model ? ` with the model ${r.model}` : ""}.`,
        ["Until it is ready, the output shows the input. You can already type a prompt."],
      ];
    case "no-input":
      return [
        "No input",
        r.message || `No frames arrive from ${r.input || "the source"}.`,
        [
          "The output holds the last picture and continues when the source is back.",
          "Is the sender running, and in the same network? If not, choose another source under Video.",
        ],
      ];
    case "stalled":
      return [
        "The engine does not answer",
        r.message || "Until it does, the output shows the input.",
        ["If it stays silent, it is restarted automatically, with every control as it is."],
      ];
    case "error": {
      const last = state.errors.at(-1);
      return [
        "The engine stopped",
        r.message || (last ? last.reason : "The panel Health shows the last errors."),
        ["It is restarted automatically, with every control as it is. Until then the output shows the input."],
      ];
    }
    default:
      return null;
  }
}

let told = "";

function notice(input) {
  const words = advice();
  const box = $("notice");
  box.classList.toggle("small", drawn.at > 0 && performance.now() - drawn.at < 3000);
  const test =
    state.online && state.readings.state === "no-input"
      ? (state.inputs ?? []).find((s) => s.uri.startsWith("pattern:"))
      : null;
  const key = JSON.stringify([words, test]);
  if (key === told) return;
  told = key;
  box.hidden = words === null;
  if (!words) return;
  $("notice-title").textContent = words[0];
  $("notice-text").textContent = words[1];
  $("notice-steps").replaceChildren(...words[2].map((step) => el("li", {}, step)));
  const actions = test
    ? [el("button", { type: "button", onclick: () => change(input, test.uri, null) }, "Use the test picture")]
    : [];
  $("notice-actions").replaceChildren(...actions);
}
