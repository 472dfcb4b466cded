"""A MIDI controller that nothing is bound to moves a control through a modulator."""

from __future__ import annotations

from pathlib import Path

import mido
import pytest

from bridge.control.midi.backend import open_backend
from bridge.control.midi.input import MidiInput
from tests.bridge.control.modulation.stage import SECOND, Stage
from tests.fakes import midi_loopback as cables
from tests.support.browser import wait

PORT = "nano KONTROL 24:0"  # with the numbers that ALSA adds


def test_a_controller_is_followed_by_port_and_number(stage: Stage, tmp_path: Path) -> None:
    backend = open_backend("tests.fakes.midi_loopback")
    midi = MidiInput(
        stage.store, tmp_path / "midi.toml", stage.telemetry.error, backend, look_s=0.02, signals=stage.signals
    ).start()
    device = cables.plug(PORT)
    try:
        wait(lambda: PORT in midi.ports, "the port")
        stage.store.set("strength", 0.0)
        stage.say("/mod/1", "strength follow source=midi/nano_KONTROL/77 high=127 depth=1 attack=0 release=0")
        for value in (127, 0, 64):
            device.send(mido.Message("control_change", channel=3, control=77, value=value))
            wait(lambda: (stage.signals.newest("midi/nano_KONTROL/77") or (None,))[0] == value, "the number")  # noqa: B023
            stage.ns += SECOND
            assert stage.value("strength") == pytest.approx(value / 127.0)
        assert stage.base("strength") == 0.0
    finally:
        midi.stop()
        cables.unplug(PORT)
