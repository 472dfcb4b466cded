// Snapshot pads: recall with a glide, store, name, delete, undo.

import { el, leaves } from "./faces.js";
import { on, send, state } from "./link.js";
import { trigger } from "./widgets.js";

const $ = (id) => document.getElementById(id);
const PADS = 16;
const LONGEST_NAME = 40;

/** Build the pads; `undo` is the row of the command. Returns press(number, keep), which recalls or stores. */
export function snapshots(undo) {
  const bank = $("bank");
  const modes = { store: $("store-mode"), edit: $("edit-mode") };
  const editor = $("pad-editor");
  const name = $("pad-name");
  for (let first = 1; first <= 64; first += PADS)
    bank.append(el("option", { value: first }, `${first}–${first + PADS - 1}`));
  leaves($("glide"));
  let mode = ""; // "store", "edit", or empty: recall
  let asked = 0; // the full pad that a second press overwrites
  let editing = 0;
  let last = 0;
  const at = (i) => Number(bank.value) + i;
  const full = (number) => state.snapshots.includes(number);

  const arm = (next) => {
    mode = next;
    asked = 0;
    for (const [key, button] of Object.entries(modes)) button.setAttribute("aria-pressed", String(key === mode));
    $("snapshots").dataset.mode = mode;
    draw();
  };
  const store = (number) => {
    if (full(number) && asked !== number) {
      asked = number;
      draw();
      return;
    }
    send("/tidecast/snapshot/save", number);
    arm("");
  };
  const recall = (number) => {
    if (!full(number)) return;
    send("/tidecast/snapshot/recall", number, Number($("glide").value) || 0);
    last = number;
    arm("");
  };
  const edit = (number) => {
    if (!full(number)) return;
    editing = number;
    $("pad-title").textContent = `Snapshot ${number}`;
    name.value = state.snapshot_names[number] ?? "";
    editor.showModal();
    name.select();
  };
  const press = (number, keep) => (keep ? store(number) : recall(number));
  const done = () => {
    editor.close();
    arm("");
  };
  name.maxLength = LONGEST_NAME;
  $("pad-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send("/tidecast/snapshot/name", editing, name.value);
    done();
  });
  $("pad-delete").addEventListener("click", () => {
    send("/tidecast/snapshot/delete", editing);
    done();
  });

  const pads = Array.from({ length: PADS }, (_, i) =>
    el("button", {
      type: "button",
      onclick: (event) => (mode === "edit" ? edit(at(i)) : press(at(i), mode === "store" || event.shiftKey)),
    }),
  );
  $("pads").append(...pads);
  const draw = () => {
    if (asked && !full(asked)) asked = 0;
    pads.forEach((pad, i) => {
      const number = at(i);
      const called = state.snapshot_names[number] ?? "";
      const verb =
        asked === number
          ? "Press again to overwrite"
          : mode === "store"
            ? "Store"
            : !full(number)
              ? "Empty"
              : mode === "edit"
                ? "Edit"
                : "Recall";
      pad.className = ["pad", full(number) && "full", number === last && "last", asked === number && "asked"]
        .filter(Boolean)
        .join(" ");
      pad.setAttribute("aria-label", `${verb} snapshot ${number} ${called}`.trim());
      pad.setAttribute("aria-disabled", String(mode !== "store" && !full(number)));
      pad.title = called;
      const label = asked === number ? "replace?" : called;
      pad.replaceChildren(el("span", {}, String(number)), ...(label ? [el("small", {}, label)] : []));
    });
  };
  for (const [key, button] of Object.entries(modes)) button.addEventListener("click", () => arm(mode === key ? "" : key));
  const back = trigger(undo);
  $("edit-mode").after(back);
  bank.addEventListener("change", () => arm(mode));
  on("snapshots", draw);
  arm("");
  return press;
}
