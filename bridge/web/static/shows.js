// Show files: save the show, and open one after a question.

import { state } from "./link.js";

const $ = (id) => document.getElementById(id);

/** Prepare the dialog; `limits.most_bytes` is the size of the largest file. */
export function shows(limits) {
  let chosen = null; // the file that was checked and waits for the answer
  const say = (words, bad = false) => {
    $("show-place").classList.toggle("bad", bad);
    $("show-text").textContent = words;
  };
  const ask = (file) => {
    chosen = file;
    $("show-ask").hidden = !file;
    if (file) $("show-replace").focus();
  };
  const fail = (error) => {
    ask(null);
    say(error instanceof TypeError ? "Tidecast does not answer. Try again in a moment." : error.message, true);
  };

  $("show-button").addEventListener("click", () => {
    ask(null);
    say("");
    $("show").showModal();
  });
  $("show-save").addEventListener("click", async () => {
    ask(null);
    say("The show is being saved …");
    try {
      const address = URL.createObjectURL(await (await asked("/api/show")).blob());
      const link = document.createElement("a");
      link.href = address;
      link.download = `show-${new Date().toISOString().slice(0, 10)}.tidecast`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
      say(`Saved as ${link.download}, in the folder of your downloads.`);
    } catch (error) {
      fail(error);
    }
  });
  $("show-open").addEventListener("click", () => $("show-file").click());
  $("show-file").addEventListener("change", async () => {
    const [file] = $("show-file").files;
    $("show-file").value = ""; // the same file can be chosen again
    ask(null);
    if (!file) return;
    if (file.size > limits.most_bytes) {
      say(`${file.name} is too large: a show has ${limits.most_bytes} bytes at most. Choose a .tidecast file.`, true);
      return;
    }
    say(`${file.name} is being read …`);
    try {
      const found = await (await asked("/api/show?check=1", file)).json();
      say(
        `${file.name} was saved by Tidecast ${found.program} and holds ${holds(found)}. ` +
          `It replaces ${counted(state.snapshots.length, "snapshot")} and all MIDI bindings` +
          `${found.cues === undefined ? "" : ` and ${counted(state.cues.rows.length, "cue")}`}. Undo takes it back.`,
      );
      ask(file);
    } catch (error) {
      fail(error);
    }
  });
  $("show-keep").addEventListener("click", () => {
    ask(null);
    say("Nothing was changed.");
    $("show-open").focus();
  });
  $("show-replace").addEventListener("click", async () => {
    const file = chosen;
    ask(null);
    $("show-open").focus();
    if (!file) return;
    say(`${file.name} is being opened …`);
    try {
      const found = await (await asked("/api/show", file)).json();
      say(`Opened: ${holds(found)}. Undo, beside the pads, takes it back.`);
    } catch (error) {
      fail(error);
    }
  });
}

function holds({ snapshots, bindings, controls, cues }) {
  const parts = [counted(snapshots, "snapshot"), counted(bindings, "MIDI binding"), counted(controls, "control")];
  return [...parts, ...(cues === undefined ? [] : [counted(cues, "cue")])].join(", ");
}

function counted(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** The answer of the server; raises an error with its words if it refuses. */
async function asked(address, file) {
  const answer = await fetch(address, file ? { method: "POST", body: file } : {});
  if (answer.ok) return answer;
  const words = await answer.text();
  let said = words;
  try {
    const { error, remedy } = JSON.parse(words);
    said = [error, remedy].filter(Boolean).join(" ");
  } catch {
    // not JSON: the words themselves
  }
  throw new Error(said);
}
