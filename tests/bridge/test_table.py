"""The seam for controls, commands and readings: an owner made here is obeyed, described and shown everywhere, over real
sockets and in a real web process, without a change to any file of Tidecast."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

from bridge.cli import td
from bridge.control.document import markdown
from bridge.control.midi.backend import open_backend
from bridge.control.midi.input import MidiInput
from bridge.control.origin import INTERNAL
from bridge.control.osc.packet import build, parse
from bridge.control.osc.server import OscServer
from bridge.control.oscquery.http import OscQueryServer
from bridge.control.store import Caller, ControlStore
from bridge.control.table import compose
from bridge.control.telemetry import Telemetry
from bridge.table import COMMANDS, GROUPS, TABLE
from bridge.web.launcher import WebProcess
from engine.control import PREFIX, Command, Kind, Reading, command, live
from engine.controls import Controls
from td_components.definition import network
from tests.fakes import midi_loopback as cables

BASE = PREFIX + "/grain"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrainControls:
    """Film grain: what somebody who adds a stage would declare."""

    grain: float = live(0.5, "/grain", "How much grain.", group="Grain", label="Grain", low=0.0, high=2.0, glides=True)
    grain_colour: bool = live(False, "/grain/colour", "Grain in colour.", group="Grain", label="Coloured")
    shakes: int = 0

    @command("/grain/full", "As much grain as there is.", group="Grain", label="Full grain")
    def grain_full(self) -> dict[str, Any]:
        return {"grain": 2.0}

    @command("/grain/shake", "Another pattern.", group="Grain", label="Shake", arguments=(("times", "i", True),))
    def grain_shake(self, times: int) -> dict[str, Any]:
        return {"shakes": self.shakes + times}


DEVELOP = Command("grain_develop", "/grain/develop", (("bath", "s", True),), "Grain", "Develop", "Develop the film.")
SIZE = Reading("grain_size", "/status/grain", Kind.FLOAT, "ms", "Size of the grain in force.")


def extended():
    return compose((*TABLE.owners, GrainControls), (*COMMANDS, DEVELOP), (*TABLE.readings, SIZE), GROUPS)


@pytest.fixture
def show():
    table = extended()
    store, telemetry = ControlStore(table), Telemetry(table)
    with OscServer(store, telemetry, host="127.0.0.1", port=0) as osc:
        yield store, telemetry, osc


class Desk:
    """An OSC client over UDP."""

    def __init__(self, osc):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._server = osc.address
        self.send("/subscribe", self._socket.getsockname()[1])

    def send(self, address, *args):
        self._socket.sendto(build(PREFIX + address, args), self._server)

    def heard(self, address, accept=lambda value: True, seconds=5.0):
        """The next value that comes at an address and is accepted."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            for message in parse(self._socket.recv(65536)):
                if message.address == PREFIX + address and accept(message.args[0]):
                    return message.args[0]
        raise AssertionError(f"nothing came at {address}")


def eventually(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def test_a_new_control_is_obeyed_and_echoed_over_udp_with_both_twins(show):
    store, _, osc = show
    desk = Desk(osc)
    desk.send("/grain", 1.5)
    assert desk.heard("/grain", lambda v: v == 1.5) == 1.5
    assert store.snapshot.of(GrainControls).grain == 1.5
    desk.send("/grain/norm", 0.25)
    assert desk.heard("/grain/norm", lambda v: v == 0.25) == 0.25
    assert store.snapshot.of(GrainControls).grain == 0.5
    desk.send("/grain/midi", 127)
    assert desk.heard("/grain/midi", lambda v: v == 127) == 127
    assert store.snapshot.of(GrainControls).grain == 2.0
    desk.send("/grain", "much")
    assert desk.heard("/error", lambda address: address == BASE) == BASE
    desk.send("/grain/colour", "on")
    eventually(lambda: store.snapshot.of(GrainControls).grain_colour)


def test_a_new_command_is_obeyed_where_it_is_declared_or_by_its_handler(show):
    store, _, osc = show
    desk, developed = Desk(osc), []
    desk.send("/grain/full")
    assert desk.heard("/grain", lambda v: v == 2.0) == 2.0
    desk.send("/grain/shake", 3)
    desk.send("/grain/shake", 4)
    eventually(lambda: store.snapshot.of(GrainControls).shakes == 7)
    desk.send("/grain/develop", "cold")
    assert desk.heard("/error", lambda address: address == f"{BASE}/develop")
    store.on(DEVELOP.name, lambda args, caller: developed.append((args, caller.origin.name.split(":")[0])))
    desk.send("/grain/develop", "warm")
    eventually(lambda: developed == [(("warm",), "osc")])


def test_a_new_reading_goes_to_subscribers(show):
    _, telemetry, osc = show
    desk = Desk(osc)
    telemetry.update(grain_size=0.75)
    assert desk.heard("/status/grain") == 0.75


def test_a_knob_learns_a_new_control_and_a_pad_a_new_command(show, tmp_path):
    import mido

    store, _, _ = show
    midi = MidiInput(store, tmp_path / "midi.toml", pytest.fail, open_backend("tests.fakes.midi_loopback"), look_s=0.05)
    midi.start()
    try:
        device = cables.plug("Grain Desk")
        eventually(lambda: "Grain Desk" in midi.ports)
        learned = []
        midi.learn("grain", Caller(INTERNAL, reply=lambda address, args: learned.append(args[0])))
        for value in (0, 64, 127):
            device.send(mido.Message("control_change", control=9, value=value))
        assert learned == [BASE]
        for value in (0, 32, 127):
            device.send(mido.Message("control_change", control=9, value=value))
        eventually(lambda: store.snapshot.of(GrainControls).grain == 2.0)
        store.set("grain", 0.0)
        midi.learn("/grain/full")
        for _ in range(2):
            device.send(mido.Message("note_on", note=40, velocity=100))
        eventually(lambda: store.snapshot.of(GrainControls).grain == 2.0)
        assert (tmp_path / "midi.toml").read_text().count(BASE) == 2
    finally:
        midi.stop()
        cables.unplug("Grain Desk")


def test_oscquery_describes_it(show):
    store, telemetry, osc = show
    telemetry.update(grain_size=0.75)
    with OscQueryServer(store, telemetry, osc.address, port=0) as server:
        node = get(f"http://127.0.0.1:{server.port}{BASE}")
    assert (node["VALUE"], node["RANGE"], node["TAGS"]) == ([0.5], [{"MIN": 0.0, "MAX": 2.0}], ["Grain"])
    assert set(node["CONTENTS"]) == {"norm", "midi", "colour", "full", "shake", "develop"}
    assert node["CONTENTS"]["shake"]["TYPE"] == "i"


def test_the_page_is_told_of_it_by_its_own_process_and_drives_it(show):
    store, telemetry, _ = show
    web = WebProcess(store, telemetry, 64, 48, port=0)
    web.start()
    try:
        url = f"http://127.0.0.1:{web.port}"
        table = get(f"{url}/api/table")
        assert [row["name"] for row in table["controls"] if row["group"] == "Grain"] == ["grain", "grain_colour"]
        assert [row["name"] for row in table["commands"]][-1] == "grain_develop"
        assert {"grain_full", "grain_shake"} <= {row["name"] for row in table["commands"]}
        assert table["telemetry"][-1]["name"] == "grain_size"
        body = json.dumps({"grain": 1.25}).encode()
        request = urllib.request.Request(f"{url}/api/set", body, {"content-type": "application/json"})
        assert get(request) == {"grain": 1.25}
        eventually(lambda: store.snapshot.of(GrainControls).grain == 1.25)
        eventually(lambda: get(f"{url}/api/state")["controls"]["grain"][0] == 1.25)
    finally:
        web.stop()


def test_documents_and_component_list_it():
    text = markdown(extended())
    for address in ("/grain", "/grain/colour", "/grain/full", "/grain/shake", "/grain/develop", "/status/grain"):
        assert f"| `{address}` |" in text
    assert "0..2, 0.5" in text
    plain = td.table(extended())
    made = {parameter.name for parameter in network.component(plain, "0").parameters}
    assert {"Grain", "Graincolour", "Grainfull", "Statusgrainsize"} <= made


def test_two_owners_with_one_name_or_address_are_refused():
    @dataclass(frozen=True)
    class SameName:
        mix: float = live(1.0, "/other", "x.", group="x", label="x", low=0.0, high=1.0)

    @dataclass(frozen=True)
    class SameAddress:
        other: float = live(1.0, "/mix/norm", "x.", group="x", label="x", low=0.0, high=1.0)

    @dataclass(frozen=True)
    class SameCounter:
        resets: int = 0

    with pytest.raises(ValueError, match="several controls named mix"):
        compose((*TABLE.owners, SameName))
    with pytest.raises(ValueError, match="several rows at /tidecast/mix/norm"):
        compose((*TABLE.owners, SameAddress))
    with pytest.raises(ValueError, match="both have a field 'resets'"):
        ControlStore(compose((*TABLE.owners, SameCounter)))


@pytest.mark.parametrize(
    ("annotation", "declared", "part"),
    [
        (complex, live(1, "/x", "x.", group="x", label="x"), "not complex"),
        (float, live(1.0, "/x", "x.", group="x", label="x"), "needs `low` and `high`"),
        (float, live(1.0, "x", "x.", group="x", label="x", low=0.0, high=1.0), "slash"),
        (float, live(3.0, "/x", "x.", group="x", label="x", low=0.0, high=1.0), "outside the range"),
    ],
)
def test_a_declaration_that_is_no_control_is_refused_by_name(annotation, declared, part):
    owner = dataclasses.make_dataclass("Wrong", [("knob", annotation, declared)], frozen=True)
    with pytest.raises(TypeError, match=r"Wrong\.knob") as caught:
        compose((owner,))
    assert part in str(caught.value)


def test_groups_stand_in_their_order_and_new_ones_after_them():
    order = list(dict.fromkeys(control.group for control in extended().controls))
    assert order == [*GROUPS, "Grain"]
    assert [c for c in extended().controls if c.group != "Grain"] == list(TABLE.controls)


def test_a_fader_changes_its_owner_and_nothing_else():
    store = ControlStore(extended())
    before = store.snapshot
    for number in range(1000):
        store.handle(BASE, [number % 100 / 50])
        store.handle(PREFIX + "/mix/midi", [number % 128])
    for owner in TABLE.owners:
        same = store.snapshot.of(owner) is before.of(owner)
        assert same == (owner.__name__ != "MixControls"), owner
    engine = store.snapshot.of(Controls)
    store.set("strength", engine.strength)
    assert store.snapshot.of(Controls) is engine, "the same value again is no change"
    store.set("strength", 0.25)
    assert store.snapshot.of(Controls) is not engine
    assert before.of(Controls).strength == engine.strength


def test_a_command_that_fails_in_its_owner_is_answered_and_changes_nothing():
    @dataclass(frozen=True)
    class Broken:
        knob: float = live(0.0, "/knob", "x.", group="x", label="x", low=0.0, high=1.0)

        @command("/knob/burst", "x.", group="x", label="x")
        def burst(self) -> dict[str, Any]:
            raise RuntimeError("a defect")

    store, answers = ControlStore(compose((Broken,))), []
    before = store.snapshot
    assert not store.handle(PREFIX + "/knob/burst", [], reply=lambda *answer: answers.append(answer))
    assert "its log says why" in answers[0][1][1]
    assert store.snapshot is before
    assert store.handle(PREFIX + "/knob", [0.5])
