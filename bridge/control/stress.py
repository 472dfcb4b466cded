"""Measures how OSC stands a flood and a fuzz: `python -m bridge.control.stress`.

The flood is 10,000 messages a second over ten addresses from another process, while a thread of this process
ticks like a video output at 60 Hz. The fuzz is random and malformed datagrams. Prints one table, exits 1 when
a bar is missed. Must not know the engine or video.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from bridge.control.osc import OscServer
from bridge.control.packet import BUNDLE, build, parse
from bridge.control.store import TARGETS, ControlStore
from bridge.control.telemetry import Telemetry
from engine.controls import BY_NAME, PREFIX

FLOODED = (
    "strength", "motion", "mix", "prompt_seconds", "slo_latency", "seed",
    "weight_1", "weight_2", "weight_3", "weight_4",
)  # fmt: skip
"""The ten controls of the flood."""

TRIGGER_EVERY = 1000
"""One `/reset` among this many messages: none of them may be lost."""


@dataclass(slots=True)
class Flood:
    """What a flood did.

    Attributes:
        sent: messages sent.
        rate: messages per second that the sender reached.
        wrong: addresses whose last value was not in force in the end.
        settle_ms: from the last message sent until every last value was in force.
        triggers_sent, triggers_obeyed: resets.
        growth_mib: growth of this process's resident memory.
        late_idle_ms, late_ms: 99th percentile of how late a 60 Hz thread of this process woke, before and
            during the flood.
        cpu: share of one core that this process used.
    """

    sent: int = 0
    rate: float = 0.0
    wrong: list[str] = field(default_factory=list)
    settle_ms: float = 0.0
    triggers_sent: int = 0
    triggers_obeyed: int = 0
    growth_mib: float = 0.0
    late_idle_ms: float = 0.0
    late_ms: float = 0.0
    cpu: float = 0.0


def flood(seconds: float, rate: int = 10_000) -> Flood:
    """Flood a server of this process from another process and measure."""
    store = ControlStore()
    result = Flood()
    context = multiprocessing.get_context("spawn")
    with OscServer(store, Telemetry(), host="127.0.0.1", port=0) as server, _Client(server) as client:
        client.send(build(PREFIX + "/subscribe", (client.port,)))
        result.late_idle_ms = _lateness_ms(min(seconds, 10.0))
        here, there = context.Pipe()
        sender = context.Process(target=_send_flood, args=(there, server.address, seconds, rate), daemon=True)
        sender.start()
        here.recv()  # it is ready
        process = psutil.Process()
        memory, cpu = process.memory_info().rss, process.cpu_times()
        begun = time.monotonic()
        here.send("go")
        result.late_ms = _lateness_ms(seconds)
        result.sent, last, ended, took = here.recv()
        expected = {name: BY_NAME[name].coerce(value) for name, value in last.items()}
        while _differences(store, expected) and time.time() - ended < 5.0:
            time.sleep(0.002)
        result.settle_ms = (time.time() - ended) * 1000.0
        result.wrong = _differences(store, expected)
        spent = process.cpu_times()
        result.cpu = (spent.user + spent.system - cpu.user - cpu.system) / (time.monotonic() - begun)
        result.growth_mib = (process.memory_info().rss - memory) / 2**20
        result.rate = result.sent / took
        result.triggers_sent = result.sent // TRIGGER_EVERY
        result.triggers_obeyed = store.snapshot.resets
        sender.join()
    return result


def _differences(store: ControlStore, expected: dict[str, float]) -> list[str]:
    now = store.snapshot
    return [n for n, v in expected.items() if abs(getattr(now, n) - v) > 1e-4 * max(1.0, abs(v))]


def _send_flood(pipe, address: tuple[str, int], seconds: float, rate: int) -> None:  # type: ignore[no-untyped-def]
    """The sending process: paced in slices of 2 ms; tells (messages, last values, end, duration)."""
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
            control = BY_NAME[name]
            last[name] = struct.unpack(">f", struct.pack(">f", control.from_norm(rng.random())))[0]
            outlet.sendto(build(PREFIX + control.address, (float(last[name]),)), address)
            sent += 1
            if sent % TRIGGER_EVERY == 0:
                outlet.sendto(build(PREFIX + "/reset"), address)
        time.sleep(0.002)
    pipe.send((sent, last, time.time(), time.perf_counter() - begun))


def _lateness_ms(seconds: float) -> float:
    """99th percentile of how late a 60 Hz thread wakes, over some seconds."""
    late: list[float] = []

    def tick() -> None:
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            due += 1 / 60
            time.sleep(max(0.0, due - time.perf_counter()))
            late.append((time.perf_counter() - due) * 1000.0)

    thread = threading.Thread(target=tick)
    thread.start()
    thread.join()
    return statistics.quantiles(late, n=100)[98]


@dataclass(slots=True)
class Fuzz:
    """What a fuzz did: datagrams sent, whether a valid message and a ping still worked, memory growth."""

    sent: int = 0
    serving: bool = False
    answered: bool = False
    growth_mib: float = 0.0


def fuzz(count: int, seed: int = 1) -> Fuzz:
    """Send random and malformed datagrams to a server of this process, then ask whether it still serves."""
    store = ControlStore()
    result = Fuzz()
    with OscServer(store, Telemetry(), host="127.0.0.1", port=0) as server, _Client(server) as client:
        process = psutil.Process()
        memory = process.memory_info().rss
        for datagram in malformed(count, seed):
            client.send(datagram)
            result.sent += 1
            if result.sent % 200 == 0:
                time.sleep(0.002)  # so that most are received rather than dropped by the system
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline and not (result.serving and result.answered):
            client.send(build(PREFIX + "/mix", (0.25,)))
            client.send(build(PREFIX + "/ping", ("still there", count)))
            time.sleep(0.02)
            result.serving = store.snapshot.mix == 0.25
            result.answered = (PREFIX + "/pong", ("still there", count)) in client.messages()
        result.growth_mib = (process.memory_info().rss - memory) / 2**20
    return result


def malformed(count: int, seed: int) -> Iterator[bytes]:
    """Datagrams that are random, cut, flipped, nested, mistyped, too long, or lie about their sizes."""
    rng = random.Random(seed)
    addresses = list(TARGETS)

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
        flipped, bundle, nested, mistyped, not_finite, pattern,
    )  # fmt: skip
    for number in range(count):
        if number % 5000 == 4999:
            yield rng.randbytes(65_000)
        else:
            yield rng.choice(makers)()


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (4 - len(text) % 4)


class _Client:
    """A client on one socket that counts what it gets."""

    def __init__(self, server: OscServer) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._server = server.address
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


def main(
    seconds: Annotated[float, typer.Option(help="How long to flood.")] = 30.0,
    rate: Annotated[int, typer.Option(help="Messages per second of the flood.")] = 10_000,
    datagrams: Annotated[int, typer.Option(help="Datagrams of the fuzz.")] = 100_000,
) -> None:
    """Flood and fuzz the OSC server of this very process; exit 1 when a bar is missed."""
    table = Table("measure", "value", "bar", title=f"OSC under stress ({os.cpu_count()} cores)")
    f = flood(seconds, rate)
    table.add_row("flood: messages (per second)", f"{f.sent} ({f.rate:.0f})", "")
    table.add_row("flood: addresses with a stale last value", str(len(f.wrong)), "0")
    table.add_row("flood: last values in force after", f"{f.settle_ms:.0f} ms", "100 ms")
    table.add_row("flood: triggers obeyed / sent", f"{f.triggers_obeyed} / {f.triggers_sent}", "all")
    table.add_row("flood: memory growth", f"{f.growth_mib:.1f} MiB", "8 MiB")
    table.add_row("flood: a 60 Hz thread wakes late by (p99)", f"{f.late_ms:.2f} ms",
                  f"one frame (idle {f.late_idle_ms:.2f} ms)")  # fmt: skip
    table.add_row("flood: share of one core", f"{f.cpu:.0%}", "")
    z = fuzz(datagrams)
    table.add_row("fuzz: datagrams", str(z.sent), "")
    table.add_row("fuzz: still obeys / answers", f"{z.serving} / {z.answered}", "True / True")
    table.add_row("fuzz: memory growth", f"{z.growth_mib:.1f} MiB", "16 MiB")
    Console().print(table)
    held = not f.wrong and f.settle_ms <= 100 and f.triggers_obeyed == f.triggers_sent
    held = held and f.late_ms < 1000 / 60 and f.growth_mib < 8 and z.growth_mib < 16
    if not (held and z.serving and z.answered):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
