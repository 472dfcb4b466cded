"""The mask in the whole bridge: over real NDI with Ember, and when the person mask fails in the engine process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge.app import App
from bridge.bench.overhead import identity, wait_until_running
from bridge.config_file import load
from bridge.video.opening import open_source
from bridge.video.synthetic.null import NullSink
from engine.frame import Frame
from tests.support.video_peers import Peer

TIMEOUT_S = 60.0
WIDTH, HEIGHT = 256, 144
RED = "#ff0000"


def soon(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def half_bright(path: Path) -> None:
    """A picture: soft waves, dark on the left and bright on the right, with some columns of black between."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    waves = 20 * np.sin(x / 9) * np.sin(y / 7)
    pixels = np.stack([np.where(x < WIDTH / 2, 60 + waves, 200 + waves) + shift for shift in (0, 12, -12)], -1)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def compare(conn: Connection, name: str) -> None:
    """Receive over NDI. ("reference",) keeps the newest picture; ("seen",) is answered, for every picture since the
    last question, with its largest and mean difference from that in the left part, and the mean in the right part."""
    with open_source(f"ndi:{name}") as source:
        conn.send("open")
        reference: np.ndarray | None = None
        newest: np.ndarray | None = None
        seen: list[tuple[float, float, float]] = []
        while True:
            frame = source.read(0.1)
            if frame is not None:
                newest = frame.rgb().astype(np.int16)
                if reference is not None and newest.shape == reference.shape:
                    away = np.abs(newest - reference)
                    left = away[:, : WIDTH // 2 - 16]
                    seen.append((float(left.max()), float(left.mean()), float(away[:, WIDTH // 2 + 16 :].mean())))
            if conn.poll():
                match conn.recv()[0]:
                    case "reference":
                        reference, seen = newest, []
                        conn.send(newest is not None)
                    case "seen":
                        conn.send(seen)
                        seen = []
                    case _:
                        return


def several_restyled(seen: list[tuple[float, float, float]]) -> bool:
    """Whether the inside was restyled in several pictures; when the engine is late, the input is shown between them."""
    return sum(right > 5.0 for _, _, right in seen) >= 5


def test_outside_is_the_input_over_ndi_while_prompts_travel_and_steps_change(tmp_path: Path) -> None:
    picture = tmp_path / "half.png"
    half_bright(picture)
    name = f"Tidecast test mask {os.getpid()}"
    settings = {
        "engine.model": "ember",
        "engine.width": 128,
        "engine.height": 64,
        "input.uri": f"file:{picture}",
        "output.uri": f"ndi:{name}",
        "osc.enabled": False,
        "web.enabled": False,
        "controls.output_size": f"{WIDTH}x{HEIGHT}",
        "controls.prompt_1": "neon",
        "controls.strength": 0.9,
        "controls.steps": 1,
        "controls.prompt_seconds": 1.0,
        "controls.bypass": True,
    }
    with App(load(None, settings)) as app, Peer(compare, name) as peer:
        wait_until_running(app)

        def asked(what: str) -> list[tuple[float, float, float]]:
            peer.conn.send((what,))
            return peer.answer()

        soon(lambda: bool(asked("reference")), "the input arrives")
        asked("seen")
        seen: list[tuple[float, float, float]] = []
        soon(lambda: bool(seen.extend(asked("seen")) or len(seen) > 5), "the input goes on")
        assert max(largest for largest, _, _ in seen) <= 2, "the still picture is the same over NDI, again and again"
        app.store.set_many(
            {"mask_source": "luma", "mask_use": "inside", "mask_luma_low": 0.5, "mask_refine": True, "bypass": False}
        )
        soon(lambda: any(right > 10.0 for _, _, right in asked("seen")), "the inside is restyled")
        asked("seen")
        for change in ({"prompt_1": "fire"}, {"steps": 2}, {"prompt_1": "ink"}, {"steps": 1}):
            app.store.set_many(change)
            seen.clear()
            soon(lambda: bool(seen.extend(asked("seen")) or several_restyled(seen)), f"restyled after {change}")
            assert max(largest for largest, _, _ in seen) <= 8 and max(mean for _, mean, _ in seen) < 1.0, change


def test_a_failing_person_mask_shows_the_whole_picture_and_says_so_and_panic_is_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[np.ndarray] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        sent.append(frame.pixels.mean((0, 1)))
        del sent[:-30]

    monkeypatch.setattr(NullSink, "send", record)
    settings = identity("pattern:bars", "null:", 256, 144) | {
        "process.debug": True,
        "osc.enabled": False,
        "controls.mask_source": "person",
        "controls.mask_use": "inside",
        "controls.mask_background": "color",
        "controls.mask_background_color": RED,
    }
    red = lambda: bool(sent) and sent[-1][0] > 240 and sent[-1][1:].max() < 20  # noqa: E731
    with App(load(None, settings)) as app:
        errors: list[tuple[str, str]] = []
        app.telemetry.listen_errors(lambda topic, reason: errors.append((topic, reason)))
        reading = lambda name: app.telemetry.snapshot().get(name)  # noqa: E731
        soon(lambda: red() and reading("mask_state") == "on", "nobody is there, so the background is everywhere")
        app.supervisor.inject("mask")
        soon(lambda: not red() and reading("mask_state") == "missing", "the whole picture is restyled")
        soon(lambda: any(topic == "mask" and "failed" in text for topic, text in errors), f"it is said: {errors}")
        assert app.supervisor.restarts == 0, "the model goes on"
        app.supervisor.inject("mask-works")
        soon(lambda: red() and reading("mask_state") == "on", "it comes back by itself")
        app.store.set("bypass", True)
        soon(lambda: not red() and sent[-1].max() > 60, "bypass shows the input")
        app.store.set("black", True)
        soon(lambda: not sent[-1].any(), "black is black")
        app.store.set_many({"bypass": False, "black": False})
        soon(red, "and the mask goes on")
