"""The pacer: decides when a frame is sent, and which one.

Finished frames come in bursts (a model gives four at once) and with jitter. They are sent one at a time, at a steady
rate, in the rhythm of their source:

* Every frame has a *local time*: its source time converted to this machine's clock. It is due at its local time plus
  the *delay* of its track. The delay is measured as in an adaptive jitter buffer: the time from a frame's local time
  until it is ready, the longest in each tenth of a second, and of these the 95th percentile over the last seconds. It
  grows at once and shrinks slowly.
* At each tick of the clock the next frame that is due is shown; when there is none, the last one is repeated. Two
  frames that come close together after a pause are both shown: no frame is dropped before it is `BACKLOG` periods
  late. Where the source gives more frames than the output shows, the newest one due is shown and older ones are
  dropped.
* Where the source's rate equals the output's, or one is a whole multiple of the other, the ticks follow the source's
  phase, as with genlock, by at most `MAX_PULL` of a period each. This avoids a beat between two almost equal rates, and
  a frame is sent just after it is ready. After a pause the ticks run faster, in proportion to how far they are behind:
  delayed frames are caught up with in a second or two, and none is dropped. The extra ticks that this takes are limited
  (`CREDIT_RATE`), so that the output keeps its rate; if pauses are frequent, late frames are dropped instead.

There are two tracks: `wet` (the model's frames) and `dry` (the input). Both run all the time, so that a bypass takes
effect at the next tick. The loop of a publisher::

    pacer = Pacer(fps=Fraction(60))                          # None follows the source's rate
    while running:
        sleep_until(pacer.next_ns)
        while (frame := outbox.get()) is not None:
            pacer.wet.offer(frame, outbox.queued_ns)         # when it was ready, not when it was read
        pick = pacer.tick(time.monotonic_ns(), "dry" if bypass else "wet")
        if pick.frame is not None:
            sink.send(mix(pick.frame), ...)
            if pick.new:
                pacer.latency.add(pick.frame.captured_ns, time.monotonic_ns())

All times are arguments; nothing here reads a clock, so that tests simulate hours in a moment.
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
"""Periods of the output by which a frame may be late before older ones are dropped for it."""

_NEARLY = Fraction(995, 1000)  # the ticks can follow the source over such a difference between the rates


@dataclass(frozen=True, slots=True)
class Pick:
    """What one tick shows.

    Attributes:
        frame: the frame; None before the first one.
        new: whether it is shown for the first time.
        track: "wet" or "dry".
    """

    frame: Frame | None
    new: bool
    track: str


class Pacer:
    """The two tracks and the clock of one output.

    Args:
        fps: output rate; None follows the rate of the dry track's source (30 until it is known).

    Attributes:
        dry, wet: the tracks.
        latency: the latency of the frames that were sent; the publisher adds them.
        motion_latency: the same of the motion that they show, which may be of a later input frame.
        repeated: ticks at which the last frame was shown again.
    """

    def __init__(self, fps: Fraction | None = None) -> None:
        self._follow = fps is None
        self._clock = OutputClock(fps or Fraction(30))
        self._source = RateMeter()
        self._made = FrameCount()
        self.dry, self.wet = Track(), Track()
        self.latency, self.motion_latency = LatencyMeter(), LatencyMeter()
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

    @property
    def period_ms(self) -> float:
        """Time between two ticks."""
        return self._clock.period_ns / 1e6

    def offer_dry(self, frame: Frame, ready_ns: int, nominal_fps: float = 0.0) -> None:
        """Add an input frame to the dry track and to the measurement of the source's rate. Callable from any thread.

        Args:
            frame: the input frame.
            ready_ns: when it was ready to be shown.
            nominal_fps: the rate that the source announces (`SourceInfo.fps`); 0 if it announces none.
        """
        self._source.add(frame.pts_ns, nominal_fps)
        self._made.add(frame, self._source.fps)
        self.dry.offer(frame, ready_ns)

    def tick(self, now_ns: int, on_air: Literal["wet", "dry"] = "wet") -> Pick:
        """Choose what is shown now and plan the next tick.

        Both tracks advance; the clock follows the one that is on air. While that track has had no frame, the other is
        shown.
        """
        source_fps = self._source.fps
        if self._follow and source_fps is not None and source_fps != self._clock.fps:
            self._clock.fps = source_fps
        period = self._clock.period_ns
        locked = source_fps is not None and _commensurate(source_fps, self._clock.fps)
        if abs(now_ns - self._clock.next_ns) > 2 * period:
            self._clock.next_ns = now_ns
        planned = self._clock.next_ns
        early = period // 2 if locked else 0  # the ticks are close to the due times: take the nearest
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
                made *= _ratio(self._clock.fps, source_fps)
            else:
                made = None
            self._clock.source_advanced(made)
        self._clock.advance(now_ns, error)
        new = picked[name] is not None
        if not new:
            self.repeated += 1
        return Pick(self._shown[name], new, name)

    def shown(self, track: Literal["wet", "dry"]) -> Frame | None:
        """The frame that a track shows or would show if it were on air; None before its first."""
        return self._shown[track]

    def forget(self, track: Literal["wet", "dry"]) -> None:
        """Drop a track's frames and measurements, when its engine or source is gone."""
        (self.wet if track == "wet" else self.dry).clear()
        self._shown[track] = None


def _commensurate(a: Fraction, b: Fraction) -> bool:
    """Whether one rate is a whole multiple of the other, within half a percent."""
    ratio = float(max(a, b) / min(a, b))
    return abs(ratio - round(ratio)) < 0.005


def _ratio(a: Fraction, b: Fraction) -> float:
    """`a / b` of two commensurate rates, rounded to a whole number or to one over a whole number."""
    return float(round(a / b)) if a > b else 1.0 / round(b / a)
