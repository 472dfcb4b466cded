"""A flood and a fuzz of OSC, and their effect on the controls; `tidecast bench flood` runs them against a whole bridge.

The flood is 10,000 messages a second to ten addresses from another process, while a second client presses and releases
a button that the flood does not touch. The fuzz sends random and malformed datagrams. Needs only the controls: neither
engine nor video.
"""

from __future__ import annotations

import multiprocessing
import random
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import psutil

from bridge.control.osc.packet import BUNDLE, build, parse
from bridge.control.store import ControlStore
from bridge.table import TABLE
from engine.control import PREFIX

FLOODED = (
    "strength",
    "motion",
    "mix",
    "prompt_seconds",
    "slo_latency",
    "seed",
    "weight_1",
    "weight_2",
    "weight_3",
    "weight_4",
)
"""The ten controls of the flood."""

TRIGGER_EVERY = 1000
"""One `/reset` is sent for so many messages; none may be lost."""

PRESS_PERIOD_S = 0.05
LOST_S = 2.0
"""A press that has no effect after this time counts as lost."""


@dataclass(slots=True)
class Flood:
    """What a flood did.

    Attributes:
        sent: messages sent.
        rate: messages per second that the sender reached.
        wrong: controls whose last value did not come into force.
        settle_ms: time from the last message until every last value was in force.
        triggers_sent, triggers_obeyed: resets.
        press_ms: for each press of the button, the time from its message until it was in force.
        presses_lost: presses without effect.
        growth_mib: growth of this process's resident memory.
        cpu: share of one core that this process used.
    """

    sent: int = 0
    rate: float = 0.0
    wrong: list[str] = field(default_factory=list)
    settle_ms: float = 0.0
    triggers_sent: int = 0
    triggers_obeyed: int = 0
    press_ms: list[float] = field(default_factory=list)
    presses_lost: int = 0
    growth_mib: float = 0.0
    cpu: float = 0.0


def flood(store: ControlStore, address: tuple[str, int], seconds: float, rate: int = 10_000) -> Flood:
    """Flood the OSC server at `address` from another process, and watch the `store` to which it writes."""
    result = Flood()
    context = multiprocessing.get_context("spawn")
    with _Client(address) as subscriber, _Client(address) as button:
        subscriber.send(build(PREFIX + "/subscribe", (subscriber.port,)))
        here, there = context.Pipe()
        sender = context.Process(target=_send_flood, args=(there, address, seconds, rate), daemon=True)
        sender.start()
        here.recv()  # the sender is ready
        process = psutil.Process()
        memory, cpu, resets = process.memory_info().rss, process.cpu_times(), store.snapshot.value("resets")
        begun = time.monotonic()
        here.send("go")
        while not here.poll(PRESS_PERIOD_S):
            _press(button, store, result)
        result.sent, last, ended, took = here.recv()
        expected = {name: TABLE.by_name[name].coerce(value) for name, value in last.items()}
        while _differences(store, expected) and time.time() - ended < 5.0:
            time.sleep(0.002)
        result.settle_ms = (time.time() - ended) * 1000.0
        result.wrong = _differences(store, expected)
        spent = process.cpu_times()
        result.cpu = (spent.user + spent.system - cpu.user - cpu.system) / (time.monotonic() - begun)
        result.growth_mib = (process.memory_info().rss - memory) / 2**20
        result.rate = result.sent / took
        result.triggers_sent = result.sent // TRIGGER_EVERY
        result.triggers_obeyed = store.snapshot.value("resets") - resets
        sender.join()
    return result


def _press(button: _Client, store: ControlStore, result: Flood) -> None:
    """Press or release the button, and wait until it is in force."""
    wanted = not store.snapshot.value("bypass")
    begun = time.monotonic()
    button.send(build(PREFIX + TABLE.by_name["bypass"].address, (int(wanted),)))
    while store.snapshot.value("bypass") != wanted:
        if time.monotonic() - begun > LOST_S:
            result.presses_lost += 1
            return
        time.sleep(0.0005)
    result.press_ms.append((time.monotonic() - begun) * 1000.0)


def _differences(store: ControlStore, expected: dict[str, float]) -> list[str]:
    now = store.snapshot
    return [n for n, v in expected.items() if abs(now.value(n) - v) > 1e-4 * max(1.0, abs(v))]


def _send_flood(pipe: Connection, address: tuple[str, int], seconds: float, rate: int) -> None:
    """Main function of the sending process: sends in slices of 2 ms, then (messages, last values, end, duration)."""
    outlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pipe.send("ready")
    pipe.recv()
    rng = random.Random(1)
    last: dict[str, float] = {}
    sent = 0
    begun = time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        while sent < elapsed * rate:
            name = FLOODED[sent % len(FLOODED)]
            control = TABLE.by_name[name]
            last[name] = struct.unpack(">f", struct.pack(">f", control.from_norm(rng.random())))[0]
            outlet.sendto(build(PREFIX + control.address, (float(last[name]),)), address)
            sent += 1
            if sent % TRIGGER_EVERY == 0:
                outlet.sendto(build(PREFIX + "/reset"), address)
        time.sleep(0.002)
    pipe.send((sent, last, time.time(), time.perf_counter() - begun))


SERVING_S = 30.0
"""Longest wait after a fuzz until the datagrams still queued are handled and a valid message is obeyed."""


@dataclass(slots=True)
class Fuzz:
    """What a fuzz did: datagrams sent, whether a valid message and a ping still worked, memory growth."""

    sent: int = 0
    serving: bool = False
    answered: bool = False
    growth_mib: float = 0.0


def fuzz(store: ControlStore, address: tuple[str, int], count: int, seed: int = 1) -> Fuzz:
    """Send random and malformed datagrams to the OSC server at `address`, then check that it still works."""
    result = Fuzz()
    with _Client(address) as client:
        process = psutil.Process()
        memory = process.memory_info().rss
        for datagram in malformed(count, seed):
            client.send(datagram)
            result.sent += 1
            if result.sent % 200 == 0:
                time.sleep(0.002)  # so that most are received rather than dropped by the system
        deadline = time.monotonic() + SERVING_S
        while time.monotonic() < deadline and not (result.serving and result.answered):
            client.send(build(PREFIX + "/mix", (0.25,)))
            client.send(build(PREFIX + "/ping", ("still there", count)))
            time.sleep(0.02)
            result.serving = store.snapshot.value("mix") == 0.25
            result.answered = (PREFIX + "/pong", ("still there", count)) in client.messages()
        result.growth_mib = (process.memory_info().rss - memory) / 2**20
    return result


def malformed(count: int, seed: int) -> Iterator[bytes]:
    """Datagrams that are random, truncated, bit-flipped, nested, mistyped, too long or of a wrong size."""
    rng = random.Random(seed)
    addresses = list(TABLE.targets)

    def valid() -> bytes:
        values = (rng.random(), rng.randint(-(2**31), 2**31 - 1), "päinting", True, b"\x00\xff", "x" * 300)
        return build(rng.choice(addresses), rng.choices(values, k=rng.randint(0, 4)))

    def flipped() -> bytes:
        data = bytearray(valid())
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    def bundle() -> bytes:
        inner = valid()
        size = rng.choice((len(inner), -4, -8, 0, 2**31 - 1, len(inner) + 4, rng.randint(-99, 99)))
        return BUNDLE + rng.randbytes(8) + struct.pack(">i", size) + inner

    def nested() -> bytes:
        data = valid()
        for _ in range(rng.randint(1, 60)):
            data = BUNDLE + bytes(8) + struct.pack(">i", len(data)) + data
        return data

    def mistyped() -> bytes:
        tags = rng.choice((b"", b"i" * 500, b"[[[[", b"]]", b"zq!", b"f", b"b", b"ssss", b"I", b"N", b"t", b"m"))
        address = rng.choice(addresses).encode()
        return _padded(address) + _padded(b"," + tags) + rng.randbytes(rng.randint(0, 24))

    def not_finite() -> bytes:
        return build(rng.choice(addresses), (rng.choice((float("nan"), float("inf"), -float("inf"))),))

    def pattern() -> bytes:
        return build("/" + "".join(rng.choices("tidecas/*?[]{},!-x", k=rng.randint(1, 80))), (0.5,))

    makers = (
        lambda: rng.randbytes(rng.randint(0, 200)),
        lambda: valid()[: rng.randint(0, 40)],
        lambda: _padded(b"/" + rng.randbytes(20)) + rng.randbytes(12),
        flipped,
        bundle,
        nested,
        mistyped,
        not_finite,
        pattern,
    )
    for number in range(count):
        if number % 5000 == 4999:
            yield rng.randbytes(65_000)
        else:
            yield rng.choice(makers)()


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (4 - len(text) % 4)


class _Client:
    """An OSC client on one socket."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._server = server
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, self._server)
        except BlockingIOError:
            time.sleep(0.001)

    def datagrams(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._socket.recv(65536)
            except BlockingIOError:
                return

    def messages(self) -> list[tuple[str, tuple[object, ...]]]:
        return [(m.address, m.args) for d in self.datagrams() for m in parse(d)]
