// Files of the machine that Tidecast runs on: a dialog to choose one, and files that are dropped on the page.

import { tell } from "./errors.js";
import { el } from "./faces.js";
import { set, state } from "./link.js";

const $ = (id) => document.getElementById(id);
const AWAY = "Files are chosen on the machine that Tidecast runs on. Here, type an address that input.allow lists.";
const FIND_MS = 250;
const NOTHING = { video: "folders, videos or pictures", lora: "folders or LoRA files (.safetensors, .pt)" };
let input = null; // what is played: { control, kind }
let target = null; // what is chosen now
const visited = {}; // by kind: the folder that was looked at last
let here = { folder: "", parent: "" };
let asked = 0;

/** Prepare the dialog and the dropping of files; `control` is the input, which a dropped file is written to. */
export function files(control) {
  input = target = { control, kind: "video" };
  $("files-up").addEventListener("click", () => here.parent && go(here.parent));
  $("files-way").addEventListener("submit", (event) => {
    event.preventDefault();
    go($("files-folder").value);
  });
  let due = 0;
  $("files-find").addEventListener("input", () => {
    clearTimeout(due);
    due = setTimeout(() => go(here.folder, $("files-find").value), FIND_MS);
  });
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault(); // the browser would leave the page and show the file
    drop(event.dataTransfer.files[0]);
  });
}

/** Open the dialog; `words` say why, if the page opened it. `wanted`: { control, kind } that a file is chosen for. */
export async function browse(words = "", wanted = input) {
  target = wanted;
  if (!$("files").open) $("files").showModal();
  await go(visited[target.kind] ?? "", "", words);
}

/** Ask the server. Throws what went wrong, for people. */
async function ask(path, message) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(message),
    });
  } catch {
    throw new Error("Tidecast does not answer.");
  }
  const content = await answer.json().catch(() => ({ error: `Tidecast answered ${answer.status}.` }));
  if (!answer.ok) throw new Error([content.error, content.remedy].filter(Boolean).join(" "));
  return content;
}

async function go(folder, find = "", words = "") {
  const number = ++asked;
  const entered = $("files-list").contains(document.activeElement);
  $("files-say").textContent = words || "Looking …";
  let found;
  try {
    found = await ask("/api/files", { folder, find, kind: target.kind });
  } catch (error) {
    if (number === asked) $("files-say").textContent = [words, error.message].filter(Boolean).join(" ");
    return;
  }
  if (number !== asked) return; // another folder was chosen meanwhile
  here = found;
  visited[target.kind] = found.folder;
  $("files-folder").value = found.folder;
  if (find === "") $("files-find").value = "";
  $("files-up").setAttribute("aria-disabled", String(!found.parent));
  $("files-places").replaceChildren(
    ...found.places.map((place) =>
      el("button", { type: "button", title: place.path, onclick: () => go(place.path) }, place.name),
    ),
  );
  $("files-list").replaceChildren(...found.entries.map(row));
  $("files-list").scrollTop = 0;
  const count = found.cut
    ? `Only the first ${found.entries.length} are shown. Search for a part of the name.`
    : found.entries.length
      ? ""
      : `There are no ${NOTHING[target.kind]}.`;
  $("files-say").textContent = [words, count].filter(Boolean).join(" ");
  if (entered) ($("files-list").querySelector("button") ?? $("files-up")).focus();
}

function row(entry) {
  const kind = entry.kind === "broken" ? "link to nothing" : [entry.link ? "link" : "", size(entry.size)].filter(Boolean).join(" · ");
  return el(
    "button",
    {
      type: "button",
      "data-kind": entry.kind,
      title: entry.path,
      "aria-disabled": entry.kind === "broken" ? "true" : null,
      "aria-label": [entry.kind, entry.name, kind].filter(Boolean).join(", "),
      onclick: () => {
        if (entry.kind === "folder") go(entry.path);
        else if (entry.kind === "file") choose(entry.path);
        else $("files-say").textContent = `${entry.name} is a link to a file that is not there.`;
      },
    },
    el("span", {}, entry.name),
    kind ? el("small", {}, kind) : null,
  );
}

function size(bytes) {
  if (bytes === null) return "";
  const unit = bytes < 1e6 ? ["kB", 1e3] : bytes < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${(bytes / unit[1]).toFixed(bytes < 1e6 ? 0 : 1)} ${unit[0]}`;
}

function choose(path) {
  set(target.control, target.kind === "video" ? `file:${path}` : path);
  $("files").close();
}

/** A browser tells no path of a dropped file: it is looked for by name and size. */
async function drop(file) {
  if (!state.local) return tell({ topic: "/tidecast/input", reason: AWAY });
  if (!file) return;
  try {
    const { path } = await ask("/api/files/find", { name: file.name, size: file.size, folder: visited.video ?? "" });
    target = input;
    if (path) choose(path);
    else await browse(`A browser does not tell where ${file.name} is, and it is in none of these places. Choose it here.`);
  } catch (error) {
    await browse(error.message);
  }
}
