"""Runs the stages of one place in order, measures them, and goes on without one that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from engine.frame import Frame

log = logging.getLogger(__name__)

RETRY_NS = 1_000_000_000
"""How long a stage that failed is left out before it is tried again."""

FOLLOW = 1 / 32
"""Share of the newest frame in the reading of a stage's time."""


class _Link:
    """One stage of a chain, with what is measured of it."""

    def __init__(self, row: StageRow, stage: Stage) -> None:
        self.row = row
        self.stage = stage
        self.cost_ms = 0.0
        self.out_until_ns = 0
        self.said = ""


class StageChain:
    """The stages of one place. Belongs to one thread, but for `readings`.

    Args:
        rows: the table of stages; those of other places are not made.
        place: which of them run here.
        width, height: the model's size in pixels.
        tell: receives (topic, text) when a stage fails, once for each different text.
    """

    def __init__(
        self, rows: Iterable[StageRow], place: Place, width: int, height: int, tell: Callable[[str, str], None]
    ) -> None:
        self._links = [_Link(row, row.make(width, height)) for row in rows if row.place is place]
        self._tell = tell

    def run(self, frame: Frame, context: Context) -> list[Frame]:
        """What the stages make of one frame: any number of frames, in the order of their times."""
        frames = [frame]
        for link in self._links:
            if context.now_ns < link.out_until_ns or not frames:
                continue
            began = time.perf_counter_ns()
            try:
                made = [new for old in frames for new in link.stage.process(old, context)]
            except Exception as error:  # the seam to every stage: the picture goes on without it
                self._leave_out(link, error, context.now_ns)
                continue
            took_ms = (time.perf_counter_ns() - began) / 1e6 / len(frames)
            link.cost_ms += (took_ms - link.cost_ms) * (FOLLOW if link.cost_ms else 1.0)
            frames = made
        return frames

    def readings(self) -> dict[str, Any]:
        """The newest value of every reading of these stages, their times among them."""
        found: dict[str, Any] = {}
        for link in self._links:
            found[link.row.cost.name] = link.cost_ms
            declared = {reading.name for reading in link.row.readings}
            try:
                values = link.stage.readings()
            except Exception as error:  # the seam to every stage, as above
                self._say(link, error)
                continue
            found.update({name: value for name, value in values.items() if name in declared})
        return found

    def reset(self) -> None:
        """Have every stage forget earlier frames."""
        for link in self._links:
            try:
                link.stage.reset()
            except Exception as error:  # the seam to every stage, as above
                self._say(link, error)

    def _leave_out(self, link: _Link, error: Exception, now_ns: int) -> None:
        link.out_until_ns = now_ns + RETRY_NS
        self._say(link, error)

    def _say(self, link: _Link, error: Exception) -> None:
        text = f"The stage {link.row.name} failed and is left out: {type(error).__name__}: {error}"
        if text != link.said:
            link.said = text
            log.exception("the stage %s failed", link.row.name)
            self._tell(link.row.name, text)
