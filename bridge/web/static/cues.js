// The cue list: GO, where the list stands, and a large pad for each cue.

import { el } from "./faces.js";
import { on, send, state } from "./link.js";
import { show } from "./pads.js";
import { trigger, widget } from "./widgets.js";

const $ = (id) => document.getElementById(id);
const LONGEST_NAME = 40;
const SAID = { empty: "no cues", go: "waits for GO", end: "end of the list" };

/** Build the panel from the rows of its controls and its commands without arguments. Returns what GO does. */
export function cues(rows, commands) {
  const button = Object.fromEntries(commands.map((command) => [command.name, trigger(command)]));
  const area = $("cue-pads");
  const pads = [];
  let editing = false;
  let edited = 0;
  let present = 0;

  button.cue_go.append(el("kbd", { "aria-hidden": "true" }, "G"));
  button.cue_go.setAttribute("aria-keyshortcuts", "G");
  $("cue-stage").prepend(button.cue_go);
  const add = el("button", { type: "button", id: "cue-add", title: "Add the present look as a cue" }, "Add");
  const edit = el("button", { type: "button", id: "cue-edit", "aria-pressed": "false" }, "Edit");
  const loop = el("button", { type: "button", id: "cue-loop", "aria-pressed": "false" }, "Loop");
  const { cue_go, cue_back, cue_pause, cue_stop, cue_undo } = button;
  $("cue-acts").append(cue_back, cue_pause, cue_stop, loop, add, edit, cue_undo, ...rows.map(widget));

  add.addEventListener("click", () => send("/tidecast/cue/add"));
  loop.addEventListener("click", () => send("/tidecast/cue/loop", state.cues.loop ? 0 : 1));
  const arm = (on) => {
    editing = on;
    edit.setAttribute("aria-pressed", String(on));
    $("cues").dataset.mode = on ? "edit" : "";
    draw();
  };
  edit.addEventListener("click", () => arm(!editing));

  const open = (number) => {
    const row = state.cues.rows[number - 1];
    if (!row) return;
    edited = number;
    $("cue-title").textContent = `Cue ${number}: ${row.words}`;
    $("cue-name").value = row.name;
    $("cue-glide").value = row.glide;
    $("cue-wait").value = row.wait;
    $("cue-place").value = number;
    $("cue-place").max = state.cues.rows.length;
    $("cue-editor").showModal();
    $("cue-name").select();
  };
  const done = () => {
    $("cue-editor").close();
    arm(false);
  };
  $("cue-name").maxLength = LONGEST_NAME;
  $("cue-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const row = state.cues.rows[edited - 1];
    if (row)
      for (const key of ["name", "glide", "wait"]) // only what was changed: each is taken back on its own
        if ($(`cue-${key}`).value !== row[key]) send(`/tidecast/cue/${key}`, edited, $(`cue-${key}`).value);
    const place = Number($("cue-place").value);
    if (place >= 1 && place !== edited) send("/tidecast/cue/move", edited, place);
    done();
  });
  $("cue-remove").addEventListener("click", () => {
    send("/tidecast/cue/remove", edited);
    done();
  });

  const pad = (number) => {
    const picture = el("img", { alt: "", hidden: true, draggable: "false" });
    picture.addEventListener("error", () => show(picture, ""));
    const press = () => (editing ? open(number) : send("/tidecast/cue/jump", number));
    return el("button", { type: "button", onclick: press }, picture, el("span"), el("small"));
  };
  const draw = () => {
    const list = state.cues.rows;
    while (pads.length < list.length) {
      pads.push(pad(pads.length + 1));
      area.append(pads.at(-1));
    }
    while (pads.length > list.length) pads.pop().remove();
    loop.setAttribute("aria-pressed", String(state.cues.loop));
    list.forEach((row, i) => {
      const version = state.snapshot_pictures[row.snapshot];
      const [picture, head, foot] = pads[i].children;
      show(picture, version ? `/api/snapshots/${row.snapshot}.jpg?v=${version}` : "");
      head.textContent = `${i + 1} ${row.name || row.words}`;
      foot.textContent = [row.glide && `glide ${row.glide}`, row.wait, row.loop && `↺ ${row.loop}`].filter(Boolean).join(" · ");
      pads[i].title = row.words;
      pads[i].setAttribute("aria-label", `${editing ? "Edit" : "Begin"} cue ${head.textContent}, ${foot.textContent}`);
    });
    mark();
  };
  const mark = () => {
    const { cue_number: now = 0, cue_next_number: next = 0 } = state.readings;
    pads.forEach((each, i) => {
      const number = i + 1;
      const pictured = !each.children[0].hidden;
      each.className = ["pad full cue", number === now && "last", number === next && "next", pictured && "pictured"]
        .filter(Boolean)
        .join(" ");
      if (number === now) each.setAttribute("aria-current", "true");
      else each.removeAttribute("aria-current");
    });
    if (now !== present && pads[now - 1]) {
      const top = pads[now - 1].offsetTop; // inside its own frame: the page stays where it is
      if (top < area.scrollTop || top + 58 > area.scrollTop + area.clientHeight) area.scrollTop = top - 64;
    }
    present = now;
  };
  const write = (id, text) => {
    if ($(id).textContent !== text) $(id).textContent = $(id).title = text;
  };
  const title = (number, name) => (number ? `${number} ${name || (state.cues.rows[number - 1]?.words ?? "")}` : "–");
  on("cues", draw);
  on("snapshots", draw);
  on("readings", (r) => {
    write("cue-now", title(r.cue_number, r.cue));
    write("cue-next", title(r.cue_next_number, r.cue_next));
    const left = r.cue_unit ? `${(r.cue_remaining ?? 0).toFixed(1)} ${r.cue_unit}` : "";
    const said = r.cue_state === "paused" ? ["paused", left] : [SAID[r.cue_state] ?? (r.cue_state ? `in ${left}` : "–")];
    write("cue-left", said.filter(Boolean).join(", "));
    $("cues").dataset.state = r.cue_state ?? "";
    cue_pause.setAttribute("aria-pressed", String(r.cue_state === "paused"));
    mark();
  });
  draw();
  return () => cue_go.click();
}
