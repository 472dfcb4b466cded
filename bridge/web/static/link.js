// The connection to Tidecast: the newest value of everything, and callbacks for changes.
// Knows nothing of the page.

const listeners = new Map();
const pending = new Map();
// The server says something at least every 2 s; a process that is frozen keeps its connections open.
const SILENCE_MS = 5000;
let socket = null;
let heard = 0;
let wait = 300;

/** The newest state. `values` and `readings` by name; `lists` as the server sends them. */
export const state = {
  online: false,
  values: {},
  readings: {},
  errors: [],
  history: [],
  inputs: null,
  snapshots: [],
  snapshot_names: {},
  snapshot_colors: {},
  snapshot_pictures: {}, // by number: the version of its picture
  midi: null,
  pending: [],
  cues: { rows: [], loop: false },
  words: null,
  unknown: {},
  local: null,
};

/** Call `callback(detail)` for every `topic`: online, control, readings, errors, inputs, snapshots, midi, cues, words, unknown, local, point, reply. */
export function on(topic, callback) {
  if (!listeners.has(topic)) listeners.set(topic, []);
  listeners.get(topic).push(callback);
}

function emit(topic, detail) {
  for (const callback of listeners.get(topic) ?? []) callback(detail);
}

/** The address of a WebSocket of this server. */
export function socketUrl(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

/** Send one message at once. */
export function send(address, ...args) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ address, args }));
}

/** Send a control's value; of several within 12 ms only the last is sent. */
export function set(control, value) {
  if (pending.size === 0) setTimeout(flush, 12);
  pending.set(control.name, { control, value });
}

function flush() {
  for (const { control, value } of pending.values()) send("/tidecast" + control.address, value);
  pending.clear();
}

/** Ask for the list of sources. */
export function askInputs() {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ask: "inputs" }));
}

/** Connect, and reconnect whenever the connection is lost. */
export function connect() {
  socket = new WebSocket(socketUrl("/api/socket"));
  heard = performance.now();
  socket.onmessage = (event) => {
    heard = performance.now();
    absorb(JSON.parse(event.data));
  };
  socket.onopen = () => {
    wait = 300;
    state.online = true;
    emit("online", true);
  };
  socket.onclose = lost;
}

function lost() {
  socket.onmessage = socket.onopen = socket.onclose = null;
  socket.close();
  socket = null;
  if (state.online) {
    state.online = false;
    emit("online", false);
  }
  setTimeout(connect, wait);
  wait = Math.min(wait * 1.6, 4000);
}

setInterval(() => {
  if (socket && performance.now() - heard > SILENCE_MS) lost();
}, 500);

function absorb(news) {
  for (const [name, [value, origin]] of Object.entries(news.controls ?? {})) {
    state.values[name] = value;
    emit("control", { name, value, origin });
  }
  if (news.history) state.history = news.history;
  if (news.point) {
    state.history.push(news.point);
    if (state.history.length > 240) state.history.shift();
  }
  if (news.history || news.point) emit("point");
  if (news.readings) {
    Object.assign(state.readings, news.readings);
    emit("readings", state.readings);
  }
  if (news.errors) {
    state.errors = (news.you ? [] : state.errors).concat(news.errors).slice(-40);
    emit("errors", state.errors);
  }
  for (const key of ["snapshot_names", "snapshot_colors", "snapshot_pictures"])
    if (news[key]) state[key] = news[key]; // they come with `snapshots`
  for (const key of ["inputs", "snapshots", "midi", "pending", "cues", "words", "unknown", "local"]) {
    if (key in news) {
      state[key] = news[key];
      emit(key, state[key]);
    }
  }
  for (const reply of news.replies ?? []) emit("reply", reply);
}
