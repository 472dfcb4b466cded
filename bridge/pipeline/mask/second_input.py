"""Second inputs of the mask: a matte from elsewhere, and a picture to show behind the person.

They are opened, watched and opened again as the input is (`SourceSwitch`), on the capture thread. Their pictures are
fitted on the thread of their own source and kept in the frame history, where the stage finds them: it waits for none.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from bridge.control.store import ControlStore
from bridge.pipeline.endpoints.source_switch import SourceSwitch
from bridge.pipeline.fit import Fitter
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.controls import MaskControls
from bridge.pipeline.mask.timeline import LOST_NS, Pictures
from bridge.pipeline.stages.fit_controls import FitControls
from bridge.video.base import Options, SourceInfo
from engine.control import PREFIX
from engine.frame import Frame, PixelFormat

MISSING_NS = 3_000_000_000
"""When a picture that is needed has not come for this long it is said, in ns: a network source takes some time to be
found."""

Switch = Callable[[str, str, Callable[[Frame], None]], SourceSwitch]
"""Makes a source: (name of its control, its address, what is to be done with its frames)."""


class SecondInput(abc.ABC):
    """One second input: the source that a control chooses, and its last pictures at the size of the canvas.

    Args:
        control: name of the control.
        address: the control's address.
        pictures: where its pictures are kept.
        history: tells the size of the canvas.
        store: live controls.
        switch: makes the source.

    Attributes:
        what: what it is for.
        control: name of its control.
        source: its source.
        trouble: why a picture that is needed does not come, and what to do; else empty.
    """

    what: str

    def __init__(
        self, control: str, address: str, pictures: Pictures, history: FrameHistory, store: ControlStore, switch: Switch
    ) -> None:
        self.trouble = ""
        self.control, self._address = control, PREFIX + address
        self._pictures, self._history, self._store = pictures, history, store
        self._fitter = Fitter(1, 1)
        self._chosen = ""
        self._since_ns = 0  # since when a picture of this source is needed; 0 for not
        self._told = False
        self.source = switch(control, self._address, self._take)

    def step(self) -> None:
        """Have the source opened that is wanted, and say it when a picture is needed and none comes."""
        self.source.step()
        now_ns = time.monotonic_ns()
        controls = self._store.snapshot
        chosen = str(controls.value(self.control)).strip()
        if not chosen:
            self._pictures.forget()
        if chosen != self._chosen:
            self._chosen, self._since_ns, self._told = chosen, 0, False
        if not self._needed(controls.of(MaskControls)) or self._history.newest is None:
            self._since_ns, self._told, self.trouble = 0, False, ""
            return
        self._since_ns = self._since_ns or now_ns
        waits_ns = now_ns - max(self._pictures.last_ns, self._since_ns)
        if waits_ns <= LOST_NS:
            self._told, self.trouble = False, ""
            return
        why = f"No picture comes for {self.what}. {self.source.problem or 'Is its sender running?'}"
        if not chosen:
            why = f"No input is chosen for {self.what}: choose one at {self._address}."
        self.trouble = f"{why} The whole picture is restyled until one comes."
        if waits_ns > MISSING_NS and not self._told:
            self._told = True
            self.source.complain(self.trouble)

    def _take(self, frame: Frame) -> None:
        """Keep a frame. Called on the source's thread."""
        newest = self._history.newest
        if newest is None:  # the size of the canvas is not known, and there is nothing to mask
            return
        if (self._fitter.width, self._fitter.height) != (newest.width, newest.height):
            self._fitter = Fitter(newest.width, newest.height)
        self._pictures.add(frame.captured_ns, self._fitted(frame, self._store.snapshot.of(FitControls)))

    @abc.abstractmethod
    def _needed(self, controls: MaskControls) -> bool:
        """Whether the mask uses it."""

    @abc.abstractmethod
    def _fitted(self, frame: Frame, how: FitControls) -> np.ndarray:
        """What is kept of a frame, at the size of the canvas."""


class MatteInput(SecondInput):
    """A matte from elsewhere: the alpha channel of a source once any of it was transparent, else its brightness."""

    what = "the matte"
    _transparent: str | None = None  # the address of the source that was seen to be transparent

    def _needed(self, controls: MaskControls) -> bool:
        return controls.needs_matte_input

    def _fitted(self, frame: Frame, how: FitControls) -> np.ndarray:
        if frame.format is not PixelFormat.RGB:
            alpha = np.ascontiguousarray(frame.pixels[:, :, 3])
            if self._transparent != self.source.uri and cv2.minMaxLoc(alpha)[0] < 255:
                self._transparent = self.source.uri
            if self._transparent == self.source.uri:
                frame = Frame(np.asarray(cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB)))
        return np.asarray(cv2.cvtColor(self._fitter.fit(frame, how.fit, how.mirror), cv2.COLOR_RGB2GRAY))


class BackgroundInput(SecondInput):
    """What the rest shows. It is not mirrored, as a performer before a camera is."""

    what = "the background"

    def _needed(self, controls: MaskControls) -> bool:
        return controls.needs_background_input

    def _fitted(self, frame: Frame, how: FitControls) -> np.ndarray:
        return self._fitter.fit(frame, how.fit)


class SecondInputs:
    """The second inputs of the mask. They belong to the capture thread.

    Args:
        history: where their pictures are kept.
        options, store, inputs, tell, wake, defect: as for `SourceSwitch`.

    Attributes:
        inputs: all of them; each has to `step`.
    """

    def __init__(
        self,
        history: FrameHistory,
        options: Options,
        store: ControlStore,
        inputs: Callable[[], Sequence[SourceInfo]],
        tell: Callable[[str, str], None],
        wake: Callable[[], None],
        defect: Callable[[BaseException], None],
    ) -> None:
        def switch(control: str, topic: str, take: Callable[[Frame], None]) -> SourceSwitch:
            return SourceSwitch(control, topic, "", options, store, inputs, take, tell, wake, defect)

        self.inputs: tuple[SecondInput, ...] = (
            MatteInput("mask_input", "/mask/input", history.matte_input, history, store, switch),
            BackgroundInput(
                "mask_background_input", "/mask/background/input", history.background_input, history, store, switch
            ),
        )

    @property
    def trouble(self) -> str:
        """Which picture is missing, why and what to do; empty if none is."""
        return next((second.trouble for second in self.inputs if second.trouble), "")

    def readings(self) -> dict[str, str]:
        """The sources that are open, by the name of their reading, which is that of the control."""
        return {second.control: str(second.source.info or "") for second in self.inputs}
