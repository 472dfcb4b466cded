"""The controls, commands and readings of the beat. Their parts of `bridge.control.tempo` obey them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.control.tempo.state import MAX_BPM, MIN_BPM, START_BPM, State
from engine.control import NEVER, Command, Kind, Reading, live

INTERNAL_SOURCE, TAP, MIDI, OSC, LINK = SOURCES = ("internal", "tap", "midi", "osc", "link")
"""Where the beat may come from. Of these, the last three are followed: another program sets them."""

FOLLOWED = (MIDI, OSC, LINK)

SNAPS = {"off": 0.0, "beat": -1.0, "bar": 1.0, "2-bars": 2.0, "4-bars": 4.0, "8-bars": 8.0}
"""Bars between the moments at which a change may land, by the word of the control; -1 for every beat."""

STORED = "tempo"
"""Word with which a snapshot stores these controls. Tempo and bend are never stored: a look must not change a
session."""


def _tempo(default: Any, address: str, help: str, label: str, stored: str = STORED, **rest: Any) -> Any:
    return live(default, address, help, group="Tempo", label=label, stored=stored, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class TempoControls:
    """Where the beat comes from, and which changes wait for it."""

    tempo_source: str = _tempo(
        INTERNAL_SOURCE,
        "/tempo/source",
        "Where the beat comes from: this machine, taps, MIDI clock, OSC or Ableton Link.",
        "Source",
        choices=SOURCES,
    )
    tempo_bpm: float = _tempo(
        START_BPM,
        "/tempo/bpm",
        "The tempo. It follows the source where another program sets it; with Ableton Link it sets everybody's.",
        "Tempo",
        NEVER,
        low=MIN_BPM,
        high=MAX_BPM,
        unit="bpm",
    )
    tempo_quantum: int = _tempo(4, "/tempo/quantum", "Beats of a bar.", "Beats per bar", low=1, high=8)
    tempo_bend: float = _tempo(
        0.0,
        "/tempo/bend",
        "While it is not 0, our beat runs this much faster or slower, to bring it into step by ear.",
        "Bend",
        NEVER,
        low=-8.0,
        high=8.0,
        unit="%",
    )
    tempo_midi_port: str = _tempo(
        "",
        "/tempo/midi/port",
        "The MIDI port whose clock is followed, by a part of its name; empty: the first that sends a clock.",
        "MIDI clock port",
    )
    snap: str = _tempo(
        "off", "/snap", "Prompts, steps and snapshots wait for this moment.", "Beat snap", choices=tuple(SNAPS)
    )
    snap_trim: float = _tempo(
        0.0,
        "/snap/trim",
        "Changes are sent this much earlier than the measured latency says, for a projector or LED wall that is slow.",
        "Trim",
        low=-500.0,
        high=500.0,
        unit="ms",
    )


KEPT = ("tempo_source", "tempo_bpm", "tempo_quantum", "tempo_midi_port", "snap", "snap_trim")
"""Controls that a restart of the program brings back."""


def _command(name: str, address: str, label: str, help: str, *arguments: tuple[str, str, bool]) -> Command:
    return Command(name, address, arguments, "Tempo", label, help)


TAP_BEAT = _command(
    "tempo_tap",
    "/tempo/tap",
    "Tap",
    "Tap the tempo: each tap is a beat; up to 16 taps refine it, a pause of 2 s forgets.",
)
RESYNC = _command("tempo_resync", "/tempo/resync", "Resync", "This is the first beat of a bar.")
DOUBLE = _command(
    "tempo_double", "/tempo/double", "x2", "Twice as many beats; of a source that is followed, ours only."
)
HALVE = _command("tempo_halve", "/tempo/halve", "/2", "Half as many beats; of a source that is followed, ours only.")
ROUND = _command("tempo_round", "/tempo/round", "Round", "Round the tempo to a whole number.")
NUDGE = _command(
    "tempo_nudge", "/tempo/nudge", "Nudge", "Move the beat: so many ms later, or earlier below 0.", ("ms", "f", True)
)
EARLIER = _command("tempo_earlier", "/tempo/earlier", "Earlier", "Move the beat 10 ms earlier.")
LATER = _command("tempo_later", "/tempo/later", "Later", "Move the beat 10 ms later.")
BEAT = _command(
    "tempo_beat",
    "/tempo/beat",
    "Beat",
    "For programs: the position now in beats, for the source osc.",
    ("beat", "f", True),
)
PHASE = _command(
    "tempo_phase",
    "/tempo/phase",
    "Phase",
    "For programs: the place between two beats now, 0 to 1, for the source osc.",
    ("phase", "f", True),
)
CANCEL = _command("snap_cancel", "/snap/cancel", "Take back", "Take back every change that waits for the beat.")

COMMANDS = (TAP_BEAT, RESYNC, DOUBLE, HALVE, ROUND, NUDGE, EARLIER, LATER, BEAT, PHASE, CANCEL)

READINGS = (
    Reading("tempo", "/status/tempo", Kind.FLOAT, "bpm", "The tempo in force."),
    Reading("beat", "/status/beat", Kind.FLOAT, "", "The position in beats."),
    Reading("bar", "/status/bar", Kind.FLOAT, "", "The place in the bar, 0 to 1."),
    Reading("tempo_source", "/status/tempo/source", Kind.TEXT, "", "The source of the beat in force."),
    Reading("tempo_state", "/status/tempo/state", Kind.TEXT, "", "What it does: one of " + ", ".join(State) + "."),
    Reading("tempo_peers", "/status/tempo/peers", Kind.INT, "", "Other programs in the session of Ableton Link."),
    Reading("snap_pending", "/status/snap/pending", Kind.TEXT, "", "The changes that wait for the beat; else empty."),
    Reading("snap_beats", "/status/snap/beats", Kind.FLOAT, "", "Beats until the first of them lands."),
    Reading(
        "snap_lookahead",
        "/status/snap/lookahead",
        Kind.FLOAT,
        "ms",
        "How long before its moment a change of the engine is sent: the measured latency and the trim.",
    ),
)
