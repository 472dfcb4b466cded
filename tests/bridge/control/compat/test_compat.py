"""The compatibility modes, driven over UDP by message logs in the peers' documented form."""

import json
import socket
import time

import pytest

from bridge.control.compat.dialects import DIALECTS
from bridge.control.compat.server import CompatServer
from bridge.control.osc.packet import build, parse
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.controls import Controls
from engine.errors import ConfigError, PortInUseError

STREAMDIFFUSIONTD_LOG = """
/num_inference_steps 50
/prompt "a marble statue, cinematic"
/t_list 20 35
/guidance_scale 1.2
/delta 0.7
/seed 42
/pause
/play
/prompt_list "[[\\"a forest\\", 0.25], [\\"a fire\\", 1.0], [\\"\\u68ee\\", 0.5]]"
/seed_list "[[7, 0.2], [99, 0.8]]"
/stop
"""

SCOPE_LOG = """
/scope/prompt "A 3D animated scene of a panda"
/scope/transition_steps 8
/scope/denoising_step_list 1000 750 500
/scope/noise_scale 0.85
/scope/noise_controller false
/scope/kv_cache_attention_bias 0.3
/scope/manage_cache true
/scope/reset_cache true
/scope/reset_cache false
/scope/paused true
"""


def messages(log):
    """(address, arguments) of each line; the arguments are JSON values."""
    decoder = json.JSONDecoder()
    for line in log.strip().splitlines():
        address, _, rest = line.partition(" ")
        args = []
        while rest := rest.strip():
            value, end = decoder.raw_decode(rest)
            args.append(value)
            rest = rest[end:]
        yield address, args


class Peer:
    def __init__(self, server):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.server = server

    def play(self, log):
        for address, args in messages(log):
            self.socket.sendto(build(address, args), self.server.address)


def collect(listener, wanted, seconds=5.0):
    """The values received, by address, once all `wanted` addresses have been received."""
    found = {}
    end = time.monotonic() + seconds
    while not wanted <= found.keys():
        listener.settimeout(max(0.001, end - time.monotonic()))
        for message in parse(listener.recv(65536)):
            found.setdefault(message.address, []).append(message.args[0])
    return found


@pytest.fixture(params=["streamdiffusiontd", "scope"])
def dialect(request):
    return request.param


def serve(dialect, telemetry, store, answer_to=None):
    return CompatServer(store, telemetry, dialect, port=0, answer_to=answer_to)


def eventually(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_a_patch_for_streamdiffusiontd_drives_tidecast():
    store, telemetry, errors = ControlStore(TABLE), Telemetry(TABLE), []
    for part in (store, telemetry):
        part.listen_errors(lambda *e: errors.append(e))
    history = []
    store.listen(lambda name, value, origin: history.append((name, value)))
    with serve("streamdiffusiontd", telemetry, store) as server:
        Peer(server).play(STREAMDIFFUSIONTD_LOG)
        eventually(lambda: store.snapshot.value("bypass"))
    now = store.snapshot
    assert ("prompt_1", "a marble statue, cinematic") in history
    assert ("freeze", True) in history
    assert now.value("freeze") is False
    assert (now.value("steps"), now.value("strength")) == (2, pytest.approx(0.6))
    assert now.value("seed") == 99
    assert dict(now.of(Controls).prompts()) == pytest.approx(
        {"a fire": 1 / 1.75, "森": 0.5 / 1.75, "a forest": 0.25 / 1.75}
    )
    assert not errors


def test_a_patch_for_scope_drives_tidecast():
    store, telemetry, errors = ControlStore(TABLE), Telemetry(TABLE), []
    for part in (store, telemetry):
        part.listen_errors(lambda *e: errors.append(e))
    telemetry.update(fps_engine=16.0)
    with serve("scope", telemetry, store) as server:
        Peer(server).play(SCOPE_LOG)
        eventually(lambda: store.snapshot.value("freeze"))
    now = store.snapshot
    assert now.of(Controls).prompts() == (("A 3D animated scene of a panda", 1.0),)
    assert (now.value("steps"), now.value("strength"), now.value("motion"), now.value("resets")) == (
        3,
        pytest.approx(0.85),
        0.0,
        1,
    )
    assert now.value("prompt_seconds") == pytest.approx(2.0)
    assert not errors


TEMPO_OF_RESOLUME = """
/composition/tempocontroller/tempo 0.225
/composition/tempocontroller/tempopush 1
/composition/tempocontroller/tempopush 0
/composition/tempocontroller/tempopull 1
/composition/tempocontroller/tempotap 1
/composition/tempocontroller/tempotap 0
/composition/tempocontroller/resync 1
/composition/tempocontroller/tempo/multiply 1
/composition/tempocontroller/tempo/multiply 0
/composition/tempocontroller/tempo/divide 1
/composition/tempocontroller/beatloop 3
"""


def test_the_tempo_of_resolume_is_ours():
    store, telemetry, errors, pressed = ControlStore(TABLE), Telemetry(TABLE), [], []
    for part in (store, telemetry):
        part.listen_errors(lambda *e: errors.append(e))
    for name in ("tempo_tap", "tempo_resync", "tempo_double", "tempo_halve"):
        store.on(name, lambda args, caller, name=name: pressed.append(name))
    history = []
    store.listen(lambda name, value, origin: history.append((name, value)))
    with serve("resolume", telemetry, store) as server:
        peer = Peer(server)
        peer.play(TEMPO_OF_RESOLUME)
        eventually(lambda: "tempo_halve" in pressed)
        assert pressed == ["tempo_tap", "tempo_resync", "tempo_double", "tempo_halve"], "a release does nothing"
        assert history == [
            ("tempo_bpm", pytest.approx(128.0)),
            ("tempo_bend", 4.0),
            ("tempo_bend", 0.0),
            ("tempo_bend", -4.0),
        ]
        telemetry.update(tempo=128.0)
        peer.play("/composition/tempocontroller/tempoinc 1\n/composition/tempocontroller/tempodec 1")
        eventually(lambda: history[-1] == ("tempo_bpm", 127.0))
        assert history[-2] == ("tempo_bpm", 129.0)
        for source in ("midi", "link"):
            telemetry.update(tempo_source=source)
            peer.play("/composition/tempocontroller/tempo 0.9\n/composition/dashboard/link1 0.25")
            eventually(lambda: history[-1] == ("strength", 0.25))
            assert ("tempo_bpm", pytest.approx(452.0)) not in history, "what others set is not ours to set"
            store.set("strength", 0.5)
        telemetry.update(tempo_source="osc")
        peer.play("/composition/tempocontroller/tempo 17.0")
        eventually(lambda: history[-1] == ("tempo_bpm", 500.0))
        peer.play('/composition/tempocontroller/tempo "fast"')
        eventually(lambda: errors)
    assert errors[0][0] == "/composition/tempocontroller/tempo"


def test_abletonosc_is_asked_for_beats_and_they_are_followed():
    store, telemetry, beats = ControlStore(TABLE), Telemetry(TABLE), []
    store.on("tempo_beat", lambda args, caller: beats.append(args))
    live = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    live.bind(("127.0.0.1", 0))
    live.settimeout(10.0)
    with serve("abletonosc", telemetry, store, live.getsockname()) as server:
        asked = [message for _ in range(2) for message in parse(live.recv(65536))]
        assert [(message.address, list(message.args)) for message in asked] == [
            ("/live/song/start_listen/beat", []),
            ("/live/song/start_listen/tempo", []),
        ]
        live.sendto(build("/live/song/get/beat", (17,)), server.address)
        eventually(lambda: beats == [(17.0,)])
        live.sendto(build("/live/song/get/tempo", (99.0,)), server.address)
        live.sendto(build("/live/song/get/beat", (18,)), server.address)
        eventually(lambda: len(beats) == 2)
        assert store.snapshot.value("tempo_bpm") == 120.0, "only the source that is followed sets the tempo"
        telemetry.update(tempo_source="osc")
        live.sendto(build("/live/song/get/tempo", (99.0,)), server.address)
        eventually(lambda: store.snapshot.value("tempo_bpm") == 99.0)
    live.close()


def test_abletonosc_is_spoken_to_first():
    """Live says nothing until it is asked: the first question goes to where AbletonOSC listens on this machine."""
    server = serve("abletonosc", Telemetry(TABLE), ControlStore(TABLE))
    assert server._targets() == [("127.0.0.1", 11000)]
    assert serve("scope", Telemetry(TABLE), ControlStore(TABLE))._targets() == []


def test_streamdiffusiontd_gets_the_reports_it_expects():
    store, telemetry = ControlStore(TABLE), Telemetry(TABLE)
    telemetry.update(fps_out=25.0, state="running", vram=11.5)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    wanted = {"/server_active", "/stream-info/state", "/stream-info/fps", "/stream-info/error"}
    wanted |= {"/framecount", "/vram/used"}
    with serve("streamdiffusiontd", telemetry, store, listener.getsockname()) as server:
        Peer(server).socket.sendto(build("/seed", ("x",)), server.address)
        found = collect(listener, wanted)
    listener.close()
    assert found["/server_active"][0] == 1
    assert found["/stream-info/state"][0] == "running"
    assert found["/stream-info/fps"][0] == 25.0
    assert found["/vram/used"][0] == 11.5
    assert found["/framecount"] == sorted(found["/framecount"])
    assert "/seed" in found["/stream-info/error"][0]
    assert len(found["/stream-info/fps"]) >= 5 * len(found["/server_active"])


@pytest.mark.parametrize(
    ("dialect", "address", "args"),
    [
        ("streamdiffusiontd", "/prompt", []),
        ("streamdiffusiontd", "/prompt_list", ["not JSON"]),
        ("streamdiffusiontd", "/prompt_list", ["[]"]),
        ("streamdiffusiontd", "/prompt_list", ["[[1]]"]),
        ("streamdiffusiontd", "/prompt_list", ['[[["a"], 1]]']),
        ("streamdiffusiontd", "/prompt_list", ['[["a", 1' + "0" * 400 + "]]"]),
        ("streamdiffusiontd", "/num_inference_steps", [float("inf")]),
        ("streamdiffusiontd", "/seed", ["x"]),
        ("streamdiffusiontd", "/seed_list", ['[["x", 1]]']),
        ("streamdiffusiontd", "/t_list", []),
        ("streamdiffusiontd", "/t_list", [1, "x"]),
        ("streamdiffusiontd", "/tidecast/mix", [0.5]),
        ("scope", "/scope/denoising_step_list", []),
        ("scope", "/scope/noise_scale", ["loud"]),
        ("scope", "/scope/noise_scale", []),
        ("scope", "/scope/paused", [None]),
        ("scope", "/scope/unheard_of", [1]),
    ],
)
def test_what_the_peers_do_not_document_is_reported_and_changes_nothing(dialect, address, args):
    store, telemetry, errors = ControlStore(TABLE), Telemetry(TABLE), []
    for part in (store, telemetry):
        part.listen_errors(lambda *e: errors.append(e))
    before = store.snapshot
    with serve(dialect, telemetry, store) as server:
        Peer(server).socket.sendto(build(address, args), server.address)
        eventually(lambda: errors)
        Peer(server).socket.sendto(b"garbage", server.address)
        eventually(lambda: len(errors) == 2)
    assert errors[0][0] in (address, *(f"/tidecast{a}" for a in ("/seed", "/strength", "/freeze", "/prompt/1")))
    assert store.snapshot == before


def test_every_dialect_has_the_documented_port_and_names_a_taken_one(dialect):
    assert (DIALECTS[dialect].port, DIALECTS[dialect].answer_port) in ((8247, 8248), (8000, 0))
    with (
        serve(dialect, Telemetry(TABLE), ControlStore(TABLE)) as server,
        pytest.raises(PortInUseError, match=f"Stop {dialect}"),
    ):
        CompatServer(ControlStore(TABLE), Telemetry(TABLE), dialect, port=server.address[1]).start()


def test_an_unknown_dialect_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="streamdiffusiontd, scope"):
        CompatServer(ControlStore(TABLE), Telemetry(TABLE), "vdmx")
