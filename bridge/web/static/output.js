// The output at its full size, alone on a page: black when no picture comes, and back by itself.

import { socketUrl } from "./link.js";

// The bridge sends a picture at every tick, whatever happens: without one, the connection or the server is gone.
const LOST_MS = 1000;
const AGAIN_MS = 4000;
const HEADER_BYTES = 8;

const canvas = document.getElementById("output");
let socket = null;
let last = performance.now();

/** Pictures drawn since the page was opened. */
export const drawn = { wall: 0 };
window.tidecast = { drawn };

function connect() {
  last = performance.now();
  socket = new WebSocket(socketUrl("/api/preview"));
  socket.binaryType = "arraybuffer";
  socket.onopen = watch;
  socket.onmessage = (event) => draw(event.data);
  socket.onclose = () => setTimeout(connect, 500);
}

function watch() {
  if (socket?.readyState === WebSocket.OPEN)
    socket.send(JSON.stringify({ watch: document.hidden ? [] : ["wall"] }));
}

async function draw(packet) {
  const from = socket;
  try {
    const jpeg = new Blob([new Uint8Array(packet, HEADER_BYTES)], { type: "image/jpeg" });
    const picture = await createImageBitmap(jpeg);
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      canvas.width = picture.width;
      canvas.height = picture.height;
    }
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    last = performance.now();
    canvas.classList.remove("lost");
    drawn.wall += 1;
  } finally {
    if (from.readyState === WebSocket.OPEN) from.send('"drawn"');
  }
}

setInterval(() => {
  const silent = document.hidden ? 0 : performance.now() - last;
  canvas.classList.toggle("lost", silent > LOST_MS);
  if (silent > AGAIN_MS && socket.readyState === WebSocket.OPEN) socket.close(); // a frozen server keeps it open
}, 250);
document.addEventListener("visibilitychange", () => {
  last = performance.now();
  watch();
});
connect();
