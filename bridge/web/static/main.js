// The control room page: fetches the table of controls, builds everything from it, then follows the show.

import { guide } from "./guide.js";
import { health } from "./health.js";
import { learn } from "./learn.js";
import { connect, on, state } from "./link.js";
import { flip, panel, panic, recording, snapshots } from "./panels.js";
import { drawn, look, lookOn, picture } from "./picture.js";
import { prompts } from "./prompts.js";
import { el, widget } from "./widgets.js";

const table = await (await fetch("/api/table")).json();
const byName = Object.fromEntries(table.controls.map((c) => [c.name, c]));
const groups = new Map();
for (const control of table.controls)
  groups.set(control.group, [...(groups.get(control.group) ?? []), control]);
const triggers = (group) =>
  table.commands.filter((c) => c.group === group && c.arguments.length === 0 && c.name !== "inputs");

const faces = {};
for (const [title, rows] of groups) {
  if (title === "Panic") panic(rows);
  else if (title === "Prompts")
    for (const control of prompts(rows, table.about.examples ?? []))
      document.getElementById("pad-side").append(widget(control));
  else
    Object.assign(
      faces,
      panel(
        title,
        rows,
        triggers(title),
        document.getElementById(title === "Recording" ? "column-prompts" : "column-controls"),
        table.about,
      ),
    );
}
recording(byName.record);
const press = snapshots();
health(table, faces);
guide(table, byName.input);
learn();
picture(table.about);

const keys = [
  ["B", "Bypass: show the input unchanged", () => flip(byName.bypass)],
  ["F", "Freeze: hold the last frame", () => flip(byName.freeze)],
  ["K", "Black", () => flip(byName.black)],
  [
    "P",
    "Go to the first prompt; Enter sends, Escape leaves",
    () => document.getElementById("w-prompt_1").focus(),
  ],
  ["V", "Next view of the picture", lookOn],
  ["1 … 9", "Recall a snapshot", null],
  ["?", "This help", () => document.getElementById("help").showModal()],
];
for (const [key, words] of keys)
  document
    .getElementById("keys")
    .append(el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, words)));
const keysOn = document.getElementById("keys-on");
keysOn.checked = localStorage.getItem("keys") !== "off";
keysOn.addEventListener("change", () => localStorage.setItem("keys", keysOn.checked ? "on" : "off"));

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("textarea, select, input:not([type=range], [type=checkbox])");
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing || !keysOn.checked) return;
  const key = event.key.toUpperCase();
  if (/^[1-9]$/.test(key)) press(Number(key), false);
  else {
    const found = keys.find(([k, , act]) => k === key && act);
    if (!found) return;
    event.preventDefault();
    found[2]();
  }
});

on("online", (online) => document.body.classList.toggle("offline", !online));
document.body.classList.add("ready");
window.tidecast = { state, drawn, look };
connect();
