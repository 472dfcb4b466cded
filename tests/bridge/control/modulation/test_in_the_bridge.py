"""Modulators in a whole bridge, over UDP: stages and engine get values that move with the beat; the base stays."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping, Sequence

import pytest

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.osc.packet import build
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from bridge.pipeline.stages.mix_controls import MixControls
from bridge.pipeline.stages.table import STAGES
from bridge.video.synthetic.null import NullSink
from engine.frame import Frame
from tests.support.browser import wait

SEEN: list[tuple[int, float]] = []


class Watch(Stage):
    """Notes the mix with which the stages of a tick make the picture."""

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        SEEN.append((context.now_ns, context.controls.of(MixControls).mix))
        return [frame]


def test_stages_and_engine_get_modulated_values(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    sent: list[tuple[int, float]] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        if metadata and "strength" in metadata:
            sent.append((time.monotonic_ns(), float(metadata["strength"])))

    monkeypatch.setattr(NullSink, "send", record)
    chosen = {"output.fps": 30.0, "osc.enabled": True, "osc.host": "127.0.0.1", "storage.state_dir": str(tmp_path)}
    chosen |= {"controls.mod_1": "mix sine beats=2 depth=0.5", "controls.mix": 0.5, "controls.strength": 0.5}
    config = load(None, identity("pattern:bars", "null:", 64, 48) | chosen)
    SEEN.clear()
    row = StageRow("watch", Place.TICK, lambda width, height: Watch())
    with App(config, (*STAGES, row)) as app, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
        assert app.osc is not None
        desk.sendto(build("/tidecast/mod/2", ("strength square beats=2 depth=0.4",)), app.osc.address)
        wait(lambda: {s for _, s in sent[-40:]} == {0.3, 0.7}, "the engine gets both values of the square")
        wait(lambda: app.telemetry.snapshot().get("modulated_strength") in (0.3, 0.7), "the value is told")
        tempo, half_ns = app.beat.tempo, app.publisher.pacer.period_ms / 2.0 * 1e6
        wait(lambda: len(SEEN) > 90, "the pictures of three seconds")
        for ns, mix in SEEN[-60:]:
            expected = 0.5 + 0.25 * math.sin(math.pi * tempo.beat_at(ns + half_ns))
            assert mix == pytest.approx(expected, abs=0.03)
        assert max(mix for _, mix in SEEN) > 0.7 and min(mix for _, mix in SEEN) < 0.3
        assert app.store.snapshot.value("mix") == 0.5 and app.store.snapshot.value("strength") == 0.5
        desk.sendto(build("/tidecast/mod/clear", ()), app.osc.address)
        wait(lambda: {s for _, s in sent[-5:]} == {0.5} and SEEN[-1][1] == 0.5, "without modulators, the base")
