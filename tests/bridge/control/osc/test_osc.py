"""OSC over real UDP sockets: a python-osc-built client, a raw one and liblo's `oscsend`."""

import shutil
import socket
import statistics
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.origin import Origin, Trust
from bridge.control.osc.packet import MAX_DATAGRAM, PacketError, build, coalesce, parse
from bridge.control.osc.server import OscServer
from bridge.control.osc.subscribers import MAX_OF_HOST, MAX_SUBSCRIBERS, SILENCE_SECONDS, Subscribers
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.drills.stress import flood, fuzz, malformed
from bridge.table import TABLE
from engine.control import PREFIX
from engine.errors import ConfigError, PortInUseError, TransportError

WAIT = 5.0


class Client:
    """Sends from and listens on one UDP port."""

    def __init__(self, server):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.server = server.address

    def send(self, address, *args):
        self.raw(build(PREFIX + address, args))

    def raw(self, datagram):
        self.socket.sendto(datagram, self.server)

    def until(self, wanted, seconds=WAIT):
        """The first message for which `wanted(address without prefix, args)`; None when none came in time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return None
            for message in parse(data):
                address = message.address.removeprefix(PREFIX)
                if wanted(address, message.args):
                    return address, message.args
        return None


@pytest.fixture
def stage():
    store, telemetry = ControlStore(TABLE), Telemetry(TABLE)
    with OscServer(store, telemetry, host="127.0.0.1", port=0, inputs=lambda: ["ndi:A (b)", "pattern:"]) as server:
        client = Client(server)
        yield store, telemetry, server, client
        client.socket.close()


def eventually(condition, seconds=WAIT):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def is_at(address):
    return lambda a, args: a == address


def test_a_value_is_set_and_its_effective_value_echoed_with_its_twins(stage):
    store, _, _, client = stage
    client.send("/subscribe", client.port)
    client.send("/slo/latency", 99999)
    assert client.until(lambda a, v: a == "/slo/latency" and v == (2000.0,))
    assert client.until(lambda a, v: a == "/slo/latency/norm" and v == (1.0,))
    assert client.until(lambda a, v: a == "/slo/latency/midi" and v == (127,))
    assert store.snapshot.value("slo_latency") == 2000.0


def test_a_change_from_elsewhere_reaches_every_subscriber(stage):
    store, _, server, client = stage
    other = Client(server)
    for one in (client, other):
        one.send("/subscribe", one.port)
        assert one.until(is_at("/mix"))
    store.set("mix", 0.125, Origin("web:1", Trust.MACHINE))
    for one in (client, other):
        assert one.until(lambda a, v: a == "/mix" and v == (0.125,))
    other.socket.close()


def test_a_new_subscriber_is_told_everything(stage):
    _, telemetry, _, client = stage
    telemetry.update(fps_in=25.0, state="running")
    client.send("/subscribe", client.port)
    missing = {c.address for c in TABLE.controls} | {"/status/fps/in", "/status/state", "/status/heartbeat"}

    def tick(address, args):
        missing.discard(address)
        return not missing

    assert client.until(tick), missing


def test_no_older_value_follows_the_answer_to_a_ping_however_slowly_everything_is_sent(stage, monkeypatch):
    """A component that finds a new process sends its values while that one tells its defaults, on a busy machine."""
    store, _, server, client = stage
    real = server._port._socket

    class Slow:
        def sendto(self, datagram, target):
            time.sleep(0.002)
            return real.sendto(datagram, target)

        def __getattr__(self, name):
            return getattr(real, name)

    monkeypatch.setattr(server._port, "_socket", Slow())
    client.send("/subscribe", client.port)
    assert client.until(is_at(TABLE.controls[0].address))
    client.send("/mask/softness", 0.75)
    client.send("/ping", 5)
    assert client.until(lambda a, v: a == "/pong" and v == (5,))
    assert client.until(lambda a, v: a == "/mask/softness" and v != (0.75,), 1.5) is None
    assert store.snapshot.value("mask_softness") == 0.75


def test_resend_without_a_subscription_answers_the_sender(stage):
    _, _, _, client = stage
    client.send("/resend")
    assert client.until(is_at("/strength")) == ("/strength", (pytest.approx(0.6),))


def test_what_changes_and_the_state_come_ten_times_as_often_as_the_heartbeat_and_the_rest_with_it(stage):
    _, telemetry, _, client = stage
    telemetry.update(state="running", fps_in=25.0, dropped=0)
    client.send("/subscribe", client.port)
    assert client.until(lambda a, v: a == "/status/heartbeat" and v == (2,))
    came = {"/status/state": 0, "/status/fps/in": 0, "/status/dropped": 0}

    def count(address, args):
        if address in came:
            came[address] += 1
        if address == "/status/dropped":
            return True
        if address == "/status/state":  # at every telling
            telemetry.update(fps_in=25.0 + came[address])
        return False

    for _ in range(3):  # with every heartbeat
        assert client.until(count)
    assert came["/status/dropped"] == 3
    assert 20 <= came["/status/state"] <= 40
    assert came["/status/fps/in"] >= came["/status/state"] - 4


def test_errors_are_answered_with_address_and_reason_once_and_go_to_subscribers(stage):
    _, telemetry, server, client = stage
    other = Client(server)
    other.send("/subscribe", other.port)
    assert other.until(is_at("/strength"))
    client.send("/strength", "much")
    wanted = lambda a, v: a == "/error" and v[0] == PREFIX + "/strength" and "'much'" in v[1]  # noqa: E731
    assert client.until(wanted)
    assert other.until(wanted)
    assert not client.until(is_at("/error"), 0.3)
    telemetry.error("engine", "out of memory")
    assert other.until(lambda a, v: a == "/error" and v == ("engine", "out of memory"))
    other.socket.close()


def test_ping_and_inputs_are_answered(stage):
    _, _, _, client = stage
    client.send("/ping", 1, 2.5, "drei", True, b"vier")
    assert client.until(is_at("/pong")) == ("/pong", (1, 2.5, "drei", True, b"vier"))
    client.send("/inputs")
    assert client.until(is_at("/inputs")) == ("/inputs", ("ndi:A (b)", "pattern:"))


def test_a_flood_of_questions_is_answered_a_few_times():
    looks = []

    def look():
        looks.append(threading.active_count())
        time.sleep(0.2)
        return ["pattern:bars"]

    with OscServer(ControlStore(TABLE), Telemetry(TABLE), host="127.0.0.1", port=0, inputs=look) as server:
        client = Client(server)
        for _ in range(300):
            client.send("/inputs")
            client.send("/resend")
        client.send("/ping", 1)
        assert client.until(is_at("/pong"))
        assert client.until(is_at("/inputs"))
        time.sleep(0.3)
        assert len(looks) <= 3
        assert max(looks) <= threading.active_count() + 2
        client.socket.close()


def test_a_value_that_osc_cannot_carry_stops_no_other(stage):
    _, telemetry, _, client = stage
    client.send("/subscribe", client.port)
    assert client.until(is_at("/mix"))
    telemetry.update(input="file:\udcff.mp4", message="x" * 100_000, state="running")
    telemetry.error("file:\udcff.mp4", "gone")
    telemetry.error("output", "late")
    assert client.until(lambda a, v: a == "/error" and v == ("file:?.mp4", "gone"))
    assert client.until(lambda a, v: a == "/error" and v == ("output", "late"))
    assert client.until(is_at("/status/state"))
    assert client.until(lambda a, v: a == "/status/heartbeat" and v[0] >= 2)


def test_a_failing_list_of_inputs_is_answered():
    def broken():
        raise TransportError("No NDI here.", "Install it.")

    with OscServer(ControlStore(TABLE), Telemetry(TABLE), host="127.0.0.1", port=0, inputs=broken) as server:
        client = Client(server)
        client.send("/inputs")
        assert client.until(lambda a, v: a == "/error" and "No NDI here. Install it." in v[1])
        client.socket.close()


def test_a_bad_port_cannot_be_subscribed(stage):
    _, _, _, client = stage
    client.send("/subscribe", 70000)
    assert client.until(lambda a, v: a == "/error" and "70000 is not a UDP port" in v[1])


def test_a_distant_time_tag_is_ignored(stage):
    store, _, _, client = stage
    inner = build(PREFIX + "/mix", (0.5,))
    in_a_century = struct.pack(">II", 2**32 - 1, 0)
    client.raw(b"#bundle\0" + in_a_century + struct.pack(">i", len(inner)) + inner)
    client.send("/motion", 0.5)
    eventually(lambda: store.snapshot.value("mix") == 0.5 and store.snapshot.value("motion") == 0.5)


def nested(depth):
    data = build("/a")
    for _ in range(depth):
        data = b"#bundle\0" + bytes(8) + struct.pack(">i", len(data)) + data
    return data


@pytest.mark.parametrize(
    "datagram",
    [
        b"#bundle\0" + bytes(8) + struct.pack(">i", -4) + b"/a\0\0",
        b"/\xff\xff\0,s\0\0\xff\0\0\0",
        nested(3000),
        b"/a\0\0,b\0\0" + struct.pack(">i", -8),
        b"/a\0\0," + b"[" * 250 + bytes(1),
        b"",
    ],
    ids=["negative size", "not UTF-8", "deep", "negative blob", "open arrays", "empty"],
)
def test_no_single_datagram_stops_the_server(stage, datagram):
    store, _, _, client = stage
    client.raw(datagram)
    client.send("/mix", 0.5)
    eventually(lambda: store.snapshot.value("mix") == 0.5)


def test_a_prompt_of_64_kilobytes_arrives_whole(stage):
    store, _, _, client = stage
    prompt = "ein Wald, 森 " * 3500
    client.send("/subscribe", client.port)
    client.send("/prompt", prompt)
    eventually(lambda: store.snapshot.value("prompt_1") == prompt)
    assert client.until(lambda a, v: a == "/prompt/1" and v == (prompt,))
    with pytest.raises(PacketError, match="do not fit"):
        build("/x", ("x" * MAX_DATAGRAM,))


@pytest.mark.skipif(shutil.which("oscsend") is None, reason="liblo-tools are not installed")
def test_liblos_oscsend_sets_controls(stage):
    store, _, server, _ = stage
    host, port = server.address
    for message in (
        ("/strength", "f", "0.75"),
        ("/steps", "i", "4"),
        ("/prompt", "s", "a stormy sea"),
        ("/bypass", "T"),
        ("/mix/midi", "i", "127"),
        ("/seed", "h", "12"),
        ("/motion", "d", "0.5"),
        ("/reset",),
    ):
        subprocess.run(["oscsend", host, str(port), PREFIX + message[0], *message[1:]], check=True, timeout=60)
    eventually(lambda: store.snapshot.value("resets") == 1)
    now = store.snapshot
    assert (now.value("strength"), now.value("steps"), now.value("prompt_1"), now.value("bypass")) == (
        0.75,
        4,
        "a stormy sea",
        True,
    )
    assert (now.value("mix"), now.value("seed"), now.value("motion")) == (1.0, 12, 0.5)


def test_a_taken_port_is_named_with_its_remedy(stage):
    _, _, server, _ = stage
    port = server.address[1]
    with pytest.raises(PortInUseError, match=f"{port} is already in use.*another port"):
        OscServer(ControlStore(TABLE), Telemetry(TABLE), host="127.0.0.1", port=port).start()
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        OscServer(ControlStore(TABLE), Telemetry(TABLE), host="192.0.2.1", port=port).start()


def test_fifty_starts_and_stops_leave_nothing_behind():
    store = ControlStore(TABLE)
    server = OscServer(store, Telemetry(TABLE), host="127.0.0.1", port=0)
    before = threading.active_count()
    for _ in range(50):
        server.start()
        server.start()
        server.stop()
        server.stop()
    assert threading.active_count() == before
    assert not store._listeners
    assert not any(store._handlers.values())


def test_a_flood_leaves_the_last_values_and_loses_no_trigger_and_delays_no_other_control():
    store = ControlStore(TABLE)
    with OscServer(store, Telemetry(TABLE), host="127.0.0.1", port=0) as server:
        result = flood(store, server.address, seconds=2.0)
    assert result.wrong == []
    assert result.triggers_obeyed == result.triggers_sent > 0
    assert result.growth_mib < 8
    assert result.presses_lost == 0
    assert len(result.press_ms) >= 10
    assert statistics.median(result.press_ms) < 100


def test_after_a_fuzz_it_still_serves():
    store = ControlStore(TABLE)
    with OscServer(store, Telemetry(TABLE), host="127.0.0.1", port=0) as server:
        result = fuzz(store, server.address, 5000)
    assert result.serving
    assert result.answered
    assert result.growth_mib < 16


# The parts without a socket


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_parsed_or_refused(data):
    try:
        parse(data)
    except PacketError as error:
        assert str(error)


def test_malformed_datagrams_are_parsed_or_refused():
    refused = 0
    for datagram in malformed(3000, seed=7):
        try:
            parse(datagram)
        except PacketError:
            refused += 1
    assert 500 < refused < 3000


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text().filter(lambda t: "\0" not in t))))
def test_what_is_built_is_parsed_back(args):
    if len(args) <= 256:
        ((address, back),) = parse(build("/a", args))
        assert address == "/a"
        assert list(back) == args


def test_bundles_keep_their_order_at_every_depth():
    def bundle(*parts):
        return b"#bundle\0" + bytes(7) + b"\1" + b"".join(struct.pack(">i", len(p)) + p for p in parts)

    data = bundle(build("/a", (1,)), bundle(build("/b", (2,)), build("/c")), build("/d", ("x",)))
    assert [m.address for m in parse(data)] == ["/a", "/b", "/c", "/d"]


def test_impulses_and_symbols_are_understood():
    assert parse(b"/a\0\0,I\0\0") == [("/a", (True,))]
    assert parse(b"/a\0\0,S\0\0hey\0") == [("/a", ("hey",))]


def test_coalescing_keeps_the_last_of_each_address_and_everything_around_commands():
    def value(address, *args):
        return build(address, args), "me"

    save = value("/save", 1)
    batch = [
        value("/x", 0.1),
        value("/y", 0.2),
        value("/x", 0.3),
        save,
        value("/x", 0.4),
        value("/x", float("nan")),
        value("/y", 1),
        value("/y", 0.5),
        value("/y", 2),
    ]
    kept = coalesce(batch, (b"/x", b"/y").__contains__)
    assert kept == [batch[1], batch[2], save, batch[4], batch[5], batch[7], batch[8]]


def test_subscriptions_end_after_silence_and_are_limited_in_all_and_for_one_machine():
    book = Subscribers()
    phone, desk = ("10.0.0.2", 9100), ("10.0.0.3", 9100)
    assert book.add(phone, ("10.0.0.2", 50000), 0.0)
    assert book.add(desk, ("10.0.0.3", 50001), 0.0)
    book.renew("10.0.0.2", 20.0)
    assert book.current(SILENCE_SECONDS - 0.1) == (phone, desk)
    assert book.current(SILENCE_SECONDS) == (phone,)
    assert book.current(20.0 + SILENCE_SECONDS) == ()
    for port in range(1, MAX_OF_HOST + 1):
        assert book.add(("10.0.0.4", port), ("10.0.0.4", 1), 100.0)
    assert not book.add(("10.0.0.4", 9), ("10.0.0.4", 1), 100.0)
    for port in range(1, MAX_SUBSCRIBERS + 1 - MAX_OF_HOST):
        assert book.add(("127.0.0.1", port), ("127.0.0.1", 1), 100.0)
    assert not book.add(phone, phone, 100.0)


def test_answers_go_to_the_asker_and_to_its_own_subscription():
    book = Subscribers()
    book.add(("10.0.0.2", 9100), ("10.0.0.2", 50000), 0.0)
    book.add(("10.0.0.2", 9200), ("10.0.0.2", 50001), 0.0)
    assert book.reply_targets(("10.0.0.2", 50000)) == (("10.0.0.2", 50000), ("10.0.0.2", 9100))
    assert len(book.reply_targets(("10.0.0.2", 60000))) == 3
    assert book.reply_targets(("10.0.0.9", 1)) == (("10.0.0.9", 1),)
