"""What Tidecast sends does not come back as a message."""

import ipaddress
import socket
import time

import ifaddr
import pytest

from bridge.control.osc.client import OscClient
from bridge.control.osc.gate import WORD, Gate
from bridge.control.osc.loops import Echoes
from bridge.control.osc.packet import Message, build, parse
from bridge.control.osc.server import OscServer
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.control import PREFIX
from tests.bridge.control.osc.test_osc import WAIT, Client, eventually, is_at

SEED = 12345
"""With 128 steps over the whole range of seeds, its `/midi` is 0."""


def serve(**options):
    store, telemetry = ControlStore(TABLE), Telemetry(TABLE)
    return store, telemetry, OscServer(store, telemetry, port=0, **({"host": "127.0.0.1"} | options))


def test_tidecasts_own_port_cannot_be_subscribed():
    store, _, server = serve()
    with server:
        client = Client(server)
        client.send("/subscribe", server.address[1])
        assert client.until(lambda a, v: a == "/error" and "Tidecast's own port" in v[1])
        store.set("seed", SEED)
        client.send("/ping", 1)
        assert client.until(is_at("/pong"))
        time.sleep(0.2)
        assert store.snapshot.value("seed") == SEED
        client.socket.close()


def test_two_instances_that_are_subscribed_to_each_other_leave_each_others_values_alone():
    (one, reports, first), (other, _, second) = serve(), serve()
    told = []
    reports.listen_errors(lambda *error: told.append(error))
    with first, second:
        for server, target in ((first, second), (second, first)):
            Client(server).send("/subscribe", target.address[1])
            eventually(lambda server=server: server.subscribers.current(time.monotonic()))
        one.set("seed", SEED)
        other.set("mix", 0.503)
        time.sleep(1.0)
        assert (one.snapshot.value("seed"), other.snapshot.value("seed")) == (SEED, 0)
        assert (one.snapshot.value("mix"), other.snapshot.value("mix")) == (1.0, 0.503)
        assert len([t for t in told if "another Tidecast" in t[1]]) == 1
        assert len(told) == 1, "and they do not complain to each other"


def test_a_program_that_returns_what_it_gets_changes_nothing():
    store, _, server = serve()
    with server:
        client = Client(server)
        client.send("/subscribe", client.port)
        assert client.until(is_at("/seed/midi"))
        store.set("seed", SEED)
        returned = set()
        while {"/seed", "/seed/norm", "/seed/midi"} - returned:
            client.socket.settimeout(WAIT)
            datagram = client.socket.recv(65536)
            ((address, _),) = parse(datagram)
            if address.startswith(PREFIX + "/seed"):
                client.raw(datagram)
                returned.add(address.removeprefix(PREFIX))
        client.send("/motion", 0.125)
        eventually(lambda: store.snapshot.value("motion") == 0.125)
        assert store.snapshot.value("seed") == SEED
        client.send("/seed/midi", 64)
        eventually(lambda: store.snapshot.value("seed") > SEED)
        client.socket.close()


def test_a_message_that_says_what_was_told_before_another_change_is_obeyed():
    store, _, server = serve()
    with server:
        client = Client(server)
        client.send("/subscribe", client.port)
        assert client.until(is_at("/mix"))
        store.set("mix", 0.5)
        assert client.until(lambda a, v: a == "/mix" and v == (0.5,))
        bundle = b"".join(
            len(m).to_bytes(4, "big") + m for m in (build(PREFIX + "/mix", (0.25,)), build(PREFIX + "/mix", (0.5,)))
        )
        client.raw(b"#bundle\0" + bytes(8) + bundle)
        client.send("/motion", 0.125)
        eventually(lambda: store.snapshot.value("motion") == 0.125)
        assert store.snapshot.value("mix") == 0.5
        client.socket.close()


def test_only_subscribe_and_ping_renew():
    _, _, server = serve()
    with server:
        client = Client(server)
        client.send("/subscribe", client.port)
        assert client.until(is_at("/mix"))
        (until,) = server.subscribers._until.values()
        client.send("/mix", 0.5)
        assert client.until(lambda a, v: a == "/mix" and v == (0.5,))
        assert list(server.subscribers._until.values()) == [until]
        client.send("/ping")
        eventually(lambda: list(server.subscribers._until.values()) > [until])
        client.socket.close()


def test_an_echo_is_compared_as_osc_carries_it():
    echoes = Echoes()
    echoes.sent([("/a", 0.1), ("/b", "text"), ("/c", 3)], 0.0)
    for address, value in (("/a", 0.10000000149), ("/b", "text"), ("/c", 3.0)):
        assert echoes.is_returned(Message(address, (value,)), 1.0)
        assert not echoes.is_returned(Message(address, (value,)), 9.0)
    for address, *values in (("/a", 0.2), ("/b", 1), ("/c", "3"), ("/c", 3, 3), ("/d", None), ("/d",)):
        assert not echoes.is_returned(Message(address, tuple(values)), 1.0)


def lan_address():
    """An IPv4 address of this machine besides loopback: a datagram from it to itself bears it as its sender."""
    found = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return next((a for a in found if not ipaddress.ip_address(a).is_loopback), None)


needs_lan = pytest.mark.skipif(lan_address() is None, reason="this machine has no address but loopback")


class Outsider(Client):
    """A client at an address that is not loopback; counts bytes."""

    def __init__(self, server):
        super().__init__(server)
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((lan_address(), 0))
        self.port = self.socket.getsockname()[1]
        self.sent = 0

    def raw(self, datagram):
        self.sent += len(datagram)
        super().raw(datagram)

    def received(self, seconds):
        """Bytes that come within this time."""
        total, end = 0, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                total += len(self.socket.recv(65536))
            except TimeoutError:
                break
        return total


@needs_lan
def test_a_stranger_is_neither_obeyed_nor_answered():
    store, telemetry, server = serve(host=lan_address())
    told = []
    telemetry.listen_errors(lambda *error: told.append(error))
    with server:
        stranger = Outsider(server)
        for _ in range(50):
            stranger.send("/subscribe", stranger.port)
            stranger.send("/resend")
            stranger.send("/mix", 0.5)
        assert stranger.received(0.5) == 0
        assert store.snapshot.value("mix") == 1.0
        assert [topic for topic, _ in told] == ["osc"]
        stranger.socket.close()


@needs_lan
def test_a_sender_that_any_admits_is_sent_no_more_than_it_sent_until_it_returns_the_word():
    store, telemetry, _ = serve()
    gate = Gate(["any"], telemetry.error)
    with OscServer(store, telemetry, host=lan_address(), port=0, gate=gate, inputs=lambda: ["x" * 999]) as server:
        guest = Outsider(server)
        for _ in range(50):
            guest.send("/subscribe", guest.port)
            guest.send("/resend")
            guest.send("/inputs")
            guest.send("/nothing/there")
        assert 0 < guest.received(0.7) <= guest.sent
        assert not server.subscribers.current(time.monotonic())
        guest.send("/mix", 0.5)
        eventually(lambda: store.snapshot.value("mix") == 0.5)
        guest.send("/subscribe", guest.port)
        address, (word,) = guest.until(is_at(WORD.removeprefix(PREFIX)))
        guest.send(address, word)
        assert guest.until(is_at("/strength"))
        guest.socket.close()


@needs_lan
def test_our_own_client_returns_the_word():
    store, telemetry, _ = serve()
    gate = Gate(["any"], telemetry.error)
    with (
        OscServer(store, telemetry, host=lan_address(), port=0, gate=gate) as server,
        OscClient(*server.address) as client,
    ):
        heard = client.watch(5.0)
        assert any(message.address == PREFIX + "/status/heartbeat" for message in heard)


@needs_lan
def test_a_listed_controller_needs_to_return_nothing():
    store, telemetry, _ = serve()
    gate = Gate([lan_address()], telemetry.error)
    with OscServer(store, telemetry, host=lan_address(), port=0, gate=gate) as server:
        plain = Outsider(server)
        plain.send("/subscribe", plain.port)
        assert plain.until(is_at("/strength"))
        plain.send("/mix", 0.5)
        assert plain.until(lambda a, v: a == "/mix" and v == (0.5,))
        plain.socket.close()
