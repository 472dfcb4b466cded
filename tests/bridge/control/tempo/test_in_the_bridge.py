"""The beat in a whole bridge: a change that is asked for over OSC reaches the output on the beat; the page knows."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Mapping

import pytest

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.osc.packet import build
from bridge.pipeline.pacing.latency import LatencyMeter
from bridge.video.synthetic.null import NullSink
from engine.frame import Frame
from tests.support.browser import wait

pytestmark = pytest.mark.alone


def test_a_prompt_reaches_the_output_on_the_beat(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    sent: list[tuple[int, str]] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        sent.append((time.monotonic_ns(), (metadata or {}).get("steps", "")))

    monkeypatch.setattr(NullSink, "send", record)
    chosen = {"output.fps": 30.0, "osc.enabled": True, "osc.host": "127.0.0.1", "osc.port": 0}
    chosen |= {
        "web.enabled": True,
        "web.port": 0,
        "web.announce": False,
        "storage.state_dir": str(tmp_path),
        "storage.cues": str(tmp_path / "show.toml"),
        "controls.slo_auto": False,
    }
    (tmp_path / "show.toml").write_text('[[cue]]\nname = "Intro"\nset = { mix = 0.25 }\n')
    config = load(None, identity("pattern:bars", "null:", 64, 48) | chosen)
    with App(config) as app, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
        assert app.osc is not None and app.web is not None
        address, page = app.osc.address, app.web.url
        wait(lambda: any(steps == "2" for _, steps in sent), "restyled frames are sent")
        pacer = app.publisher.pacer
        pacer.latency = LatencyMeter()  # what came late at the start of the programs does not count
        wait(lambda: pacer.latency.count > 20, "the latency is measured")
        for name, value in (("bpm", 40.0), ("resync", 1)):
            desk.sendto(build(f"/tidecast/tempo/{name}", (value,)), address)
        desk.sendto(build("/tidecast/snap", ("2-bars",)), address)
        wait(lambda: app.store.snapshot.value("snap") == "2-bars", "snap is on")
        desk.sendto(build("/tidecast/steps", (3,)), address)

        def pending() -> list[dict[str, object]]:
            with urllib.request.urlopen(f"{page}api/state", timeout=30) as answer:
                found: list[dict[str, object]] = json.load(answer)["pending"]
                return found

        wait(lambda: [row["what"] for row in pending()] == ["steps"], "the page is told what waits")
        assert app.store.snapshot.value("steps") == 2
        assert app.telemetry.snapshot()["snap_lookahead"] >= 0.0
        desk.sendto(build("/tidecast/snap", ("beat",)), address)
        wait(lambda: any(steps == "3" for _, steps in sent), "the change is seen")
        seen_ns = next(ns for ns, steps in sent if steps == "3")
        place = (app.beat.tempo.beat_at(seen_ns) + 0.5) % 1.0 - 0.5
        assert abs(place) * 1.5 < 0.3, "s from a beat; beats are 1.5 s apart"
        wait(lambda: pending() == [], "nothing waits any more")
        for _ in range(3):
            desk.sendto(build("/tidecast/tempo/bpm", (float("nan"),)), address)
        wait(lambda: app.telemetry.snapshot()["tempo"] == 40.0, "nonsense changes nothing")
        desk.sendto(build("/tidecast/snap", ("off",)), address)
        desk.sendto(build("/tidecast/cue/go", (1,)), address)
        wait(lambda: app.store.snapshot.value("mix") == 0.25, "the first cue of the list that the configuration names")
        wait(lambda: app.telemetry.snapshot().get("cue") == "Intro", "its name")

        def listed() -> list[str]:
            with urllib.request.urlopen(f"{page}api/state", timeout=30) as answer:
                return [row["name"] for row in json.load(answer)["cues"]["rows"]]

        wait(lambda: listed() == ["Intro"], "the list on the page")
    with App(config) as again:
        assert again.store.snapshot.value("tempo_bpm") == again.beat.tempo.shown_bpm == 40.0
        wait(lambda: again.telemetry.snapshot().get("cue") == "Intro", "its place after a restart")
        assert again.store.snapshot.value("mix") == 1.0
