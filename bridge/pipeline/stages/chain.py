"""Runs the stages of one place in order, measures their times, and bypasses a stage that fails."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from bridge.pipeline.canvas.size import Size
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from engine.frame import Frame, PixelFormat

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRY_NS = 1_000_000_000
"""How long a stage that failed is bypassed before it is tried again."""

TOO_LONG = 30
"""Ticks in a row that all stages together may take too long for before one of them has to give something up."""

AGAIN_NS, AGAIN_MOST_NS = 10_000_000_000, 160_000_000_000
"""After this long what was given up is tried again; after twice as long each further time, up to the second figure."""

SMOOTHING = 1 / 32
"""Weight of the newest frame in the average of a stage's time."""


class _Link:
    """One stage of a chain and its state."""

    def __init__(self, row: StageRow, stage: Stage) -> None:
        self.row = row
        self.stage = stage
        self.cost_ms = 0.0
        self.bypassed_until_ns = 0
        self.reported = ""


class StageChain:
    """The stages of one place. Used by one thread, except `readings`.

    Args:
        rows: the table of stages; only those of `place` are used.
        place: where this chain runs.
        width, height: the model's size in pixels; see `remake`.
        tell: called with (topic, text) when a stage fails, but not with the same text twice in a row.

    History and engine take RGB pictures of the canvas only, so a stage of the input fails as well when it gives others.
    """

    def __init__(
        self, rows: Iterable[StageRow], place: Place, width: int, height: int, tell: Callable[[str, str], None]
    ) -> None:
        self._links = [_Link(row, row.make(width, height)) for row in rows if row.place is place]
        self._tell = tell
        self._took_ms = 0.0  # by the frame that was run last
        self._too_long = 0
        self._given_up: list[tuple[_Link, str]] = []
        self._again_ns = 0
        self._pause_ns = AGAIN_NS
        self._checks = place is Place.INPUT

    def run(self, frame: Frame, context: Context) -> list[Frame]:
        """Run the stages on one frame; returns any number of frames, in the order of their times."""
        frames, started = [frame], time.perf_counter_ns()
        refused: tuple[_Link, list[Frame]] | None = None  # a stage that gave what the engine refuses, and its input
        for link in self._links:
            if context.now_ns < link.bypassed_until_ns or not frames:
                continue
            began = time.perf_counter_ns()
            try:
                made = [new for old in frames for new in link.stage.process(old, context)]
            except Exception as error:  # whatever a stage raises, the picture goes on without it
                self._bypass(link, error, context.now_ns)
                continue
            took_ms = (time.perf_counter_ns() - began) / 1e6 / len(frames)
            link.cost_ms += (took_ms - link.cost_ms) * (SMOOTHING if link.cost_ms else 1.0)
            if self._checks:
                if _suits(made, context.canvas):
                    refused = None
                elif _suits(frames, context.canvas):
                    refused = link, frames
            frames = made
        if refused is not None:
            link, given = refused
            self._bypass(link, _wrong_size(frames[0], context.canvas), context.now_ns)
            return given
        self._took_ms = (time.perf_counter_ns() - started) / 1e6
        return frames

    def remake(self, width: int, height: int) -> None:
        """Make every stage anew, for another size of the model. One that cannot be made is reported and kept."""
        self._given_up = []
        for link in self._links:
            stage = self._asked(link, functools.partial(link.row.make, width, height))
            link.stage = link.stage if stage is None else stage

    def keep_within(self, limit_ms: float, now_ns: int) -> None:
        """Have stages give up refinements while all of them together take longer than `limit_ms`, the dearest first;
        call it after every tick."""
        self._too_long = self._too_long + 1 if self._took_ms > limit_ms else 0
        if self._too_long >= TOO_LONG:
            self._too_long = 0
            for link in sorted(self._links, key=lambda link: -link.cost_ms):
                if what := self._asked(link, link.stage.give_up):
                    self._given_up.append((link, what))
                    self._again_ns = now_ns + self._pause_ns
                    self._tell(
                        link.row.name,
                        f"The stages take {self._took_ms:.0f} ms of the {limit_ms:.0f} ms that they may take for a "
                        f"picture, so {what} is left out. A smaller output or fewer pictures per second would hold it.",
                    )
                    return
        elif self._given_up and now_ns >= self._again_ns:
            self._pause_ns = min(2 * self._pause_ns, AGAIN_MOST_NS)
            given_up, self._given_up = self._given_up, []
            for link, _ in given_up:
                self._asked(link, link.stage.restore)

    def readings(self) -> dict[str, Any]:
        """The newest value of every reading of these stages, their times included."""
        found: dict[str, Any] = {}
        for link in self._links:
            found[link.row.cost.name] = link.cost_ms
            declared = {reading.name for reading in link.row.readings}
            values = self._asked(link, link.stage.readings) or {}
            found.update({name: value for name, value in values.items() if name in declared})
        return found

    @property
    def given_up(self) -> tuple[str, ...]:
        """What stages leave out now, in words."""
        return tuple(what for _, what in self._given_up)

    def reset(self) -> None:
        """Reset every stage."""
        for link in self._links:
            self._asked(link, link.stage.reset)

    def _asked(self, link: _Link, request: Callable[[], T]) -> T | None:
        """What a stage answers; None if it fails, which is reported."""
        try:
            return request()
        except Exception as error:  # as in `run`
            self._report(link, error)
            return None

    def _bypass(self, link: _Link, error: Exception, now_ns: int) -> None:
        link.bypassed_until_ns = now_ns + RETRY_NS
        self._report(link, error)

    def _report(self, link: _Link, error: Exception) -> None:
        text = f"The stage {link.row.name} failed and is bypassed: {type(error).__name__}: {error}"
        if text != link.reported:
            link.reported = text
            log.error("the stage %s failed", link.row.name, exc_info=error)
            self._tell(link.row.name, text)


def _suits(frames: Iterable[Frame], canvas: Size) -> bool:
    return all(frame.format is PixelFormat.RGB and (frame.width, frame.height) == canvas for frame in frames)


def _wrong_size(frame: Frame, canvas: Size) -> Exception:
    return ValueError(
        f"it gave {frame.format.value} pictures of {frame.width}x{frame.height}; "
        f"after it only rgb pictures of {canvas[0]}x{canvas[1]} are taken"
    )
