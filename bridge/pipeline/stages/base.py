"""What a stage is: it changes, adds, drops or makes frames on their way through the bridge.

A stage is one module in this folder and one row of `bridge.pipeline.stages.table`. From that row its controls, its
readings and its time per frame reach OSC, OSCQuery, MIDI, the page and the documents.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.control.values import Snapshot
from bridge.pipeline.canvas.size import Size
from bridge.pipeline.frame_history import FrameHistory
from engine.control import Kind, Reading
from engine.frame import Frame


class Place(enum.Enum):
    """Where in the pipeline a stage runs. Each place belongs to one thread: its stages never run at the same time."""

    INPUT = "input"
    """On every frame that the source gives, before the history and the engine. Together these stages give RGB frames
    of the canvas."""

    RESTYLED = "restyled"
    """On every frame that the engine gives, before it is paced. The results are paced by their own times, so this is
    where a stage may change the frame rate."""

    TICK = "tick"
    """On the picture that is about to be sent, dry or wet, at every tick of the output, repetitions included. A change
    of a control is visible at once."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may use besides its frame.

    Attributes:
        now_ns: `time.monotonic_ns()` of the tick, or of the frame's arrival in other places.
        history: the input frames, by time.
        controls: the values of all live controls; a stage reads its own, `controls.of(ItsControls)`.
        wet: whether the frame came from the engine.
        canvas: width and height of the output in pixels.
    """

    now_ns: int
    history: FrameHistory
    controls: Snapshot
    wet: bool
    canvas: Size


class Stage(abc.ABC):
    """One running stage. Used by one thread, so it may keep state from frame to frame."""

    @abc.abstractmethod
    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """The frames that replace this one: one, several in the order of their times, or none.

        A frame keeps its `pts_ns` and `captured_ns`; one that is interpolated between two others gets times between
        theirs, because frames are matched by time. The pixels passed in must not be changed in place. At a tick one
        picture is sent: the last of several; if there is none, the previous picture again.
        """

    def readings(self) -> Mapping[str, Any]:
        """The newest values of the readings that the row declares. May be called from another thread."""
        return {}

    def give_up(self) -> str:
        """Leave out what makes this stage dearest, until `restore`, because a tick is too short for all stages.

        Returns:
            What it leaves out from now on, in a word or two; empty if there is nothing, and nothing has changed.
        """
        return ""

    def restore(self) -> None:
        """Take up again what was given up."""
        return None

    def reset(self) -> None:
        """Forget earlier frames, because a new engine has started or the engine has stalled."""
        return None


@dataclass(frozen=True, slots=True)
class StageRow:
    """The declaration of one stage.

    Attributes:
        name: unique, a Python identifier; the reading of its time is named after it.
        place: where it runs; within a place, stages run in the order of the table.
        make: creates it, for the model's width and height in pixels, and again when that size changes; the canvas is in
            every `Context`.
        controls: its live controls, a frozen dataclass of `engine.control.live` fields; None if it has none.
        readings: what it reports besides its time.
        budget_ms: longest time that it should take per frame, on the machine that the preset is for.
        plain: values of its controls with which it leaves the picture as it is, for the comparison A/B; for stages
            after the engine. Empty if it takes no part in it.
    """

    name: str
    place: Place
    make: Callable[[int, int], Stage]
    controls: type[Any] | None = None
    readings: tuple[Reading, ...] = ()
    budget_ms: float = 5.0
    plain: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def cost(self) -> Reading:
        """The reading of its measured time per frame."""
        text = f"Time per frame of the stage {self.name}; its budget is {self.budget_ms:g} ms."
        return Reading(f"cost_{self.name}", f"/status/cost/{self.name}", Kind.FLOAT, "ms", text)
