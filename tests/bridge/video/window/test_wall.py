"""A whole bridge with two outputs at once, NDI and a display: one is killed, the other goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil
import pytest

from bridge.app import App
from bridge.bench.overhead import identity, wait_until_running
from bridge.bench.peers import Receiver
from bridge.config_file import load
from bridge.video.synthetic.pattern import read_counter
from tests.support.desktop import desktop, photograph

WIDTH, HEIGHT, FPS = 640, 368, 30


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 90.0
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def window() -> psutil.Process | None:
    """The process of the window that has been opened last."""
    shm = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    found = [p for p in shm if any("SDL2" in m.path for m in p.memory_maps())]
    return max(found, key=lambda p: p.create_time(), default=None)


@pytest.mark.alone
def test_two_outputs_one_killed(tell: Callable[[str], None]) -> None:
    name = f"ndi:wall {os.getpid()}"
    settings = {**identity("pattern:bars", name, WIDTH, HEIGHT), "output.also": ["window:1"], "output.fps": FPS}
    with desktop(WIDTH, HEIGHT), App(load(None, settings)) as app, Receiver(name) as mixer:
        wait_until_running(app)
        wall = app.publisher.outputs[1]
        assert app.telemetry.snapshot()["output"] == f"{name}, window:1"
        seen = list[int | None]()
        until(lambda: seen.append(read_counter(photograph())) or len({*seen} - {None}) >= 5, "the wall moves")
        until(lambda: len(mixer.take()) >= 5, "NDI moves")
        killed = window()
        assert killed is not None
        app.publisher.main.longest_gap_ms = 0.0
        killed.kill()
        until(lambda: app.telemetry.snapshot()["outputs_failing"] == "window:1", "it is said")
        before, sent = wall.sent, app.publisher.main.sent
        until(lambda: wall.sent > before, "it comes back")
        assert app.publisher.main.sent > sent and len(mixer.take()) > 1
        tell(
            f"the other output's longest gap while a window was killed and came back: "
            f"{app.publisher.main.longest_gap_ms:.0f} ms"
        )
        after = len(seen)
        until(lambda: seen.append(read_counter(photograph())) or len({*seen[after:]} - {None}) >= 5, "the wall again")
        until(lambda: app.telemetry.snapshot()["outputs_failing"] == "", "no complaint is left")
        assert window() != killed
    assert window() is None
