// The control room page: fetches the table of controls, builds everything from it, then follows the show.

import { strip } from "./beat.js";
import { compare } from "./compare.js";
import { cues } from "./cues.js";
import { errors } from "./errors.js";
import { guide } from "./guide.js";
import { health } from "./health.js";
import { keyboard } from "./keys.js";
import { learn } from "./learn.js";
import { connect, on, state } from "./link.js";
import { loras } from "./loras.js";
import { modulation } from "./modulation.js";
import { notes } from "./notes.js";
import { snapshots } from "./pads.js";
import { panel, panic, recording } from "./panels.js";
import { drawn, look, picture } from "./picture.js";
import { prompts } from "./prompts.js";
import { shows } from "./shows.js";
import { sound } from "./sound.js";
import { widget } from "./widgets.js";
import { words } from "./words.js";

const table = await (await fetch("/api/table")).json();
const byName = Object.fromEntries(table.controls.map((c) => [c.name, c]));
const groups = new Map();
for (const control of table.controls)
  groups.set(control.group, [...(groups.get(control.group) ?? []), control]);
const triggers = (group) =>
  table.commands.filter((c) => c.group === group && c.arguments.length === 0 && c.name !== "inputs");

const faces = {};
let go = () => {};
const texts = table.controls.filter((c) => /^prompt_\d$/.test(c.name));
for (const [title, rows] of groups) {
  if (title === "Panic") panic(rows);
  else if (title === "Cues") go = cues(rows, triggers(title));
  else if (title === "Prompts")
    for (const control of prompts(rows, table.about.examples ?? []))
      document.getElementById("pad-side").append(widget(control));
  else if (title === "Modulation")
    modulation(
      rows,
      (depth) => panel(title, [depth], triggers(title), document.getElementById("column-controls"), table.about),
      byName,
    );
  else if (title === "LoRA") loras(title, rows, texts, document.getElementById("column-controls"));
  else
    Object.assign(
      faces,
      panel(
        title,
        rows,
        triggers(title),
        document.getElementById("column-controls"),
        table.about,
      ),
    );
}
recording(byName.record);
const extras = new Map(); // what a snapshot holds only if it is asked for: word -> labels of the controls
for (const { stored, label } of table.controls)
  if (!["always", "never"].includes(stored)) extras.set(stored, [...(extras.get(stored) ?? []), label]);
const press = snapshots(table.commands.find((c) => c.name === "snapshot_undo"), table.about.colors, extras);
shows(table.about.show);
health(table, faces);
notes(faces);
sound();
errors();
words(texts, table.about.examples ?? []);
guide(table, byName.input);
learn();
picture();

keyboard(byName, press, compare(byName.compare), go, strip(byName, table.commands));

// On a phone the tools are the first row of what scrolls; the top keeps only the state.
const phone = matchMedia("(max-width: 700px) and (min-height: 541px), (max-width: 600px)");
const place = () =>
  document.querySelector(phone.matches ? "#rest" : "#top")[phone.matches ? "prepend" : "append"](
    document.getElementById("tools"),
  );
phone.addEventListener("change", place);
place();

on("online", (online) => document.body.classList.toggle("offline", !online));
document.body.classList.add("ready");
window.tidecast = { state, drawn, look };
connect();
