"""What a stage is: something that changes, adds, leaves out or makes pictures on their way through the bridge.

A stage is one module in this folder and one row of `bridge.pipeline.stages.table`. Its controls, its readings and its
time per frame reach OSC, OSCQuery, MIDI, the page and the documents from that row. Knows frames, no transport, no
engine.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.control.values import Snapshot
from bridge.pipeline.frame_history import FrameHistory
from engine.control import Kind, Reading
from engine.frame import Frame


class Place(enum.Enum):
    """Where on a frame's way a stage runs. A place is one thread: its stages never run at the same time."""

    INPUT = "input"
    """Every frame that the source gives, before the history and the engine."""

    RESTYLED = "restyled"
    """Every frame that the engine gives, before it is paced. What leaves here is sent by its own times, so that this is
    where a stage may change the rate."""

    TICK = "tick"
    """The picture that is about to leave, dry or wet, at every tick of the output, repetitions included: what changes
    here is seen at once."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may look at beside its frame.

    Attributes:
        now_ns: `time.monotonic_ns()` of the tick, or of the frame's arrival where there is no tick.
        history: the input frames, by time.
        controls: the values of all live controls; a stage reads its own, `controls.of(ItsControls)`.
        wet: whether the frame came from the engine.
    """

    now_ns: int
    history: FrameHistory
    controls: Snapshot
    wet: bool


class Stage(abc.ABC):
    """One stage at work. Belongs to one thread; may keep what it needs from frame to frame."""

    @abc.abstractmethod
    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        """What goes on instead of this frame: one frame, several in the order of their times, or none.

        A frame keeps `pts_ns` and `captured_ns`; one that is made between two others has times between theirs, for
        frames are matched by time. Pixels that came in are never changed in place. At a tick one picture leaves: of
        several the last; of none, the picture that was shown before.
        """

    def readings(self) -> Mapping[str, Any]:
        """The newest values of the readings that the row declares. May be called from another thread."""
        return {}

    def reset(self) -> None:
        """Forget earlier frames: the engine is another, or gave nothing for so long that they are past."""
        return None


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage as the bridge knows it before it runs.

    Attributes:
        name: unique, a Python name; the reading of its time is called after it.
        place: where it runs; within a place, in the order of the table.
        make: makes it, for the model's width and height in pixels.
        controls: its live controls, a frozen dataclass of `engine.control.live` fields; None if it has none.
        readings: what it reports beside its time.
        budget_ms: what it should take for each frame, at most, on the machine that the preset is for.
    """

    name: str
    place: Place
    make: Callable[[int, int], Stage]
    controls: type[Any] | None = None
    readings: tuple[Reading, ...] = ()
    budget_ms: float = 5.0

    @property
    def cost(self) -> Reading:
        """The reading of its measured time per frame."""
        text = f"Time per frame of the stage {self.name}; its budget is {self.budget_ms:g} ms."
        return Reading(f"cost_{self.name}", f"/status/cost/{self.name}", Kind.FLOAT, "ms", text)
