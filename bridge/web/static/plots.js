// Plots of the latency over time: lines with the target, drawn on a canvas that stands in an accessible text as well.

import { on, state } from "./link.js";

const POINTS_PER_S = 2;

/** Keep a plot of the last `seconds` on `canvas` up to date. `lines` are [column of a point, colour, width, dash], drawn in this
 * order; `words` says the newest point, whose values are rounded. Returns a function that draws it anew. */
export function plot(canvas, seconds, lines, words) {
  const label = canvas.getAttribute("aria-label");
  const count = seconds * POINTS_PER_S;
  const draw = () => paint(canvas, state.history.slice(-count), count, lines);
  on("point", () => {
    const last = state.history.at(-1);
    if (last) canvas.setAttribute("aria-label", `${label}: ${words(last.map(Math.round))}`);
    draw();
  });
  new ResizeObserver(draw).observe(canvas);
  return draw;
}

function paint(canvas, points, count, lines) {
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
  const peak = Math.max(...points.flatMap((point) => lines.map(([column]) => point[column])), 1);
  const top = Math.max(nice(peak * 1.15), 20);
  const y = (ms) => height - 4 - (Math.min(ms, top) / top) * (height - 12);
  const x = (i) => width - ((points.length - 1 - i) / (count - 1)) * width;
  const level = (ms, name, dash) => {
    g.strokeStyle = colour(name);
    g.lineWidth = 1;
    g.setLineDash(dash);
    g.beginPath();
    g.moveTo(0, y(ms));
    g.lineTo(width, y(ms));
    g.stroke();
  };
  g.font = `13px ${getComputedStyle(canvas).fontFamily}`;
  for (const share of [0.5, 1]) level(top * share, "--line", []);
  if (target && target <= top) level(target, "--warn", [6, 6]);
  for (const [column, name, thick, dash] of lines) {
    g.strokeStyle = colour(name);
    g.lineWidth = thick;
    g.setLineDash(dash);
    g.beginPath();
    let gap = true; // what is not measured is 0
    points.forEach((point, i) => {
      if (point[column] > 0) g[gap ? "moveTo" : "lineTo"](x(i), y(point[column]));
      gap = !(point[column] > 0);
    });
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
