// Health: state and figures at the top, the latency plot, stage times, drops, what is in force, errors.

import { el } from "./faces.js";
import { on, state } from "./link.js";

const $ = (id) => document.getElementById(id);
const WORDS = {
  loading: "loading",
  running: "running",
  "no-input": "no input",
  stalled: "stalled",
  error: "error",
};
const STAGES = { upload: "upload", encode: "encode", dit: "network", decode: "decode", download: "download" };
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
    ["noise", "steps", "vram", "model"].map((name) => [
      name,
      row($("force"), name === "vram" ? "VRAM" : name),
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
    faces.strength?.mark(r.noise ?? null);
    faces.steps?.mark(r.steps ?? null);
  });
  on("readings", word);
  on("control", word);
  on("online", word);
  for (const topic of ["readings", "errors"]) on(topic, line);
  const fold = $("health-fold");
  fold.addEventListener("click", () => {
    const open = fold.getAttribute("aria-expanded") !== "true";
    fold.setAttribute("aria-expanded", String(open));
    $("health-body").hidden = !open;
    plot();
  });
  on("point", plot);
  new ResizeObserver(plot).observe($("plot"));
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

function plot() {
  const canvas = $("plot");
  const last = state.history.at(-1);
  if (last)
    canvas.setAttribute(
      "aria-label",
      `Latency of the last two minutes, now ${Math.round(last[0])} ms, 95th percentile ${Math.round(last[1])} ms`,
    );
  const ratio = Math.min(2, devicePixelRatio || 1);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name);
  const target = state.values.slo_latency ?? 0;
  const peak = Math.max(...state.history.map((p) => p[1]), 1);
  const top = Math.max(nice(peak * 1.15), 20);
  const y = (ms) => height - 4 - (Math.min(ms, top) / top) * (height - 12);
  const x = (i) => width - ((state.history.length - 1 - i) / 239) * width;
  g.font = `13px ${getComputedStyle(canvas).fontFamily}`;
  g.lineWidth = 1;
  for (const share of [0.5, 1]) {
    g.strokeStyle = colour("--line");
    g.beginPath();
    g.moveTo(0, y(top * share));
    g.lineTo(width, y(top * share));
    g.stroke();
  }
  if (target && target <= top) {
    g.strokeStyle = colour("--warn");
    g.setLineDash([6, 6]);
    g.beginPath();
    g.moveTo(0, y(target));
    g.lineTo(width, y(target));
    g.stroke();
    g.setLineDash([]);
  }
  const trace = (column) =>
    state.history.forEach((p, i) => (i ? g.lineTo(x(i), y(p[column])) : g.moveTo(x(i), y(p[column]))));
  if (state.history.length > 1) {
    g.beginPath();
    trace(1);
    g.strokeStyle = colour("--p95");
    g.lineWidth = 1.5;
    g.stroke();
    g.beginPath();
    trace(0);
    g.strokeStyle = colour("--accent");
    g.lineWidth = 2.5;
    g.stroke();
  }
  // Last, on a background of their own, so that no line crosses a figure.
  for (const share of [0.5, 1]) {
    const label = top < 2000 ? `${Math.round(top * share)} ms` : `${(top * share) / 1000} s`;
    g.fillStyle = colour("--panel");
    g.fillRect(0, y(top * share) + 2, g.measureText(label).width + 8, 16);
    g.fillStyle = colour("--dim");
    g.fillText(label, 4, y(top * share) + 14);
  }
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((m) => m * power).find((n) => n >= value);
}
