"""Runs the stages of one place in order, measures their times, and bypasses a stage that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

RETRY_NS = 1_000_000_000
"""How long a stage that failed is bypassed before it is tried again."""

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
        width, height: the model's size in pixels.
        tell: called with (topic, text) when a stage fails, but not with the same text twice in a row.

    The engine takes RGB pictures of the model's size only, so a stage of the input fails as well when it gives others.
    """

    def __init__(
        self, rows: Iterable[StageRow], place: Place, width: int, height: int, tell: Callable[[str, str], None]
    ) -> None:
        self._links = [_Link(row, row.make(width, height)) for row in rows if row.place is place]
        self._tell = tell
        self._engine_takes = (height, width, PixelFormat.RGB.channels) if place is Place.INPUT else None

    def run(self, frame: Frame, context: Context) -> list[Frame]:
        """Run the stages on one frame; returns any number of frames, in the order of their times."""
        frames = [frame]
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
            if self._engine_takes is not None:
                if self._suits(made):
                    refused = None
                elif self._suits(frames):
                    refused = link, frames
            frames = made
        if refused is not None:
            link, given = refused
            self._bypass(link, self._wrong_size(frames[0]), context.now_ns)
            return given
        return frames

    def readings(self) -> dict[str, Any]:
        """The newest value of every reading of these stages, their times included."""
        found: dict[str, Any] = {}
        for link in self._links:
            found[link.row.cost.name] = link.cost_ms
            declared = {reading.name for reading in link.row.readings}
            try:
                values = link.stage.readings()
            except Exception as error:  # as in `run`
                self._report(link, error)
                continue
            found.update({name: value for name, value in values.items() if name in declared})
        return found

    def reset(self) -> None:
        """Reset every stage."""
        for link in self._links:
            try:
                link.stage.reset()
            except Exception as error:  # as in `run`
                self._report(link, error)

    def _suits(self, frames: Iterable[Frame]) -> bool:
        return all(frame.pixels.shape == self._engine_takes for frame in frames)

    def _wrong_size(self, frame: Frame) -> Exception:
        assert self._engine_takes is not None
        height, width, _ = self._engine_takes
        return ValueError(
            f"it gave {frame.format.value} pictures of {frame.width}x{frame.height}; "
            f"the engine takes rgb pictures of {width}x{height} only"
        )

    def _bypass(self, link: _Link, error: Exception, now_ns: int) -> None:
        link.bypassed_until_ns = now_ns + RETRY_NS
        self._report(link, error)

    def _report(self, link: _Link, error: Exception) -> None:
        text = f"The stage {link.row.name} failed and is bypassed: {type(error).__name__}: {error}"
        if text != link.reported:
            link.reported = text
            log.error("the stage %s failed", link.row.name, exc_info=error)
            self._tell(link.row.name, text)
