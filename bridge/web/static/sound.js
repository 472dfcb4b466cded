// The sound: three small meters beside the beat, and below its controls what is heard and the tempo that it proposes.

import { el } from "./faces.js";
import { on } from "./link.js";

const BANDS = ["low", "mid", "high"];

/** Follow the readings. Meters move by `transform` alone, which lays nothing out. */
export function sound() {
  const meters = document.getElementById("meters");
  const bars = BANDS.map(() => el("i"));
  meters.append(...bars.map((bar) => el("span", {}, bar)));
  const heard = el("p", { class: "now dim", id: "heard", role: "status" });
  const tempo = el("p", { class: "now dim", id: "heard-tempo" });
  document.querySelector("#panel-audio .controls")?.append(heard, tempo);
  on("readings", (r) => {
    BANDS.forEach((band, n) => (bars[n].style.transform = `scaleY(${r[`audio_${band}`] ?? 0})`));
    meters.dataset.state = r.audio_state ?? "off";
    const words = {
      running: `Hears ${r.audio_heard}`,
      waiting: r.audio_heard ? `No sound from ${r.audio_heard}` : "No sound yet",
    };
    const text = words[r.audio_state] ?? "No sound is chosen";
    if (heard.textContent !== text) {
      heard.textContent = heard.title = meters.title = text;
      meters.setAttribute("aria-label", `Sound, low, middle and high. ${text}`);
    }
    const bpm = r.audio_bpm ? `${r.audio_bpm.toFixed(1)} bpm are heard` : "No tempo is heard";
    if (tempo.textContent !== bpm) tempo.textContent = bpm;
  });
}
