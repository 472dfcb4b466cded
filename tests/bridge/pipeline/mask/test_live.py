"""The mask in the whole bridge: over real NDI with Ember and a second NDI sender, and when the person mask fails in the
engine process."""

from __future__ import annotations

import os
import threading
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
from bridge.pipeline.mask import second_input
from bridge.pipeline.mask.timeline import LOST_NS
from bridge.video.opening import open_sink, open_source
from bridge.video.synthetic.null import NullSink
from engine.frame import Frame
from tests.support.video_peers import Peer

TIMEOUT_S = 60.0
WIDTH, HEIGHT = 256, 144
RED = "#ff0000"


def soon(happened: Callable[[], bool], what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


def half_bright(path: Path) -> None:
    """A picture: soft waves, dark on the left and bright on the right, with some columns of black between."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    waves = 20 * np.sin(x / 9) * np.sin(y / 7)
    pixels = np.stack([np.where(x < WIDTH / 2, 60 + waves, 200 + waves) + shift for shift in (0, 12, -12)], -1)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def ramp() -> np.ndarray:
    """A matte that is 0 at the left and 255 at the right, and goes from one to the other between: uint8 [H, W]."""
    levels = np.clip((np.arange(WIDTH) - WIDTH / 4) / (WIDTH / 2), 0.0, 1.0)
    return np.rint(np.broadcast_to(levels, (HEIGHT, WIDTH)) * 255).astype(np.uint8)


def send_matte(conn: Connection, name: str) -> None:
    """Send the matte over NDI until told to stop."""
    with open_sink(f"ndi:{name}") as sink:
        conn.send("open")
        while not conn.poll(1 / 30):
            sink.send(Frame(np.repeat(ramp()[:, :, None], 3, axis=2)))


def compare(conn: Connection, name: str) -> None:
    """Receive over NDI. ("reference",) keeps the newest picture; ("seen",) is answered, for every picture since the
    last question, with its largest and mean difference from that in the left part, and the mean in the right part;
    ("pictures",) with the reference and the newest picture."""
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
                    case "pictures":
                        conn.send((reference, newest))
                    case _:
                        return


def several_restyled(seen: list[tuple[float, float, float]]) -> bool:
    """Whether the inside was restyled in several pictures; when the engine is late, the input is shown between them."""
    return sum(right > 5.0 for _, _, right in seen) >= 5


def test_outside_is_the_input_over_ndi_while_prompts_travel_and_steps_change_and_then_the_matte_is_a_second_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_input, "MISSING_NS", LOST_NS)
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
    matte = f"Matte of a Tidecast test {os.getpid()}"  # that must not contain the other name, by which it is found
    sender = Peer(send_matte, matte)
    with App(load(None, settings)) as app, sender, Peer(compare, name) as peer:
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
        seen.clear()
        restyled = lambda: bool(seen.extend(asked("seen")) or any(right > 10.0 for _, _, right in seen))  # noqa: E731
        soon(restyled, lambda: f"the inside is restyled: {seen[-30:]}, {app.telemetry.snapshot()}")
        asked("seen")
        for change in ({"prompt_1": "fire"}, {"steps": 2}, {"prompt_1": "ink"}, {"steps": 1}):
            app.store.set_many(change)
            seen.clear()
            soon(lambda: bool(seen.extend(asked("seen")) or several_restyled(seen)), f"restyled after {change}")
            assert max(largest for largest, _, _ in seen) <= 8 and max(mean for _, mean, _ in seen) < 1.0, change

        told: list[tuple[str, str]] = []
        app.telemetry.listen_errors(lambda *error: told.append(error))
        share = ramp()[:, :, None] / 255.0

        def away() -> tuple[np.ndarray, np.ndarray]:
            """How far the newest picture is from the input, and from the input by the known matte before red."""
            peer.conn.send(("pictures",))
            reference, newest = peer.answer()
            before_red = reference * share + np.array((255, 0, 0)) * (1.0 - share)
            return np.abs(newest - reference), np.abs(newest - before_red)

        def composed() -> bool:
            from_known = away()[1]
            return bool(from_known.mean() < 1.5 and from_known.max() <= 10)

        def restyled_everywhere() -> bool:
            quarters = [part for picture in away() for part in np.array_split(picture, 4, axis=1)]
            return min(part.mean() for part in quarters) > 5.0

        state = lambda: app.telemetry.snapshot().get("mask_state")  # noqa: E731
        given = {"mask_source": "input", "mask_input": f"ndi:{matte}", "mask_refine": False, "mask_softness": 1.0}
        app.store.set_many(given | {"mask_mix": 0.0, "mask_background": "color", "mask_background_color": RED})
        soon(composed, "the known matte is in the picture")
        sender.process.kill()
        soon(lambda: state() == "missing", "it is said")
        app.store.set("mask_mix", 1.0)
        soon(restyled_everywhere, "everything is restyled")
        soon(lambda: any("No picture comes for the matte" in text for _, text in told), f"and why: {told}")
        app.store.set("mask_mix", 0.0)
        with Peer(send_matte, matte):
            soon(lambda: composed() and state() == "on", "it is used again")
            app.store.set("bypass", True)
            soon(lambda: max(largest for largest, _, _ in asked("seen") or [(99.0, 0, 0)]) <= 2, "bypass has no mask")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("input")]


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
