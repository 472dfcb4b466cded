"""`tidecast bench strangers`: what another machine can do to a running bridge, with the bytes in and out.

The stranger sends from a network namespace (`bridge.drills.outsider`), so that it is not taken for a program of this
machine. All traffic stays on this machine and is bounded in number and time. Three bridges with the identity engine are
attacked: one that obeys no other machine, one that obeys any, and one that has the stranger on its list.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import typer

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.osc.client import OscClient
from bridge.control.osc.gate import HOST_BYTES
from bridge.control.osc.packet import PacketError, build, parse
from bridge.drills.outsider import Outsider, outsider
from bridge.drills.start import free_port
from bridge.drills.stress import malformed
from engine.bench.report import say
from engine.control import PREFIX
from engine.errors import EngineError

QUIET_S = 0.5
"""How long answers are collected after the last datagram has been handled."""

HANDLED_S = 30.0
"""Longest wait for an answer to a program of the same machine."""

SEED = 12345
COMPAT_ANSWERS = 8248
"""The port to which StreamDiffusionTD reports."""

RING = """import sys
from engine.distributed.rendezvous import open_store
store = open_store("127.0.0.1", 0, 1, host=True)
print(store.port, flush=True)
sys.stdin.read()
"""
"""The store of a ring on this machine, until its input is closed."""

SILENT = 300
"""Silent TCP connections; the page has 256 places."""

PAGE_S = 2.0
"""Longest time in which the page must answer during the attack."""

FORBIDDEN = ("file:/etc/hostname", "file:{unc}", "screen::0", "camera:/dev/video63", "screen:{there}:{display}")


@dataclass(frozen=True, slots=True)
class Row:
    """One attack.

    Attributes:
        item: the item of the list of attacks, by number.
        attack: what was tried.
        sent, received: bytes from the stranger, and to it.
        result: what happened.
        held: whether the bridge held.
    """

    item: int
    attack: str
    sent: int
    received: int
    result: str
    held: bool


class Stranger:
    """A UDP client of the other machine that counts bytes."""

    def __init__(self, made: Outsider, target: tuple[str, int], port: int = 0) -> None:
        self.socket = made.udp(port)
        self.port = int(self.socket.getsockname()[1])
        self._target = target
        self.sent = self.received = 0
        self.heard: dict[str, Any] = {}

    def say(self, address: str, *args: Any) -> None:
        """Send one message."""
        self.raw(build(PREFIX + address, args))

    def raw(self, datagram: bytes) -> None:
        """Send one datagram."""
        self.sent += len(datagram)
        self.socket.sendto(datagram, self._target)

    def listen(self, seconds: float = QUIET_S) -> int:
        """Count what comes within this time; returns all that came so far, in bytes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self.socket], [], [], left)[0]:
            data = self.socket.recv(65536)
            self.received += len(data)
            with contextlib.suppress(PacketError):
                self.heard.update({m.address.removeprefix(PREFIX): m.args for m in parse(data)})
        return self.received

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def handled(app: App) -> None:
    """Wait until the bridge has handled every datagram that has arrived: it answers a program of this machine."""
    assert app.osc is not None
    with OscClient("127.0.0.1", app.osc.address[1]) as local:
        deadline = time.monotonic() + HANDLED_S
        while not local.answers():
            if time.monotonic() > deadline:
                raise EngineError("The bridge does not answer a program of its own machine.")


@contextlib.contextmanager
def bridge(made: Outsider, *allow: str, page: bool = False) -> Iterator[App]:
    """A bridge that listens to every machine."""
    with tempfile.TemporaryDirectory() as folder:
        settings = identity("pattern:bars", "null:", 320, 176) | {
            "osc.host": "0.0.0.0",
            "osc.allow": list(allow),
            "osc.compat": ["streamdiffusiontd"],
            "osc.compat_port": free_port(socket.SOCK_DGRAM),
            "web.enabled": page,
            "web.host": "0.0.0.0",
            "web.port": 0,
            "web.announce": False,
            "storage.state_dir": folder,
            "storage.record_dir": folder,
        }
        with App(load(None, settings)) as app:
            yield app


def attack_unlisted(made: Outsider, app: App) -> Iterator[Row]:
    """Nobody on the list: nothing is obeyed, nothing answered."""
    assert app.osc is not None
    target = (made.here, app.osc.address[1])
    stranger = Stranger(made, target)
    for _ in range(200):
        stranger.say("/subscribe", stranger.port)
        stranger.say("/resend")
    handled(app)
    came = stranger.listen()
    yield Row(8, "not listed: /subscribe, /resend", stranger.sent, came, "refused", came == 0)
    stranger.close()
    stranger = Stranger(made, target)
    for datagram in malformed(500, seed=3):
        stranger.raw(datagram)
    handled(app)
    came = stranger.listen()
    yield Row(8, "not listed: 500 malformed datagrams", stranger.sent, came, "refused", came == 0)
    stranger.close()
    before = app.store.snapshot
    stranger = Stranger(made, target)
    for address, value in (("/strength", 0.0), ("/black", 1), ("/record", 1), ("/input", "camera:")):
        stranger.say(address, value)
    handled(app)
    came = stranger.listen()
    untouched = app.store.snapshot == before
    yield Row(10, "not listed: strength, black, record, input", stranger.sent, came, "refused", untouched and came == 0)
    stranger.close()


def attack_any(made: Outsider, app: App) -> Iterator[Row]:
    """`any` on the list: obeyed, and sent no more than came, until the word is returned."""
    assert app.osc is not None
    peer = Stranger(made, (made.here, app.config.osc.compat_port), COMPAT_ANSWERS)
    for _ in range(3):
        peer.raw(build("/seed", (1,)))
    came = peer.listen(2.0)
    obeyed = app.store.snapshot.value("seed") == 1
    yield Row(
        8, "any: StreamDiffusionTD's reports", peer.sent, came, "none before the word", obeyed and came <= peer.sent
    )
    peer.close()
    spare = peer.sent - came  # the rule counts what comes from a host, whichever socket it comes from
    stranger = Stranger(made, (made.here, app.osc.address[1]))
    for _ in range(200):
        stranger.say("/subscribe", stranger.port)
        stranger.say("/resend")
        stranger.say("/inputs")
    stranger.listen(3.0)
    word = stranger.heard.get("/echo", ("",))[0]
    stranger.say("/echo", f"{word}x")
    came, sent = stranger.listen(), stranger.sent
    held = word != "" and came <= sent + spare
    yield Row(8, "any: /subscribe, /resend, /inputs", sent, came, "asked for its word", held)
    stranger.say("/subscribe", stranger.port)
    stranger.listen(0.5)
    before = stranger.received
    stranger.say("/echo", *stranger.heard["/echo"])
    told = stranger.listen() - before
    yield Row(8, "any: the same, once its word came back", stranger.sent - sent, told, "subscribed", told > 1000)
    stranger.close()


def attack_listed(made: Outsider, app: App) -> Iterator[Row]:
    """On the list: has a budget, and may not open what is this machine's own."""
    assert app.osc is not None
    target = (made.here, app.osc.address[1])
    stranger = Stranger(made, target)
    others = [made.udp() for _ in range(80)]
    began = time.monotonic()
    for _ in range(20):
        for other in others:
            stranger.say("/subscribe", other.getsockname()[1])
        stranger.say("/resend")
        stranger.listen(0.1)
    taken = len(app.osc.subscribers.current(time.monotonic()))
    came = stranger.received + sum(_drained(other) for other in others)
    limit = HOST_BYTES * (time.monotonic() - began + 1.0)
    result = f"{taken} of {len(others)} subscriptions, {limit / 1e6:.0f} MB allowed"
    yield Row(8, "listed: 80 subscriptions, /resend", stranger.sent, came, result, came <= limit and taken <= 8)
    for other in others:
        other.close()
    trap = made.listen()
    display = trap.getsockname()[1] - 6000
    wanted = [w.format(unc=rf"\\{made.address}\share\x.mp4", there=made.address, display=display) for w in FORBIDDEN]
    before = stranger.sent
    for uri in wanted:
        stranger.say("/input", uri)
    stranger.listen(0.5)
    with OscClient("127.0.0.1", app.osc.address[1]) as local:
        for uri in (wanted[1], wanted[4]):
            local.send(PREFIX + "/input", (uri,))
        answered = local.answers()
    called = bool(select.select([trap], [], [], 1.0)[0])
    kept = app.store.snapshot.value("input") == ""
    result = f"{'refused' if kept else 'OPENED'}, {'connected' if called else 'no connection'} to the stranger"
    yield Row(
        10,
        "listed: file, UNC path, screens, camera",
        stranger.sent - before,
        0,
        result,
        kept and not called and answered,
    )
    trap.close()
    stranger.close()


def _drained(sock: socket.socket) -> int:
    total = 0
    while select.select([sock], [], [], 0.0)[0]:
        total += len(sock.recv(65536))
    return total


def attack_loops(app: App, other: App) -> Iterator[Row]:
    """Subscribed to its own port, and to another instance."""
    assert app.osc is not None and other.osc is not None
    ports = (app.osc.address[1], other.osc.address[1])
    with OscClient("127.0.0.1", ports[0]) as here, OscClient("127.0.0.1", ports[1]) as there:
        here.send(PREFIX + "/subscribe", (ports[0],))
        here.send(PREFIX + "/subscribe", (ports[1],))
        there.send(PREFIX + "/subscribe", (ports[0],))
        here.answers()
        there.answers()
    app.store.set("seed", SEED)
    time.sleep(1.0)
    seeds = app.store.snapshot.value("seed"), other.store.snapshot.value("seed")
    own = any(port == ports[0] for _, port in app.osc.subscribers.current(time.monotonic()))
    held = seeds == (SEED, 0) and not own
    yield Row(9, "its own port and another instance subscribed", 0, 0, f"seed {seeds[0]}", held)


def attack_ring(made: Outsider) -> Iterator[Row]:
    """The store through which the ranks of several GPUs find each other."""
    with subprocess.Popen(
        [sys.executable, "-c", RING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ring:
        assert ring.stdout is not None and ring.stdin is not None
        port = int(ring.stdout.readline() or 0)
        reached = _connects(lambda: socket.create_connection(("127.0.0.1", port), 2.0))
        refused = not _connects(lambda: made.tcp(port))
        ring.stdin.close()
    yield Row(11, "the store of the ranks", 0, 0, "refused" if refused else "connected", reached and refused)


def _connects(connect: Callable[[], socket.socket]) -> bool:
    try:
        connect().close()
    except OSError:
        return False
    return True


def attack_page(made: Outsider, app: App) -> Iterator[Row]:
    """Silent connections, no token, and inputs with the token."""
    assert app.web is not None
    port, token = app.web.port, app.web.token
    silent = []
    for _ in range(SILENT):
        with contextlib.suppress(OSError):
            silent.append(made.tcp(port))
    began = time.monotonic()
    status, _ = _ask(socket.create_connection(("127.0.0.1", port), PAGE_S), "GET", "/api/state", token)
    took = time.monotonic() - began
    result = f"the page answered {status} in {took * 1e3:.0f} ms"
    yield Row(12, f"{len(silent)} silent connections", 0, 0, result, status == 200 and took < PAGE_S)
    for one in silent:
        one.close()
    status, came = _ask(made.tcp(port), "GET", "/api/state", "")
    yield Row(12, "the page without the token", 0, came, f"status {status}", status == 401)
    body = json.dumps({"address": PREFIX + "/input", "args": ["file:/etc/hostname"]})
    _ask(made.tcp(port), "POST", "/api/send", token, body)
    time.sleep(0.5)
    kept = app.store.snapshot.value("input") == ""
    yield Row(10, "the page with the token: a file", len(body), 0, "refused" if kept else "OPENED", kept)


def _ask(connected: socket.socket, method: str, path: str, token: str, body: str | None = None) -> tuple[int, int]:
    """Status and length of the answer; 0 if there is none in time."""
    client = http.client.HTTPConnection(connected.getpeername()[0], connected.getpeername()[1])
    client.sock = connected
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
    try:
        client.request(method, path, body, headers)
        answer = client.getresponse()
        return answer.status, len(answer.read())
    except (OSError, http.client.HTTPException):
        return 0, 0
    finally:
        client.close()


def attacks(made: Outsider) -> Iterator[Row]:
    """Every attack, one after the other."""
    yield from attack_ring(made)
    with bridge(made, page=True) as app:
        yield from attack_unlisted(made, app)
        yield from attack_page(made, app)
    with bridge(made, "any") as app:
        yield from attack_any(made, app)
    with bridge(made, made.address) as app:
        yield from attack_listed(made, app)
        with tempfile.TemporaryDirectory() as folder:
            settings = identity("pattern:bars", "null:", 320, 176) | {"storage.state_dir": folder}
            with App(load(None, settings)) as other:
                yield from attack_loops(app, other)


def strangers() -> None:
    """What another machine can do to a running bridge; exit code 1 if anything."""
    with outsider() as made:
        rows = list(attacks(made))
        unshown = made.unshown
    say(
        "Strangers",
        [
            (str(r.item), r.attack, f"{r.sent:,}", f"{r.received:,}", r.result, "yes" if r.held else "NO")
            for r in sorted(rows, key=lambda r: r.item)
        ],
        [asdict(row) for row in rows],
        ("item", "attack", "bytes from it", "bytes to it", "result", "held"),
    )
    if unshown:
        print(unshown)
    raise typer.Exit(0 if all(row.held for row in rows) else 1)
