// The other groups: panic buttons, pickers of source and model, recording, snapshots, and a plain panel for every further group.

import { model, size } from "./engine.js";
import { change, el, register } from "./faces.js";
import { browse, files } from "./files.js";
import { askInputs, on, state } from "./link.js";
import { color, tellsState } from "./mask.js";
import { sized, transparent } from "./notes.js";
import { trigger, widget } from "./widgets.js";

const $ = (id) => document.getElementById(id);
/** The keys of each panic control: a letter, and a function key that also works while a text is typed. */
export const PANIC = { bypass: ["B", "F1"], freeze: ["F", "F2"], black: ["K", "F3"] };

/** Large panic buttons. */
export function panic(rows) {
  for (const control of rows) {
    const keys = PANIC[control.name] ?? [];
    const button = el(
      "button",
      { type: "button", class: "panic", "aria-pressed": "false", "aria-keyshortcuts": keys.join(" ") || null },
      el("span", {}, control.label),
      el("span", { class: "keys", "aria-hidden": "true" }, ...keys.map((key) => el("kbd", {}, key))),
    );
    const box = el("div", { class: `panic-box ${control.name}` }, button);
    let now = false;
    button.addEventListener("click", () => change(control, !now, null));
    box.show = (value) => {
      now = Boolean(value);
      button.setAttribute("aria-pressed", String(now));
    };
    $("panic").append(register(control, box));
  }
}

/** A panel of widgets. Returns them by name. `about` says what may be chosen: transports, models, sizes. */
export function panel(title, rows, commands, column, about) {
  const faces = {};
  const id = `panel-${title.toLowerCase().replace(/\W+/g, "-")}`;
  const box = el("div", { class: "controls" });
  for (const control of rows) {
    const own = {
      input: () => source(control, about.inputs),
      engine_model: () => model(control, about.engine.models),
      output_size: () => sized(widget(control)),
      output_alpha: () => transparent(widget(control)),
      mask_source: () => tellsState(widget(control)),
      mask_input: () => second(control, about.inputs),
      mask_background_input: () => second(control, about.inputs),
      mask_key: () => color(control),
      mask_background_color: () => color(control),
      engine_size: () => size(control, about.engine.sizes),
    }[control.name];
    faces[control.name] = own ? own() : widget(control);
    box.append(faces[control.name]);
  }
  if (commands.length) box.append(el("div", { class: "row" }, ...commands.map(trigger)));
  column.append(
    el(
      "section",
      { class: "panel", id, "data-group": title, "aria-labelledby": `${id}-title` },
      el(
        "div",
        { class: "head" },
        el("h2", { id: `${id}-title` }, title),
        el("p", { class: "say", role: "status" }),
      ),
      box,
    ),
  );
  return faces;
}

/** The source picker: what can be seen, with size and rate, and a field for anything else. */
function source(control, transports) {
  const list = el("div", { class: "sources", role: "group", "aria-label": "Sources that can be seen" });
  const line = widget(control);
  const now = el("p", { class: "now dim" });
  const away = el("p", { class: "away dim", hidden: true }, "Files are chosen on the machine of Tidecast.");
  const choose = el("button", { type: "button", class: "quiet", id: "browse", "aria-haspopup": "dialog", onclick: () => browse() }, "Browse");
  const box = el(
    "div",
    { class: "source" },
    line,
    now,
    el("p", { class: "say", role: "status" }),
    list,
    el(
      "div",
      { class: "row" },
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => {
            list.classList.add("looking");
            askInputs();
          },
        },
        "Search again",
      ),
      choose,
      away,
    ),
  );
  files(control);
  on("local", (local) => {
    choose.hidden = !local;
    away.hidden = local;
  });
  line.querySelector("input").placeholder = `${transports}, then a name`;
  let drawn = "";
  const show = () => {
    list.classList.remove("looking");
    const connected = state.readings.input ?? "";
    const found = state.inputs ?? [];
    now.textContent = now.title = `In force: ${connected || state.values.input || "the input of the start"}`;
    const isOpen = (s) =>
      s.uri === state.values.input ||
      s.uri === connected ||
      (s.title !== "" && connected.startsWith(s.title));
    const content = JSON.stringify([state.inputs, found.map(isOpen)]);
    if (content === drawn) return; // nothing new: a button that has the focus keeps it
    drawn = content;
    list.replaceChildren(
      ...found.map((s) =>
        el(
          "button",
          { type: "button", "aria-pressed": String(isOpen(s)), onclick: () => change(control, s.uri, null) },
          el("span", {}, s.title || s.uri),
          el("small", {}, describe(s)),
        ),
      ),
    );
    list.scrollTop = list.querySelector("[aria-pressed=true]")?.offsetTop ?? 0;
    if (!found.length)
      list.append(
        el(
          "p",
          { class: "dim" },
          state.inputs === null
            ? "Looking for sources …"
            : "No source was found. Start a sender, then search again.",
        ),
      );
  };
  on("inputs", show);
  let shown = "";
  on("readings", (r) => {
    if (r.input !== shown) {
      shown = r.input;
      show();
    }
  });
  on("control", ({ name }) => name === "input" && show());
  show();
  return box;
}

/** A second input: a field that offers the sources that can be seen, files of this machine, and what is connected. */
function second(control, transports) {
  const line = widget(control);
  const seen = el("datalist", { id: `seen-${control.name}` });
  const field = line.querySelector("input");
  field.setAttribute("list", seen.id);
  field.placeholder = `${transports}, then a name`;
  const choose = el(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-haspopup": "dialog",
      "aria-label": `${control.label}: browse`,
      onclick: () => browse("", { control, kind: "video" }),
    },
    "Browse",
  );
  on("local", (local) => (choose.hidden = !local));
  const now = el("p", { class: "now dim", role: "status" }, "Not connected");
  on("readings", (r) => {
    const text = r[control.name] ? `Connected: ${r[control.name]}` : "Not connected";
    if (now.textContent !== text) now.textContent = now.title = text;
  });
  const offer = () =>
    seen.replaceChildren(...(state.inputs ?? []).map((s) => el("option", { value: s.uri }, describe(s))));
  on("inputs", offer);
  offer();
  const say = el("p", { class: "say", role: "status" });
  return el("div", { class: "source" }, el("div", { class: "with-button" }, line, choose), now, say, seen);
}

function describe(s) {
  const scheme = s.uri.split(":")[0];
  return [
    scheme === (s.title || "").toLowerCase() ? "" : scheme,
    s.width && s.height ? `${s.width} × ${s.height}` : "",
    s.fps ? `${Number(s.fps.toFixed(2))} fps` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}

/** The record button at the top and the file that is being written. */
export function recording(control) {
  const button = $("record-button");
  button.title = `${control.help}\n/tidecast${control.address}`;
  let now = false;
  let since = 0;
  button.addEventListener("click", () => change(control, !now, null));
  const label = () => {
    const seconds = Math.floor((Date.now() - since) / 1000);
    button.lastElementChild.textContent = now
      ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`
      : "Record";
    button.setAttribute("aria-label", now ? "Stop recording" : "Record");
  };
  register(control, {
    dataset: {},
    title: " ",
    show: (value) => {
      if (value && !now) since = Date.now();
      now = Boolean(value);
      button.setAttribute("aria-pressed", String(now));
      label();
    },
  });
  setInterval(() => now && label(), 500);
  const file = el("p", { class: "file dim", role: "status" }, "");
  $("panel-recording")?.querySelector(".controls").append(file);
  on("readings", (r) => {
    const text = r.recording ? `Writing ${r.recording}` : r.recorded ? `Written: ${r.recorded}` : "";
    if (file.textContent !== text) file.textContent = text;
  });
}

/** Switch a control that is on or off. */
export function flip(control) {
  change(control, !state.values[control.name], null);
}
