"""The controls, the command and the readings of the sound. `bridge.audio.service` obeys them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from bridge.audio.source import OFF, check
from engine.control import Command, Kind, Reading, live

STORED = "audio"
"""Word with which a snapshot stores these controls: they belong to the place, not to the look."""


class State(enum.StrEnum):
    """What the chosen sound does."""

    OFF = "off"
    WAITING = "waiting"
    """Nothing comes: it is not there, silent in a way that gives no data, or could not be opened."""
    RUNNING = "running"


def _audio(default: Any, address: str, help: str, label: str, **rest: Any) -> Any:
    return live(default, address, help, group="Audio", label=label, stored=STORED, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioControls:
    """Which sound is heard, and how loud it counts."""

    audio_source: str = _audio(
        OFF,
        "/audio/source",
        "The sound that is heard: off, ndi (of the NDI source that plays), ndi:NAME, device:NAME, loopback:.",
        "Sound",
        check=check,
    )
    audio_auto: bool = _audio(
        True,
        "/audio/auto",
        "Divide by the loudness of the last 10 seconds, so that quiet and loud music drive alike.",
        "Automatic gain",
    )
    audio_gain: float = _audio(
        0.0, "/audio/gain", "Makes the readings stronger.", "Gain", low=-40.0, high=40.0, unit="dB"
    )
    audio_release: float = _audio(
        150.0, "/audio/release", "How slowly the readings fall.", "Release", low=0.0, high=1000.0, unit="ms"
    )
    audio_low_edge: float = _audio(
        150.0, "/audio/edge/low", "Where low ends and middle begins.", "Low edge", low=60.0, high=500.0, unit="Hz"
    )
    audio_high_edge: float = _audio(
        2000.0, "/audio/edge/high", "Where middle ends and high begins.", "High edge", low=600.0, high=8000.0, unit="Hz"
    )


TAKE = Command("audio_take", "/audio/take", (), "Audio", "Take tempo", "Set the tempo to the one that is heard.")

COMMANDS = (TAKE,)

READINGS = (
    Reading("audio_level", "/status/audio/level", Kind.FLOAT, "", "How loud the sound is, 0 to 1."),
    Reading("audio_low", "/status/audio/low", Kind.FLOAT, "", "The same of its low part."),
    Reading("audio_mid", "/status/audio/mid", Kind.FLOAT, "", "The same of its middle."),
    Reading("audio_high", "/status/audio/high", Kind.FLOAT, "", "The same of its high part."),
    Reading("audio_onset", "/status/audio/onset", Kind.FLOAT, "", "Rises to 1 at a hit, then falls."),
    Reading("audio_bpm", "/status/audio/bpm", Kind.FLOAT, "bpm", "The tempo that is heard, a proposal; 0 if none is."),
    Reading("audio_heard", "/status/audio/source", Kind.TEXT, "", "What is heard; empty if nothing is."),
    Reading("audio_state", "/status/audio/state", Kind.TEXT, "", "What it does: one of " + ", ".join(State) + "."),
)
