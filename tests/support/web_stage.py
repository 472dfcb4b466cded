"""A show without engine and transports, for the tests of the control room: real store, telemetry and web process.

The "restyling" is a tint that depends on the words of the prompt and on the strength, so that a test can see
what arrived. `python -m tests.support.web_stage` runs it until Ctrl+C, for work on the page.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bridge.control.cues.service import Cues
from bridge.control.midi.switch import MidiSwitch
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored.session import Session
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.service import TempoService
from bridge.control.values import Snapshot
from bridge.process.engine.choice import offered
from bridge.show.folder import BINDINGS, CUES, SESSION, SNAPSHOTS
from bridge.show.live import LiveShow
from bridge.table import TABLE
from bridge.video.base import SourceInfo
from bridge.web.launcher import WebProcess
from bridge.web.messages import CuesTold, MidiState, SnapshotsStored, WordsKnown
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame, PixelFormat

SIZE = (320, 192)
FPS = 30.0
"""What the readings say."""


def tint(text: str) -> np.ndarray:
    """A colour for a prompt: float [3] in 0..1."""
    digest = zlib.crc32(text.encode())
    return np.array([(digest >> shift & 255) / 255 for shift in (0, 8, 16)])


def input_picture(time_s: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A moving grey test picture, uint8 [H, W, 3]."""
    width, height = size
    x = np.arange(width)[None, :] / width
    y = np.arange(height)[:, None] / height
    waves = 0.5 + 0.25 * np.sin(12 * x + 2.0 * time_s) + 0.25 * np.sin(9 * y + 5 * x - 1.3 * time_s)
    return np.repeat((waves * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def restyle(pixels: np.ndarray, controls: Snapshot) -> np.ndarray:
    """The stand-in for the engine: the picture in the colours of the prompts."""
    colour = sum(share * tint(text) for text, share in controls.of(Controls).prompts())
    grey = pixels.astype(np.float32)
    wet = grey * colour * 1.4
    mixed = grey + (wet - grey) * controls.value("strength") * controls.value("mix")
    return np.clip(mixed, 0, 255).astype(np.uint8)


class Stage:
    """A running show.

    Args:
        port: TCP port of the page; 0 for a free one.
        folder: for real snapshots, bindings and cues, kept in this folder, and show files; without it, snapshots are a
            stand-in that the tests can look into.
        fps: pictures that it really sends in a second.
        web: other arguments of `WebProcess`.
    """

    def __init__(self, port: int = 0, folder: Path | None = None, fps: float = 6.0, **web: Any) -> None:
        self.store = ControlStore(TABLE)
        self.telemetry = Telemetry(TABLE)
        self.inputs = [
            SourceInfo("pattern:bars", "Test picture", 320, 192, 30.0),
            SourceInfo("ndi:DESK (Camera 1)", "DESK (Camera 1)", 1920, 1080, 59.94),
        ]
        self.stored: dict[int, dict[str, Any]] = {}
        self.names: dict[int, str] = {}
        self.undone: list[float] = []
        self.words: WordsKnown | None = None
        self.learning = ""
        self.bindings: dict[str, str] = {}
        self.ports = ["Desk"]
        self.newest: Frame | None = None
        self.kept: Snapshots | None = None
        if folder is not None:
            report = self.telemetry.error
            self.beat = TempoService(self.store, self.telemetry).start()
            later = self.beat.changes.later
            self.kept = Snapshots(self.store, folder / SNAPSHOTS, report, lambda: self.newest, later).start()
            self.midi = MidiSwitch(self.store, folder / BINDINGS, report)
            self.session = Session(folder / SESSION, report).start()
            self.cues = Cues(self.store, self.telemetry, folder / CUES, self.kept, self.beat, self.session).start()
            show = LiveShow(self.store, self.kept, self.midi, report, self.cues)
            web = {"show": show, "cues": lambda: CuesTold.of(self.cues.cues), **web}
        else:
            self.store.on("snapshot_save", self._save)
            self.store.on("snapshot_recall", self._recall)
            self.store.on("snapshot_delete", lambda args, caller: self.stored.pop(args[0]))
            self.store.on("snapshot_name", lambda args, caller: self.names.update({args[0]: args[1]}))
            self.store.on("snapshot_undo", lambda args, caller: self.undone.append(time.monotonic()))
        self.store.on("midi_learn", self._learn)
        options: dict[str, Any] = {
            "port": port,
            "inputs": lambda: self.inputs,
            "snapshots": self._snapshots,
            "midi": self._midi,
            "words": lambda: self.words,
            "engine": offered(Config()),
        }
        self.web = WebProcess(self.store, self.telemetry, *SIZE, **(options | web))
        self.engine_alive = True
        self.latency_ms = 110.0
        self.motion_ms = 30.0
        self.size = SIZE  # of the output; the web process is told that of the start
        self.fps = fps
        self.sent = 0
        self.black_from = -1
        self.gaps_ms: list[float] = []
        self.latest = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)

    def start(self) -> Stage:
        self.web.start()
        self.telemetry.update(
            state="running",
            model="ember",
            model_size="256x256",
            input="pattern:bars",
            output="ndi:Tidecast",
            message="",
            recording="",
            vram=0.0,
            dropped=0,
            dropped_input=0,
            dropped_late=0,
            dropped_engine=0,
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.web.stop()
        if self.kept is not None:
            self.cues.stop()
            self.kept.stop()
            self.session.stop()
            self.beat.stop()

    def __enter__(self) -> Stage:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _snapshots(self) -> SnapshotsStored:
        kept = self.kept
        if kept is None:
            return SnapshotsStored(tuple(sorted(self.stored)), dict(self.names))
        return SnapshotsStored(kept.numbers(), kept.names(), kept.colors(), kept.pictures())

    def _save(self, args: Any, caller: Any) -> None:
        self.stored[args[0]] = self.store.values()

    def _recall(self, args: Any, caller: Any) -> None:
        self.store.set_many(self.stored[args[0]])

    def _learn(self, args: Any, caller: Any) -> None:
        self.learning = args[0]

    def _midi(self) -> MidiState:
        return MidiState(self.learning, dict(self.bindings), tuple(self.ports))

    def _run(self) -> None:
        period, start, number = 1 / self.fps, time.monotonic(), 0
        last_sent, was_black = start, False
        while not self._stopping.wait(max(0.0, start + number * period - time.monotonic())):
            now = time.monotonic()
            self.gaps_ms.append((now - last_sent) * 1e3)
            last_sent = now
            controls = self.store.snapshot
            pixels = input_picture(number * period, self.size)
            self.web.offer("input", Frame(pixels, seq=number))
            if controls.value("black"):
                out = np.zeros_like(pixels)
            elif controls.value("freeze"):
                out = self.latest if self.latest.shape == pixels.shape else np.zeros_like(pixels)
            elif controls.value("bypass") or not self.engine_alive:
                out = pixels
            else:
                out = restyle(pixels, controls)
            self.latest = out
            if controls.value("black") and not was_black:
                self.black_from = number
            was_black = controls.value("black")
            bgra = np.dstack([out[:, :, ::-1], np.full(out.shape[:2], 255, np.uint8)])
            self.newest = Frame(bgra, PixelFormat.BGRA, seq=number)
            self.web.offer("output", self.newest)
            self.sent += 1
            if number % max(1, round(self.fps / 10.0)) == 0:
                self._report(number, now - start)
            number += 1

    def _report(self, number: int, time_s: float) -> None:
        wobble = 8 * math.sin(time_s * 1.7) + 4 * math.sin(time_s * 5.1)
        controls = self.store.snapshot
        self.telemetry.update(
            fps_in=FPS,
            fps_out=FPS - 0.2,
            fps_engine=FPS - 0.4,
            latency=self.latency_ms + wobble,
            latency_p95=self.latency_ms * 1.5 + 3 * wobble,
            motion_latency=self.motion_ms + wobble / 4,
            noise=controls.value("strength") * (0.8 + 0.02 * wobble),
            steps=controls.value("steps"),
            prompt=controls.of(Controls).prompts()[0][0],
            heartbeat=int(time_s),
            stage_upload=0.6,
            stage_encode=8.2 + wobble / 9,
            stage_dit=41.0 + wobble,
            stage_decode=11.1,
            stage_download=0.9,
            dropped=number // 300,
            dropped_input=number // 300,
            recording="show.mp4" if controls.value("record") else "",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    with Stage(options.port, host=options.host) as stage:
        print(stage.web.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
