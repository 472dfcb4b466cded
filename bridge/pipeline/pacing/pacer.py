"""The output clock: when to send, and which frame.

Finished frames come in bursts (a model gives four at once) and with jitter. They leave one at a time, at a steady
rate, in the rhythm of their source:

* Every frame has a *moment*: its source time, moved to this machine's clock by a slowly followed offset. It is due
  at its moment plus the *delay* of its track. The delay is measured: how long frames take from their moment until
  they are ready, the worst of each tenth of a second, and of those the 95th percentile over the last seconds. It
  grows at once and shrinks slowly.
* At each tick of the clock the next frame that is due is shown; when there is none, the last is repeated. Two frames
  that came close together, after a pause, are both shown: nothing is dropped before it is `BACKLOG` periods behind.
  Where the source gives more frames than the output shows, the newest that is due is shown and older ones are dropped.
* Where the source's rate is the output's (or a whole multiple or part of it), the ticks follow the source's phase by
  at most `PULL` of a period each, as a genlock does. So there is no beat between two almost equal rates, and a frame
  leaves just after it is ready. After a pause they run faster, by as much for each period that they are behind: what
  the pause put off is made up for in a second or two, without a frame being left out. Ticks that are gained so, beyond
  the frames that the source makes, are rationed (`CREDIT`), so that the output's rate stays what it is: where pauses
  are frequent, late frames are dropped instead.

There are two tracks: `wet` (the model's frames) and `dry` (the input). Both run all the time, so that a bypass is
on air at the next tick. The loop of a publisher::

    pacer = Pacer(fps=Fraction(60))                          # None follows the source's rate
    while running:
        sleep_until(pacer.next_ns)
        while (frame := outbox.get()) is not None:
            pacer.wet.offer(frame, outbox.queued_ns)         # when it was ready, not when it was fetched
        pick = pacer.tick(time.monotonic_ns(), "dry" if bypass else "wet")
        if pick.frame is not None:
            sink.send(mix(pick.frame), ...)
            if pick.new:
                pacer.latency.add(pick.frame.captured_ns, time.monotonic_ns())

Everything here but `sleep_until` is arithmetic on times that are handed in; nothing reads a clock, so that hours can
be simulated in a moment. Knows frames, and neither transports nor the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from bridge.pipeline.pacing.latency import LatencyMeter
from bridge.pipeline.pacing.output_clock import OutputClock
from bridge.pipeline.pacing.source import FrameCount, RateMeter
from bridge.pipeline.pacing.track import Track
from engine.frame import Frame

BACKLOG = 4
"""Periods of the output that a frame may be overdue while older ones are still shown before it."""

_NEARLY = Fraction(995, 1000)  # the ticks follow the source over such a difference of rates


@dataclass(frozen=True, slots=True)
class Pick:
    """What one tick shows: a frame (None before the first one), whether it is a new one or a repetition, its track."""

    frame: Frame | None
    new: bool
    track: str


class Pacer:
    """The two tracks and the clock of one output.

    Args:
        fps: output rate; None follows the rate of the dry track's source (30 until it is known).

    Attributes:
        repeated: ticks at which the last frame was shown again.
    """

    def __init__(self, fps: Fraction | None = None) -> None:
        self._follow = fps is None
        self._clock = OutputClock(fps or Fraction(30))
        self._source = RateMeter()
        self._made = FrameCount()
        self.dry, self.wet = Track(), Track()
        self.latency = LatencyMeter()
        self.repeated = 0
        self._shown: dict[str, Frame | None] = {"dry": None, "wet": None}

    @property
    def next_ns(self) -> int:
        """When the next tick is due; 0 before the first."""
        return self._clock.next_ns

    @property
    def fps(self) -> Fraction:
        """The output's rate."""
        return self._clock.fps

    def offer_dry(self, frame: Frame, ready_ns: int, told_fps: float = 0.0) -> None:
        """Hand over an input frame; also finds the source's rate. May be called from another thread.

        Args:
            frame: the input frame.
            ready_ns: when it was ready to be shown.
            told_fps: the rate that the source tells about itself (`SourceInfo.fps`); 0 if it tells none.
        """
        self._source.add(frame.pts_ns, told_fps)
        self._made.add(frame, self._source.fps)
        self.dry.offer(frame, ready_ns)

    def tick(self, now_ns: int, on_air: Literal["wet", "dry"] = "wet") -> Pick:
        """Choose what is shown now and plan the next tick.

        Both tracks advance; the one that is on air leads the clock. A track that never had a frame shows the
        other's.
        """
        source_fps = self._source.fps
        if self._follow and source_fps is not None and source_fps != self._clock.fps:
            self._clock.fps = source_fps
        period = self._clock.period_ns
        locked = source_fps is not None and _commensurate(source_fps, self._clock.fps)
        if abs(now_ns - self._clock.next_ns) > 2 * period:
            self._clock.next_ns = now_ns
        planned = self._clock.next_ns
        early = period // 2 if locked else 0  # the ticks lie close to the due times: take the nearest
        every = source_fps is not None and self._clock.fps >= source_fps * _NEARLY
        slack = max(0, min(BACKLOG * period, int(self._clock.credit_ns))) if every else 0
        picked = {name: track.pick(planned, early, slack) for name, track in (("dry", self.dry), ("wet", self.wet))}
        for name, frame in picked.items():
            if frame is not None:
                self._shown[name] = frame
        other = "dry" if on_air == "wet" else "wet"
        name = on_air if self._shown[on_air] is not None else other
        error = (self.wet if name == "wet" else self.dry).phase_error(planned, period, slack > 0) if locked else 0
        if self._made.any:
            made = self._made.take()
            if made is not None and locked and source_fps is not None:
                made *= _times(self._clock.fps, source_fps)
            else:
                made = None
            self._clock.source_went_on(made)
        self._clock.advance(now_ns, error)
        new = picked[name] is not None
        if not new:
            self.repeated += 1
        return Pick(self._shown[name], new, name)

    def shown(self, track: Literal["wet", "dry"]) -> Frame | None:
        """The frame that a track has come to, on air or not; None before its first."""
        return self._shown[track]

    def forget(self, track: Literal["wet", "dry"]) -> None:
        """Forget a track's frames and measurements (its engine or source is gone)."""
        (self.wet if track == "wet" else self.dry).clear()
        self._shown[track] = None


def _commensurate(a: Fraction, b: Fraction) -> bool:
    """Whether one rate is a whole multiple of the other, to half a percent."""
    ratio = float(max(a, b) / min(a, b))
    return abs(ratio - round(ratio)) < 0.005


def _times(a: Fraction, b: Fraction) -> float:
    """How many times one rate is the other, where they are commensurate."""
    return float(round(a / b)) if a > b else 1.0 / round(b / a)
