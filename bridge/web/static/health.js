// Health: state and figures at the top, the plots of the latency, stage times, drops, what is in force, errors.

import { el } from "./faces.js";
import { on, state } from "./link.js";
import { plot } from "./plots.js";

const $ = (id) => document.getElementById(id);
const WORDS = {
  loading: "loading",
  running: "running",
  "no-input": "no input",
  stalled: "stalled",
  error: "error",
};
const STAGES = { upload: "upload", encode: "encode", dit: "network", decode: "decode", download: "download" };
// The lines of the plots: column of the points, colour, width in px, dash.
const STYLE = [0, "--accent", 2.5, []];
const P95 = [1, "--p95", 1.5, []];
const MOTION = [3, "--ice", 2.5, [2, 4]];
const CAUSES = { input: "before the engine", late: "too late", engine: "with the engine" };

const figure = (value, digits = 0) => (value === undefined ? "–" : Number(value).toFixed(digits));

/** Build the rows and follow the readings. `faces` are the widgets of strength and steps, which show the values in force. */
export function health(table, faces) {
  const bars = Object.fromEntries(
    table.stages.map((stage) => {
      const item = el(
        "li",
        {},
        el("span", {}, STAGES[stage] ?? stage),
        el("span", { class: "bar" }),
        el("output", {}, "–"),
        el("small", {}, "ms"),
      );
      $("stages").append(item);
      return [stage, item];
    }),
  );
  const drops = Object.fromEntries(
    table.causes.map((cause) => [cause, row($("drops"), CAUSES[cause] ?? cause)]),
  );
  const force = Object.fromEntries(
    ["noise", "steps", "vram", "model", "omitted"].map((name) => [
      name,
      row($("force"), { vram: "VRAM", omitted: "left out" }[name] ?? name),
    ]),
  );

  on("readings", (r) => {
    $("fps-in").textContent = figure(r.fps_in, 1);
    $("fps-out").textContent = figure(r.fps_out, 1);
    $("latency").textContent = figure(r.latency);
    $("latency-p95").textContent = figure(r.latency_p95);
    $("dropped").textContent = figure(r.dropped);
    const times = table.stages.map((stage) => r[`stage_${stage}`] ?? 0);
    const longest = Math.max(1, ...times);
    table.stages.forEach((stage, i) => {
      bars[stage].style.setProperty("--share", times[i] / longest);
      bars[stage].querySelector("output").textContent = figure(r[`stage_${stage}`], times[i] < 100 ? 1 : 0);
    });
    for (const cause of table.causes) drops[cause].textContent = figure(r[`dropped_${cause}`]);
    const wanted = state.values.strength;
    force.noise.textContent =
      r.noise === undefined ? "–" : `${r.noise.toFixed(2)} of ${Number(wanted ?? 0).toFixed(2)}`;
    force.steps.textContent = r.steps === undefined ? "–" : `${r.steps} of ${state.values.steps ?? "–"}`;
    force.vram.textContent = r.vram === undefined ? "–" : r.vram ? `${r.vram.toFixed(1)} GiB` : "no GPU";
    force.model.textContent = r.model ?? "–";
    force.omitted.textContent = r.given_up || "nothing";
    $("style-now").textContent = figure(r.latency);
    $("motion-now").textContent = figure(r.motion_latency);
    $("reprojection").textContent = r.reprojection ? `Reproject: ${r.reprojection}` : "";
    faces.strength?.mark(r.noise ?? null);
    faces.steps?.mark(r.steps ?? null);
  });
  on("readings", word);
  on("control", word);
  on("online", word);
  for (const topic of ["readings", "errors"]) on(topic, line);
  const redraw = [
    plot($("plot"), 120, [P95, STYLE], ([style, p95]) => `now ${style} ms, 95th percentile ${p95} ms`),
    plot($("plot-motion"), 30, [STYLE, MOTION], ([style, , , motion]) => `style now ${style} ms, motion now ${motion} ms`),
  ];
  const fold = $("health-fold");
  fold.addEventListener("click", () => {
    const open = fold.getAttribute("aria-expanded") !== "true";
    fold.setAttribute("aria-expanded", String(open));
    $("health-body").hidden = !open;
    for (const draw of redraw) draw();
  });
}

function row(list, name) {
  const value = el("dd", {}, "–");
  list.append(el("div", {}, el("dt", {}, name), value));
  return value;
}

/** The whole panel in one line. */
function line() {
  const r = state.readings;
  const parts = [
    r.stage_dit === undefined ? "" : `network ${figure(r.stage_dit)} ms`,
    r.latency_p95 === undefined ? "" : `p95 ${figure(r.latency_p95)} ms`,
    r.dropped === undefined ? "" : `${figure(r.dropped)} dropped`,
    r.vram ? `${r.vram.toFixed(1)} GiB` : "",
  ].filter(Boolean);
  const last = state.errors.at(-1);
  const text = parts.join(" · ");
  const told = `${text}${last?.time_s}${state.errors.length}`;
  if ($("health-line").dataset.told === told) return;
  $("health-line").dataset.told = told;
  const count = state.errors.length === 1 ? "1 error" : `${state.errors.length} errors`;
  $("health-line").replaceChildren(...(last ? [el("b", {}, count), ` ${text ? " · " : ""}${text}`] : [text]));
}

function word() {
  const r = state.readings;
  const name = state.online ? (r.state ?? "loading") : "offline";
  const panic = ["black", "freeze", "bypass"].find((p) => state.values[p]);
  if (document.body.dataset.state !== name) {
    document.body.dataset.state = name;
    $("state-word").textContent = WORDS[name] ?? name;
  }
  document.body.dataset.panic = panic ?? "";
  document.body.dataset.target = name === "running" ? (r.target ?? "") : "";
  // In every other state the notice over the picture explains it.
  const more = panic ? `${panic} is on` : name === "running" ? r.message || r.input || "" : "";
  if ($("state-more").textContent !== more) $("state-more").textContent = $("state-more").title = more;
}
