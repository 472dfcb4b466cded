"""The stage that blends dry and wet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.mix_controls import MixControls
from engine.frame import Frame


class Mix(Stage):
    """Blends a restyled frame with the input frame of the same time; an input frame passes unchanged."""

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The blend; the frame itself if its input frame is no longer in the history."""
        mix = context.controls.of(MixControls).mix
        if mix >= 1.0 or not context.wet:
            return (frame,)
        dry = context.history.at(frame.captured_ns)
        if dry is None:
            return (frame,)
        if mix <= 0.0:
            return (dry,)
        blended = Image.blend(Image.fromarray(dry.pixels), Image.fromarray(frame.pixels), mix)
        return (dataclasses.replace(frame, pixels=np.asarray(blended)),)
