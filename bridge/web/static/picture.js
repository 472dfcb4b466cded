// The live preview: one socket, two canvases, four ways to look at them. Nothing is fetched while the page is hidden.

import { socketUrl } from "./link.js";

const KINDS = ["output", "input"];
const WATCHED = { output: ["output"], input: ["input"], split: KINDS, wipe: KINDS };
const canvases = Object.fromEntries(KINDS.map((kind) => [kind, document.getElementById(`canvas-${kind}`)]));
const views = document.getElementById("views");
const wipe = document.getElementById("wipe");

/** Pictures drawn since the page was opened, and when the last one came, by kind. */
export const drawn = { output: 0, input: 0, at: 0 };

let socket = null;

function watch() {
  if (socket?.readyState === WebSocket.OPEN)
    socket.send(JSON.stringify({ watch: document.hidden ? [] : (WATCHED[views.dataset.view] ?? []) }));
}

function connect() {
  socket = new WebSocket(socketUrl("/api/preview"));
  socket.binaryType = "arraybuffer";
  socket.onopen = watch;
  socket.onmessage = (event) => draw(event.data);
  socket.onclose = () => setTimeout(connect, 1000);
}

async function draw(packet) {
  const kind = KINDS[new DataView(packet).getUint8(0)];
  const from = socket;
  try {
    const picture = await createImageBitmap(new Blob([new Uint8Array(packet, 8)], { type: "image/jpeg" }));
    const canvas = canvases[kind];
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      canvas.width = picture.width;
      canvas.height = picture.height;
      arrange();
    }
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    drawn[kind] += 1;
    drawn.at = performance.now();
    canvas.parentElement.classList.add("live");
  } finally {
    if (from.readyState === WebSocket.OPEN) from.send('"drawn"');
  }
}

/** Both pictures stand one above the other where that makes them larger. */
function arrange() {
  const { width, height } = canvases.output;
  const fits = (w, h) => Math.min(w, (h * width) / height);
  const [w, h] = [views.clientWidth, views.clientHeight];
  views.classList.toggle("tall", fits(w, h / 2) > fits(w / 2, h));
}

/** Look at the picture as `view`: output, input, split or wipe. */
export function look(view) {
  views.dataset.view = view;
  for (const button of document.querySelectorAll("#view-bar [data-view]"))
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  document.getElementById("wipe-label").hidden = view !== "wipe";
  localStorage.setItem("view", view);
  watch();
}

/** The next way to look. */
export function lookOn() {
  const all = Object.keys(WATCHED);
  look(all[(all.indexOf(views.dataset.view) + 1) % all.length]);
}

/** Start the preview. */
export function picture() {
  for (const button of document.querySelectorAll("#view-bar [data-view]"))
    button.addEventListener("click", () => look(button.dataset.view));
  const slide = (percent) => {
    wipe.value = percent;
    views.style.setProperty("--wipe", `${wipe.value}%`);
  };
  wipe.addEventListener("input", () => slide(wipe.value));
  views.addEventListener(
    "pointerdown",
    (event) =>
      views.dataset.view === "wipe" &&
      event.target.tagName === "CANVAS" &&
      views.setPointerCapture(event.pointerId),
  );
  views.addEventListener("pointermove", (event) => {
    if (!views.hasPointerCapture(event.pointerId)) return;
    const area = canvases.output.getBoundingClientRect();
    slide(((event.clientX - area.left) / area.width) * 100);
  });
  document
    .getElementById("fullscreen")
    .addEventListener("click", () =>
      document.fullscreenElement ? document.exitFullscreen() : views.requestFullscreen(),
    );
  new ResizeObserver(arrange).observe(views);
  document.addEventListener("visibilitychange", watch);
  const saved = localStorage.getItem("view");
  look(saved in WATCHED ? saved : "split");
  let before = 0;
  setInterval(() => {
    const now = drawn[WATCHED[views.dataset.view][0]];
    document.getElementById("preview-rate").textContent =
      now > before ? `preview ${Math.round((now - before) / 2)} fps` : "no picture";
    before = now;
  }, 2000);
  connect();
}
