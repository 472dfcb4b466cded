"""Simulated time: the phase and the depth with which a modulated control of the model is seen do not depend on how many
frames the model takes at once; ten modulators over ten minutes neither drift nor write."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from bridge.pipeline.pacing.lead_times import LeadTimes
from bridge.pipeline.stages.table import STAGES
from bridge.process.supervisor import TICK_S
from tests.bridge.control.modulation.stage import BEGIN_NS, Stage

FPS = 24.0
PERIOD_S = 2.3
"""Of the modulator; no multiple of the time of any chunk."""


def seen(chunk: int, compute_s: float, seconds: float = 92.0) -> tuple[np.ndarray, np.ndarray]:
    """The middles of the times for which frames are on air, in s, and the strength with which they were made: by an
    engine that takes `chunk` frames at once and needs `compute_s` from when it has them."""
    delay_s = (chunk - 1) / FPS + compute_s  # from the capture of a frame until it is sent: the same for all
    readings = {"latency": delay_s * 1e3, "fps_engine": FPS}
    lead = LeadTimes(STAGES, lambda: readings, lambda: float(chunk), lambda: 0.0, lambda: 1000.0 / FPS)
    stage = Stage(lead_ms=lead.of)
    try:
        stage.store.set("strength", 0.5)
        stage.say("/mod/1", f"strength sine beats={PERIOD_S * 2.0} depth=0.6")
        times, values = [], []
        told_s, told = 0.0, 0.5
        for first in range(chunk, round(seconds * FPS), chunk):
            begun_s = (first + chunk - 1) / FPS
            while told_s + TICK_S <= begun_s:  # the supervisor tells the engine
                told_s += TICK_S
                told = stage.at(told_s).value("strength")
            times += [(first + n + 0.5) / FPS + delay_s for n in range(chunk)]
            values += [told] * chunk
        return np.array(times), np.array(values)
    finally:
        stage.close()


@pytest.mark.parametrize(("chunk", "compute_s"), [(1, 0.03), (4, 0.1), (4, 0.6), (8, 0.3), (11, 0.25)])
def test_phase_and_depth_do_not_depend_on_the_size_of_a_chunk(chunk: int, compute_s: float) -> None:
    times, values = seen(chunk, compute_s)
    angles = 2.0 * math.pi * times / PERIOD_S
    wave = np.stack([np.sin(angles), np.cos(angles), np.ones_like(angles)], axis=1)
    sine, cosine, middle = np.linalg.lstsq(wave, values, rcond=None)[0]
    late_s = -math.atan2(cosine, sine) * PERIOD_S / (2.0 * math.pi)
    assert late_s == pytest.approx(TICK_S / 2.0, abs=TICK_S / 4.0), "the engine is told once in a tick"
    held = np.sinc(chunk / FPS / PERIOD_S)  # what it costs that the frames of a chunk have one value
    assert math.hypot(sine, cosine) == pytest.approx(0.3 * held, rel=0.02) and middle == pytest.approx(0.5, abs=0.01)
    assert max(values) == pytest.approx(0.8, abs=0.01) and min(values) == pytest.approx(0.2, abs=0.01)


def test_ten_modulators_at_60_hz_over_ten_minutes() -> None:
    stage = Stage()
    faders = (
        "strength",
        "motion",
        "mix",
        "reproject",
        "detail",
        "weight_1",
        "weight_2",
        "weight_3",
        "lora_1",
        "lora_2",
    )
    shapes = ("sine", "triangle", "up", "down", "square", "random", "hold", "drunk", "envelope", "sine")
    try:
        for fader in faders:
            stage.store.set(fader, stage.store.table.by_name[fader].from_norm(0.5))
        for number, (fader, shape) in enumerate(zip(faders, shapes, strict=True), 1):
            stage.say(f"/mod/{number}", f"{fader} {shape} {'beats' if number % 2 else 'hz'}={number / 4} depth=0.5")
        base, heard = stage.store.snapshot, []
        stage.store.listen(lambda name, value, origin: heard.append(name))
        count = 60 * 600
        began = time.thread_time()
        for n in range(0, count, 7):
            stage.ns = BEGIN_NS + n * 10**9 // 60
            now = stage.store.modulated(stage.ns)
        each_us = (time.thread_time() - began) / (count / 7) * 1e6
        expected = 0.5 + 0.25 * math.sin(2.0 * math.pi * ((stage.ns - BEGIN_NS) / 1e9 * 2.0 / 0.25))
        assert now.value("strength") == pytest.approx(expected, abs=1e-6), "no drift"
        assert heard == [] and stage.store.snapshot is base and stage.errors == []
        assert each_us < 2000.0, f"{each_us:.0f} us for ten modulators"
    finally:
        stage.close()
