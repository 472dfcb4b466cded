"""The stage that decides how transparent pictures leave. It is the last one: those before it make the alpha.

`fit` takes the alpha of the input along, `mix` gives it to the restyled picture, `mask` cuts the picture out. Outputs
and recordings put colours and alpha together, on threads and in processes of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.pipeline.alpha.controls import LEFT_OUT, OFF, OPAQUE, STATE, AlphaControls
from bridge.pipeline.stages.base import Context, Stage
from bridge.video.alpha import PREMULTIPLIED, opaque
from engine.frame import Frame


class Alpha(Stage):
    """Gives every picture an alpha while outputs send transparency, and takes it away while they do not."""

    def __init__(self) -> None:
        self._state = OFF

    def readings(self) -> Mapping[str, Any]:
        """How the picture leaves."""
        return {STATE.name: self._state}

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frame with an alpha and with what is done with it; the frame itself where nothing is to be changed."""
        mode = context.controls.of(AlphaControls).output_alpha
        if mode == OFF:
            self._state = OFF if frame.alpha is None else LEFT_OUT
            return (frame if frame.alpha is None else dataclasses.replace(frame, alpha=None),)
        alpha = frame.alpha
        self._state = OPAQUE if alpha is None else mode
        if alpha is None:  # an alpha that came and went would change the format of the output
            alpha = opaque(frame.width, frame.height)
        return (dataclasses.replace(frame, alpha=alpha, premultiply=mode == PREMULTIPLIED),)
