"""The engine process's loop with a device that computes asynchronously, in simulated time.

`Device` stands in for such a device and for the session that drives it, as the tests need no accelerator.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from bridge.process import loop
from bridge.process.heartbeat import Heartbeat, Phase
from bridge.process.loop import Loop
from bridge.process.messages import Start
from engine.chunker import Chunk
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame
from engine.models import registry
from engine.runtime.metrics import Health

PIXELS = np.zeros((16, 16, 3), np.uint8)
FRAMES = 4


class World:
    """Simulated time, a source of frames, and the frames that came back with the time at which they did."""

    metadata_bytes = 4096

    def __init__(self, fps: float, last: int) -> None:
        self.now = 100.0
        self._period, self._last, self._next = 1.0 / fps, last, 0
        self.back: list[tuple[float, Frame]] = []
        self.told: list[Any] = []
        self.controls = Controls(steps=1, slo_latency=2000.0)

    @property
    def stopped(self) -> bool:
        return self._next > self._last

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)

    @property
    def pending(self) -> int:
        return int(100.0 + self._next * self._period <= self.now)

    def get(self, timeout_s: float) -> Frame | None:
        due = 100.0 + self._next * self._period
        if due > self.now + timeout_s:
            self.now += timeout_s
            return None
        self.now = max(self.now, due)
        self._next += 1
        return Frame(PIXELS, captured_ns=int(due * 1e9), seq=self._next - 1)

    def put(self, frame: Frame) -> None:
        self.back.append((self.now, frame))

    def tell(self, message: Any) -> None:
        self.told.append(message)


class Device:
    """A session whose device works on one chunk after the other while the host goes on.

    Args:
        upload_s, compute_s, download_s: time of a chunk on the host before, on the device, and on the host after.
        asynchronous: whether `begin` returns before the device is done.
    """

    spec = registry.get("wan21-tiny")
    frames_needed = FRAMES

    def __init__(
        self, world: World, upload_s: float, compute_s: float, download_s: float, asynchronous: bool = True
    ) -> None:
        self._world, self._asynchronous = world, asynchronous
        self._upload_s, self.compute_s, self._download_s = upload_s, compute_s, download_s
        self._fed: list[Frame] = []
        self._begun: deque[tuple[float, Chunk]] = deque()
        self._free = 0.0
        self.health = Health()
        self.news: dict[int, dict[str, Any]] = {}  # figures that change with a chunk, by its number
        self.most = 0
        self.idle: list[float] = []
        self.early: list[float] = []
        self.waited: list[float] = []

    def feed(self, frame: Frame) -> None:
        self._fed.append(frame)

    def begin(self, controls: Controls) -> None:
        assert len(self._fed) == FRAMES
        self.waited.append(self._world.now - self._fed[-1].captured_ns / 1e9)
        if self._begun:
            self.early.append(self._free - self._world.now)
        self._world.now += self._upload_s
        start = max(self._world.now, self._free)
        self.idle.append(start - self._free)
        self._free = start + self.compute_s
        self._begun.append((self._free, Chunk(tuple(self._fed), controls)))
        self._fed = []
        self.most = max(self.most, len(self._begun))
        if not self._asynchronous:
            self._world.now = self._free

    @property
    def arrived(self) -> bool:
        return not self._begun or self._begun[0][0] <= self._world.now

    def collect_chunks(self) -> list[Chunk]:
        end, chunk = self._begun.popleft()
        self._world.now = max(self._world.now, end) + self._download_s
        self.health = replace(self.health, chunks=self.health.chunks + 1, **self.news.get(self.health.chunks + 1, {}))
        return [chunk]


def serve(world: World, device: Device) -> Heartbeat:
    """Run the loop until the last frame was taken."""
    heartbeat = Heartbeat()
    start = Start(Config(batch=True), identity=False, debug=False, fps=0.0, controls=world.controls)
    ends = cast(Any, world)
    Loop(start, cast(Any, device), ends, ends, ends, heartbeat, ends).serve()
    return heartbeat


def test_a_device_that_is_too_slow_for_the_input_never_waits_for_the_host() -> None:
    world = World(fps=100, last=2000)
    device = Device(world, upload_s=0.004, compute_s=0.060, download_s=0.006)
    heartbeat = serve(world, device)
    assert device.most == 2
    assert sum(device.idle[5:]) < 0.001 * len(device.idle)
    seqs = [frame.seq for _, frame in world.back]
    assert seqs == sorted(set(seqs))
    assert heartbeat.skipped > 0
    assert heartbeat.step_s == pytest.approx(0.060, rel=0.02)
    assert max(device.early[5:]) < 0.004 + 3 * loop.BUSY_S + 0.006  # as late as possible: its frames are fresh


def test_frames_come_back_as_soon_as_a_fast_device_has_them() -> None:
    world = World(fps=50, last=1000)
    device = Device(world, upload_s=0.002, compute_s=0.030, download_s=0.001)
    heartbeat = serve(world, device)
    assert device.most == 1
    assert heartbeat.skipped == 0
    waits = [now - frame.captured_ns / 1e9 for now, frame in world.back if frame.seq % FRAMES == FRAMES - 1]
    assert max(waits[1:]) < 0.033 + 2 * loop.BUSY_S


def test_the_figures_of_chunks_are_told_when_they_change_and_trouble_always() -> None:
    world = World(fps=40, last=400)
    device = Device(world, upload_s=0.001, compute_s=0.010, download_s=0.0)
    device.news = {20: {"noise": 0.5}, 40: {"trouble": "lost"}, 43: {"trouble": ""}}
    serve(world, device)
    assert [(health.noise, health.trouble) for health in world.told] == [
        (0.0, ""),
        (0.5, ""),
        *[(0.5, "lost")] * 3,
        (0.5, ""),
    ]


def test_with_a_synchronous_device_a_chunk_is_collected_before_the_next() -> None:
    world = World(fps=100, last=1000)
    device = Device(world, upload_s=0.001, compute_s=0.060, download_s=0.0, asynchronous=False)
    heartbeat = serve(world, device)
    assert device.most == 1
    assert heartbeat.step_s == pytest.approx(0.061)


def test_how_long_frames_wait_for_their_chunk_is_measured() -> None:
    """While nearly each chunk must wait for the one before: about the mean of the last waits."""
    world = World(fps=100, last=1000)
    device = Device(world, upload_s=0.001, compute_s=0.060, download_s=0.0, asynchronous=False)
    heartbeat = serve(world, device)
    last = device.waited[-50:]
    assert min(last) <= heartbeat.waited_s <= max(last)
    assert heartbeat.waited_s == pytest.approx(sum(last) / len(last), abs=0.003) and max(last) > 0.004


def test_a_device_that_becomes_slower_is_learnt_and_one_that_hangs_gives_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(fps=100, last=4000)
    device = Device(world, upload_s=0.004, compute_s=0.030, download_s=0.001)
    beats: list[tuple[float, Phase]] = []
    original = Device.collect_chunks

    def collect_chunks(self: Device) -> list[Chunk]:
        chunks = len(self.idle)
        self.compute_s = 0.030 if chunks < 20 else 0.090 if chunks < 60 else float("inf")
        return original(self)

    def beat(self: Heartbeat, phase: Phase) -> None:
        beats.append((world.now, phase))

    monkeypatch.setattr(Device, "collect_chunks", collect_chunks)
    monkeypatch.setattr(Heartbeat, "beat", beat)
    heartbeat = serve(world, device)
    assert heartbeat.step_s == pytest.approx(0.090, rel=0.03)
    assert sum(device.idle[24:60]) < 0.001 * 36
    assert device.most == 2
    last, phase = beats[-1]
    assert phase is Phase.STEPPING  # the beat of the chunk that was begun after the one that hangs
    assert world.now - last > 10
