// Snapshot pads: recall with a glide, store, name, colour, delete, undo; each shows its picture.

import { el, leaves } from "./faces.js";
import { on, send, state } from "./link.js";
import { trigger } from "./widgets.js";

const $ = (id) => document.getElementById(id);
const PADS = 16;
const LONGEST_NAME = 40;

/** Build the pads; `undo` is the row of the command, `colors` what a pad may have, `extras` what is stored only if asked for:
 * word -> labels of its controls. Returns press(number, keep), which recalls or stores. */
export function snapshots(undo, colors, extras) {
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
    $("store-bar").hidden = mode !== "store";
    document.body.classList.toggle("storing", mode === "store");
    draw();
  };
  const store = (number) => {
    if (full(number) && asked !== number) {
      asked = number;
      draw();
      return;
    }
    // Without the bar, where they can be seen, none of the words is meant.
    const words = mode === "store" ? also.filter((box) => box.checked).map((box) => box.value) : [];
    send("/tidecast/snapshot/save", number, ...(words.length ? [words.join(" ")] : []));
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
    const color = state.snapshot_colors[number] ?? "";
    for (const choice of choices) choice.checked = choice.value === color;
    editor.showModal();
    name.select();
  };
  const press = (number, keep) => (keep ? store(number) : recall(number));
  const done = () => {
    editor.close();
    arm("");
  };
  const also = [...extras].map(([word, labels]) => {
    const box = el("input", { type: "checkbox", value: word });
    $("store-bar").append(el("label", { class: "check", title: labels.join(", ") }, box, word));
    return box;
  });
  name.maxLength = LONGEST_NAME;
  const choices = ["", ...colors].map((color) => el("input", { type: "radio", name: "pad-color", value: color }));
  $("pad-colors").append(
    ...choices.map((choice) =>
      el("label", { class: "swatch", "data-color": choice.value || null }, choice, choice.value || "none"),
    ),
  );
  $("pad-form").addEventListener("submit", (event) => {
    event.preventDefault();
    // Only what was changed: each is taken back on its own.
    const color = choices.find((choice) => choice.checked)?.value ?? "";
    if (name.value !== (state.snapshot_names[editing] ?? "")) send("/tidecast/snapshot/name", editing, name.value);
    if (color !== (state.snapshot_colors[editing] ?? "")) send("/tidecast/snapshot/color", editing, color);
    done();
  });
  $("pad-delete").addEventListener("click", () => {
    send("/tidecast/snapshot/delete", editing);
    done();
  });

  const pads = Array.from({ length: PADS }, (_, i) => {
    const picture = el("img", { alt: "", hidden: true, draggable: "false" });
    const pad = el(
      "button",
      {
        type: "button",
        onclick: (event) => (mode === "edit" ? edit(at(i)) : press(at(i), mode === "store" || event.shiftKey)),
      },
      picture,
      el("span"),
      el("small"),
    );
    // A picture that cannot be had is asked for again with the next news of the snapshots.
    picture.addEventListener("error", () => {
      picture.hidden = true;
      pad.classList.remove("pictured");
      picture.removeAttribute("src");
    });
    return pad;
  });
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
      const color = full(number) ? state.snapshot_colors[number] : undefined;
      const version = full(number) ? state.snapshot_pictures[number] : undefined;
      pad.className = [
        "pad",
        full(number) && "full",
        number === last && "last",
        asked === number && "asked",
        version && "pictured",
      ]
        .filter(Boolean)
        .join(" ");
      if (color) pad.dataset.color = color;
      else delete pad.dataset.color;
      pad.setAttribute("aria-label", [`${verb} snapshot ${number}`, called, color && `(${color})`].filter(Boolean).join(" "));
      pad.setAttribute("aria-disabled", String(mode !== "store" && !full(number)));
      pad.title = called;
      const label = asked === number ? "replace?" : called;
      const [picture, digits, words] = pad.children;
      show(picture, version ? `/api/snapshots/${number}.jpg?v=${version}` : "");
      digits.textContent = String(number);
      words.textContent = label;
      words.hidden = !label;
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

/** Show the picture of this address; none if it is empty. */
export function show(picture, address) {
  picture.hidden = !address;
  if (address === (picture.getAttribute("src") ?? "")) return;
  if (address) picture.src = address;
  else picture.removeAttribute("src");
}
