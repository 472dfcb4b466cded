"""`tidecast bench window`: whether a display of this machine keeps up with the output."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from typing import Annotated

import typer

from bridge.service import Service
from bridge.video.base import Options, Source
from bridge.video.opening import open_sink, open_source
from bridge.video.synthetic.pattern import bars, read_counter
from bridge.video.window.transport import WindowSink
from engine.bench.report import say
from engine.frame import Frame

PICTURES = 30
"""Different pictures that are made beforehand."""

SETTLE_S = 1.0
"""Not measured: the first pictures, for which the driver prepares itself."""


class Photographer:
    """Photographs the desktop as often as it can, and notes which pictures it sees."""

    def __init__(self, fps: int) -> None:
        self.numbers: list[int] = []
        self._source: Source = open_source("screen:", Options(fps=Fraction(2 * fps)))
        self._service = Service("photographs", self._run)
        self._service.start()

    def _run(self) -> None:
        while not self._service.stopping.is_set():
            frame = self._source.read(0.1)
            if frame is not None and (number := read_counter(frame.pixels)) is not None:
                self.numbers.append(number)

    def stop(self) -> None:
        """Stop, and close the camera."""
        self._service.stop()
        self._source.close()


def window(
    display: Annotated[int, typer.Argument(help="The display to fill; 1 is the main one.")] = 1,
    width: Annotated[int, typer.Option(help="Width of the pictures in pixels.")] = 1920,
    height: Annotated[int, typer.Option(help="Height of the pictures in pixels.")] = 1080,
    fps: Annotated[int, typer.Option(help="Pictures per second.")] = 60,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 10.0,
    photograph: Annotated[bool, typer.Option("--photograph", help="Photograph the screen meanwhile (X11).")] = False,
) -> None:
    """Whether a display keeps up: numbered pictures at a steady rate, and how many of them the window showed.

    Exit code 1 if it showed fewer than 98 of 100.
    """
    rate = Fraction(fps)
    pictures = [bars(number, width, height, rate) for number in range(PICTURES)]
    with open_sink(f"window:{display}", Options(width, height, rate)) as sink:
        assert isinstance(sink, WindowSink)
        photographer = Photographer(fps) if photograph else None
        sent, longest_s, shown = 0, 0.0, 0
        begin = time.monotonic()
        while (now := time.monotonic()) < begin + SETTLE_S + seconds:
            if sent == round(SETTLE_S * fps):
                shown, longest_s = sink.shown, 0.0
            time.sleep(max(0.0, begin + sent / fps - now))
            before = time.monotonic()
            sink.send(Frame(pictures[sent % PICTURES], seq=sent))
            longest_s = max(longest_s, time.monotonic() - before)
            sent += 1
        time.sleep(2 * SETTLE_S / 4)  # the window tells its count four times a second
        shown, sent = sink.shown - shown, sent - round(SETTLE_S * fps)
        where = sink.where
        seen = None
        if photographer is not None:
            photographer.stop()
            seen = sum(a != b for a, b in itertools.pairwise(photographer.numbers))
    passed = shown >= 0.98 * sent
    row = {
        "where": where,
        "size": f"{width}x{height}",
        "fps": fps,
        "sent": sent,
        "shown": shown,
        "seen_in_photographs": seen,
        "longest_send_ms": round(1e3 * longest_s, 1),
        "passed": passed,
    }
    say(
        f"Pictures of {width}x{height} at {fps} a second on {where}",
        [
            ("sent / shown by the window", f"{sent} / {shown} ({shown / seconds:.1f} a second)"),
            *(
                []
                if seen is None
                else [("different ones in photographs of the screen", f"{seen / (seconds + SETTLE_S):.1f} a second")]
            ),
            ("longest time that the output waited for the window", f"{row['longest_send_ms']:.1f} ms"),
            ("passed", "yes" if passed else "NO"),
        ],
        [row],
    )
    raise typer.Exit(0 if passed else 1)
