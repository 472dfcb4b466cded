"""How long before it is to be seen a change of a control has to be made.

The engine obeys a control from its next chunk on. That chunk begins up to a chunk's time after the change. Its last
frame was captured a while before, the measured wait; its first frame all frames but one earlier still, and that is seen
after the measured latency. Sent earlier by the latency, less the wait and half a chunk, plus a frame, the change is
seen at the edge between two chunks that is nearest to its moment. A stage of the input obeys from the next frame on,
half a frame later in the mean. What is obeyed after the engine is seen at the next tick, half a period later in the
mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge.pipeline.stages.base import Place, StageRow
from engine.control import controls_of
from engine.controls import Controls


class LeadTimes:
    """The lead times of all controls.

    Args:
        stages: the table of stages.
        readings: the newest readings: `latency`, from capture to send, `fps_engine` and `fps_in`.
        chunk_frames: frames of a chunk in the mean; 0 if that is not known.
        waited_ms: how long a chunk's last frame waits from its capture until the chunk is begun, in ms.
        period_ms: time between two ticks of the output, in ms.
    """

    def __init__(
        self,
        stages: Sequence[StageRow],
        readings: Callable[[], Mapping[str, Any]],
        chunk_frames: Callable[[], float],
        waited_ms: Callable[[], float],
        period_ms: Callable[[], float],
    ) -> None:
        owners = [row.controls for row in stages if row.place is Place.INPUT and row.controls is not None]
        self._input = frozenset(control.name for owner in owners for control in controls_of(owner))
        self._engine = frozenset(control.name for control in controls_of(Controls))
        self._readings = readings
        self._chunk_frames = chunk_frames
        self._waited_ms = waited_ms
        self._period_ms = period_ms

    def of(self, name: str) -> float:
        """The lead time of the control of this name, in ms."""
        if name not in self._engine and name not in self._input:
            return self._period_ms() / 2.0
        readings = self._readings()
        latency = float(readings.get("latency", 0.0))
        if name in self._input:
            return latency + _period_ms(readings.get("fps_in", 0.0)) / 2.0
        frame_ms = _period_ms(readings.get("fps_engine", 0.0))
        chunk_ms = frame_ms * self._chunk_frames()
        return max(0.0, latency - self._waited_ms() - chunk_ms / 2.0 + frame_ms)


def _period_ms(fps: float) -> float:
    """Time of a frame; 0 if the rate is not known."""
    return 1000.0 / fps if fps > 0.0 else 0.0
