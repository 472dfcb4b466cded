// The words of the model, each with a picture of what it does; a chosen one goes into a prompt.

import { change, el } from "./faces.js";
import { on, send, state } from "./link.js";

const $ = (id) => document.getElementById(id);
const OPENING = "The model is being opened. Its words are shown when it is ready.";
const ANY = "This model takes any sentence. These are examples.";
const NONE = "No word is found. Words that the model does not know are ignored.";

/** Build the dialog. `texts` are the controls of the prompts. */
export function words(texts, examples) {
  const grid = $("words-grid");
  const search = $("words-search");
  const acts = [];
  let chosen = "";
  let buttons = []; // { name, found, button }: `found` is what the search looks through

  const say = (text) => ($("words-say").textContent = text);
  const about = () =>
    say(state.words === null ? OPENING : state.words.list.length === 0 ? ANY : `${buttons.length} words, and their synonyms.`);
  const choose = (name) => {
    chosen = name;
    for (const { name: other, button } of buttons) button.setAttribute("aria-pressed", String(other === name));
    for (const act of acts) act.name();
  };
  const act = (label, aria, run) => {
    const button = el(
      "button",
      { type: "button", onclick: () => (chosen ? run() : say("Choose a word first.")) },
      label,
    );
    acts.push({
      name: () => {
        button.setAttribute("aria-label", aria(chosen || "the word"));
        button.setAttribute("aria-disabled", String(!chosen));
      },
    });
    $("words-acts").append(button);
  };
  texts.forEach((control, i) =>
    act(
      String(i + 1),
      (word) => `Add ${word} to prompt ${i + 1}`,
      () => {
        const before = (state.values[control.name] ?? "").trim();
        const weight = state.values[`weight_${i + 1}`];
        const after = before ? `${before} ${chosen}` : chosen;
        change(control, after, null);
        say(`Prompt ${i + 1}: ${after}${weight > 0 ? "" : ". Its weight is 0"}.`);
      },
    ),
  );
  act(
    "Only",
    (word) => `Only ${word}`,
    () => {
      send("/tidecast/prompt", chosen);
      say(`Only ${chosen} plays.`);
    },
  );

  const shown = () => buttons.filter(({ button }) => !button.hidden).map(({ button }) => button);
  const enter = (button) => {
    for (const { button: other } of buttons) other.tabIndex = other === button ? 0 : -1;
  };
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const { found, button } of buttons) button.hidden = !found.some((name) => name.includes(wanted));
    enter(shown()[0]);
    if (shown().length) about();
    else say(NONE);
  };
  const build = () => {
    const { list, pictures } = state.words ?? { list: [], pictures: null };
    const known = list.length > 0;
    $("words-find").hidden = !known;
    if (!known) search.value = "";
    buttons = (known ? list : examples.map((text) => [text, []])).map(([name, synonyms], at) => ({
      name,
      found: [name, ...synonyms],
      button: el(
        "button",
        {
          type: "button",
          class: "word",
          "aria-pressed": "false",
          "aria-label": synonyms.length ? `${name}: ${synonyms.join(", ")}` : name,
          title: synonyms.join(", "),
          onclick: () => choose(name),
        },
        pictures && picture(pictures, at),
        el("span", {}, name),
        synonyms.length ? el("small", {}, synonyms.join(", ")) : null,
      ),
    }));
    grid.replaceChildren(...buttons.map(({ button }) => button));
    grid.classList.toggle("plain", !pictures);
    choose(buttons.some(({ name }) => name === chosen) ? chosen : "");
    filter();
  };

  grid.addEventListener("focusin", (event) => event.target.closest(".word") && enter(event.target.closest(".word")));
  grid.addEventListener("keydown", (event) => {
    const all = shown();
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = Math.max(1, all.filter((button) => button.offsetTop === all[0].offsetTop).length);
    const last = all.length - 1;
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - columns,
      ArrowDown: at + columns,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) all[to].focus();
  });
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    const first = shown()[0];
    if (event.key !== "Enter" || !first) return;
    event.preventDefault();
    first.click();
    first.focus();
  });
  $("words-button").addEventListener("click", () => {
    $("words").showModal();
    about();
  });
  on("words", build);
  build();
}

function picture({ address, tile, columns }, at) {
  const box = el("span", { class: "word-picture" });
  box.style.width = box.style.height = `${tile}px`;
  box.style.backgroundImage = `url("${address}")`;
  box.style.backgroundPosition = `${-tile * (at % columns)}px ${-tile * Math.floor(at / columns)}px`;
  return box;
}
