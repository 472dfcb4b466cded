"""The programs at both ends of the bridge in benchmarks and drills: a sender and a receiver, each in its own process.

They play the camera and the mixer: they use real transports and share nothing else with the bridge. Both do as little
work as possible, because they run on the machine that is measured: the sender draws its picture once and then only
changes the number in it; the receiver reads the number and every `SAMPLE`th pixel.
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

ANSWER_S = 120.0
"""Longest wait for a peer's answer."""

SAMPLE = 32
"""A receiver takes the mean of every so many pixels, in both directions."""


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
    """A process at one end of the bridge; as a context manager it is ended on exit."""

    def __init__(self, target: Any, *args: Any) -> None:
        self._ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_guard, args=(target, theirs, *args), daemon=True)
        self._process.start()
        theirs.close()
        self.answer()

    def answer(self) -> Any:
        """The next message of the process.

        Raises:
            TidecastError: if the process failed, or did not answer in time.
        """
        if not self._ours.poll(ANSWER_S):
            raise TidecastError("A process of the benchmark does not answer.", "Is the machine overloaded?")
        message = self._ours.recv()
        if isinstance(message, TidecastError):
            raise message
        return message

    def ask(self, *question: Any) -> Any:
        """Send a message and return the answer."""
        self._ours.send(question)
        return self.answer()

    def kill(self) -> None:
        """Kill the process, as a crash would."""
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
    """Sends colour bars, with the frame's number drawn into the picture and the time of sending as metadata."""

    def __init__(self, uri: str, width: int, height: int, fps: int) -> None:
        super().__init__(_send_frames, uri, width, height, fps)

    def resize(self, width: int, height: int) -> None:
        """Continue with another size."""
        self.ask("size", width, height)

    def skipped(self) -> int:
        """Frames skipped since the start or the last change of size because this process was too slow."""
        return int(self.ask("skipped"))

    def times(self) -> dict[int, int]:
        """Frames sent since the last call: number -> `time.monotonic_ns()` when it was sent."""
        return dict(self.ask("times"))


class Receiver(Peer):
    """Receives as a mixer would."""

    def __init__(self, uri: str) -> None:
        super().__init__(_receive, uri)

    def take(self) -> list[Seen]:
        """Every frame since the last call."""
        return list(self.ask("take"))

    def skipped(self) -> int:
        """Frames that arrived since the start but were not read because this process was too slow."""
        return int(self.ask("skipped"))


class SleepProbe(Peer):
    """A process that only sleeps: how late it wakes shows what the machine itself does to every program."""

    def __init__(self) -> None:
        super().__init__(_sleep)

    def take(self) -> float:
        """The latest wake-up since the last call, ms after it was due."""
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


def _send_frames(connection: Connection, uri: str, width: int, height: int, fps: int) -> None:
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
    """Colour bars as BGRA, which NDI accepts without a conversion in this process."""
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
    """Longest time in ms for which the same picture was received: from its first frame to the first of the next."""
    changes = [frame.arrived_ns for last, frame in itertools.pairwise(seen) if _number(last) != _number(frame)]
    times = [frame.arrived_ns for frame in seen[:1]] + changes + [frame.arrived_ns for frame in seen[-1:]]
    return max((b - a for a, b in itertools.pairwise(times)), default=0) / 1e6


def _number(frame: Seen) -> str:
    return frame.metadata.get("seq", "")
