"""The programs at both ends of the bridge in benchmarks and drills: a sender and a receiver, each a process.

They stand for the camera and the mixer: real transports, nothing shared with the bridge but the wire. Both do as little
as they can, because they share the machine with what is measured: the sender draws its picture once and only the number
anew, the receiver reads the number and every `SAMPLE`th pixel.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import time
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np

from bridge.video.base import Options
from bridge.video.opening import open_sink, open_source
from bridge.video.synthetic.pattern import bars, draw_strip, read_counter
from bridge.video.ticker import Ticker
from engine.errors import TidecastError
from engine.frame import Frame, PixelFormat

_SPAWN = multiprocessing.get_context("spawn")

ANSWER_S = 30.0
"""Longest wait for a peer's answer."""

SAMPLE = 32
"""Pixels between those of which a receiver takes the mean."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame that a receiver got.

    Attributes:
        arrived_ns: `time.monotonic_ns()` when it arrived.
        counter: the number in the test picture; None when it cannot be read.
        mean: mean red, green and blue of the picture, 0..255.
        width, height: pixels.
        metadata: what came with the frame.
    """

    arrived_ns: int
    counter: int | None
    mean: tuple[float, float, float]
    width: int
    height: int
    metadata: dict[str, str]


class Peer:
    """A process at one end. A context manager that ends it."""

    def __init__(self, target: Any, *args: Any) -> None:
        self._ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_guard, args=(target, theirs, *args), daemon=True)
        self._process.start()
        theirs.close()
        self.answer()

    def answer(self) -> Any:
        """The next message of the process.

        Raises:
            TidecastError: it could not do its work, or said nothing in time.
        """
        if not self._ours.poll(ANSWER_S):
            raise TidecastError("A process of the benchmark said nothing.", "Is the machine overloaded?")
        message = self._ours.recv()
        if isinstance(message, TidecastError):
            raise message
        return message

    def ask(self, *question: Any) -> Any:
        """Send a message and return the answer."""
        self._ours.send(question)
        return self.answer()

    def kill(self) -> None:
        """End the process as a crash would."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._ours.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def _guard(target: Any, connection: Connection, *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target(connection, *args)
    except TidecastError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError):
        pass  # the benchmark is over


class Sender(Peer):
    """Sends colour bars. Its frames bear their number, and the time of sending as metadata."""

    def __init__(self, uri: str, width: int, height: int, fps: int) -> None:
        super().__init__(_send, uri, width, height, fps)

    def resize(self, width: int, height: int) -> None:
        """Go on with another size."""
        self.ask("size", width, height)

    def skipped(self) -> int:
        """Frames that this process itself was too slow to make, since the start or the last change of size."""
        return int(self.ask("skipped"))

    def times(self) -> dict[int, int]:
        """When the frames since the last call were sent: `time.monotonic_ns()` by their number."""
        return dict(self.ask("times"))


class Receiver(Peer):
    """Receives as a mixer would."""

    def __init__(self, uri: str) -> None:
        super().__init__(_receive, uri)

    def take(self) -> list[Seen]:
        """Every frame since the last call."""
        return list(self.ask("take"))

    def skipped(self) -> int:
        """Frames that came but that this process itself was too slow to read, since the start."""
        return int(self.ask("skipped"))


class Metronome(Peer):
    """A process that only sleeps: how late it wakes is what the machine does to every program on it."""

    def __init__(self) -> None:
        super().__init__(_sleep)

    def take(self) -> float:
        """How late it woke at worst since the last call, ms."""
        return float(self.ask("take"))


def _sleep(connection: Connection) -> None:
    connection.send("ready")
    worst_ns = 0
    while True:
        due = time.monotonic_ns() + 5_000_000
        asked = connection.poll(0.005)
        if asked:
            connection.recv()
            connection.send(worst_ns / 1e6)
            worst_ns = 0
        else:
            worst_ns = max(worst_ns, time.monotonic_ns() - due)


def _send(connection: Connection, uri: str, width: int, height: int, fps: int) -> None:
    sink = open_sink(uri, Options(width=width, height=height, fps=Fraction(fps)))
    ticker, picture = Ticker(Fraction(fps)), _picture(width, height)
    times: dict[int, int] = {}
    skipped = seq = 0
    connection.send("ready")
    with sink:
        while True:
            due = ticker.wait(0.5)
            if due is not None:
                number = due[0]
                skipped += due[1]
                draw_strip(picture, number)
                now = times[number] = time.monotonic_ns()
                sink.send(Frame(picture, PixelFormat.BGRA, ticker.at(number), now, seq), {"sent_ns": str(now)})
                seq += 1
            if connection.poll():
                match connection.recv():
                    case ("size", width, height):
                        ticker, picture, skipped = Ticker(Fraction(fps)), _picture(width, height), 0
                        connection.send("done")
                    case ("skipped",):
                        connection.send(skipped)
                    case ("times",):
                        connection.send(times)
                        times = {}


def _picture(width: int, height: int) -> np.ndarray:
    """Colour bars as BGRA: NDI takes them from a sender without much work."""
    rgb = bars(0, width, height, Fraction(1))
    return np.ascontiguousarray(np.insert(rgb[:, :, ::-1], 3, 255, axis=2))


def _receive(connection: Connection, uri: str) -> None:
    seen: list[Seen] = []
    with open_source(uri) as source:
        connection.send("ready")
        while True:
            frame = source.read(0.02)
            if frame is not None:
                rgb = frame.rgb()
                red, green, blue = rgb[::SAMPLE, ::SAMPLE].reshape(-1, 3).mean(axis=0).tolist()
                seen.append(
                    Seen(
                        frame.captured_ns,
                        read_counter(rgb),
                        (red, green, blue),
                        frame.width,
                        frame.height,
                        dict(frame.metadata),
                    )
                )
            if connection.poll():
                match connection.recv():
                    case ("take",):
                        connection.send(seen)
                        seen = []
                    case ("skipped",):
                        connection.send(source.skipped)


def longest_gap_ms(seen: list[Seen]) -> float:
    """Longest time between two arrivals in ms; 0 for fewer than two frames."""
    times = [frame.arrived_ns for frame in seen]
    return max((b - a for a, b in itertools.pairwise(times)), default=0) / 1e6


def longest_held_ms(seen: list[Seen]) -> float:
    """Longest time for which frames of one number came, in ms: from the first of them to the first of the next."""
    changes = [frame.arrived_ns for last, frame in itertools.pairwise(seen) if _number(last) != _number(frame)]
    times = [frame.arrived_ns for frame in seen[:1]] + changes + [frame.arrived_ns for frame in seen[-1:]]
    return max((b - a for a, b in itertools.pairwise(times)), default=0) / 1e6


def _number(frame: Seen) -> str:
    return frame.metadata.get("seq", "")
