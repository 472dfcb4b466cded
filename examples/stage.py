"""A stage of your own: a level that darkens the output, controlled live over OSC.

.venv/bin/python examples/stage.py     # a test picture through it for ten seconds; page at http://127.0.0.1:9001/
tidecast osc send level 0.3            # meanwhile, in another terminal

Arguments are settings, for instance output.uri=ndi:Level.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.app import App
from bridge.config_file import load
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from bridge.pipeline.stages.table import STAGES
from engine.control import live
from engine.frame import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelControls:
    """The controls that the stage obeys."""

    level: float = live(1.0, "/level", "Brightness of the output.", group="Video", label="Level", low=0.0, high=1.0)


class Level(Stage):
    """Multiplies the pixels of every picture that is about to be sent."""

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """Return a darker frame. The pixels of the given one are never changed in place."""
        level = context.controls.of(LevelControls).level
        if level >= 1.0:
            return (frame,)
        return (dataclasses.replace(frame, pixels=(frame.pixels * level).astype(np.uint8)),)


ROW = StageRow("level", Place.TICK, lambda width, height: Level(), LevelControls)

if __name__ == "__main__":
    settings = {"process.kind": "identity", "input.uri": "pattern:dance", "output.uri": "null:"}
    settings |= dict(text.split("=", 1) for text in sys.argv[1:])
    with App(load(None, settings), stages=(*STAGES, ROW)):
        time.sleep(10.0)
