"""What the times of a source's frames tell: the offset of its clock, how many frames it has made, and its rate.

All times are arguments; nothing here reads a clock.
"""

from __future__ import annotations

import threading
from collections import deque
from fractions import Fraction

from bridge.pipeline.pacing.latency import SECOND
from engine.frame import Frame

JUMP_NS = SECOND
"""A source time this far from the expected one starts a new stream (a loop, another source, a clock that was set)."""

_SMOOTHING = 1 / 64  # weight of a new measurement in the average offset between the two clocks

USUAL_RATES = (
    *map(Fraction, (1, 2, 5, 8, 10, 12)),
    Fraction(25, 2),
    Fraction(15),
    Fraction(20),
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(48),
    Fraction(50),
    Fraction(60000, 1001),
    *map(Fraction, (60, 72, 75, 90, 100, 120, 144, 240)),
)
"""Rates to which a measured one is rounded when it is close."""


class SourceClock:
    """Converts the source times of one stream to this machine's clock.

    The offset is a moving average of arrival time minus source time, so that a single late arrival hardly changes it.
    It is measured anew when the source times jump. A time that does not advance is replaced by the arrival time.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._count = 0
        self._last_pts = 0

    def local_time(self, frame: Frame) -> int:
        """The frame's source time in ns of `time.monotonic_ns`."""
        if self._count and frame.pts_ns == self._last_pts:
            return frame.captured_ns
        error = frame.captured_ns - frame.pts_ns - self._offset
        if self._count == 0 or abs(error) > JUMP_NS:
            self._offset, self._count = float(frame.captured_ns - frame.pts_ns), 1
        else:
            self._count += 1
            self._offset += error * max(_SMOOTHING, 1.0 / self._count)
        self._last_pts = frame.pts_ns
        return round(frame.pts_ns + self._offset)


class FrameCount:
    """Counts the frames that a source has made, lost ones included, by their times. `add` is callable from any thread.

    The time that passes is divided by the source's actual period, measured as the average of the steps close to the
    nominal one: the source's rate may be slightly off, its times may jitter, and delayed frames come close together.

    Attributes:
        any: whether frames came since the last `take`.
    """

    def __init__(self) -> None:
        self.any = False
        self._last: tuple[int, int] | None = None  # source time and arrival of the newest frame
        self._period_ns, self._jitter = 0.0, 0.0  # the jitter as a share of the period
        self._steps = 0
        self._made: float | None = 0.0
        self._lock = threading.Lock()

    def add(self, frame: Frame, fps: Fraction | None) -> None:
        """Count the next frame of a source with this rate; None if the rate is not known yet."""
        with self._lock:
            last, self._last, self.any = self._last, (frame.pts_ns, frame.captured_ns), True
            step = 0 if last is None else frame.pts_ns - last[0] or frame.captured_ns - last[1]
            if fps is None or not 0 < step < JUMP_NS:
                self._made, self._steps = None, 0
                return
            nominal = float(SECOND / fps)
            if self._steps == 0 or abs(self._period_ns / nominal - 1.0) > 0.05:
                self._period_ns, self._jitter, self._steps = nominal, 0.02, 0
            off = step / self._period_ns - 1.0
            if abs(off) < 0.25:
                self._steps += 1
                share = max(1 / 256, 1 / (16 + self._steps))
                if abs(off) < 2 * self._jitter:
                    self._period_ns *= 1.0 + off * share
                self._jitter += (max(abs(off), 0.01) - self._jitter) * share
            if self._made is not None:
                self._made += step / self._period_ns

    def take(self) -> float | None:
        """Frames made since the last call; None if that cannot be known."""
        with self._lock:
            made, self._made, self.any = self._made, 0.0, False
            return made


class RateMeter:
    """Frame rate of a source: the nominal rate, if its frames do not contradict it, else the measured one.

    A rate is measured over two seconds, so that jitter hardly matters, and rounded up to a usual one, because frames
    may get lost. It is replaced only when the frames have come at another rate for a second.

    Attributes:
        fps: frames per second; None until the source announces a rate or half a second has passed.
    """

    def __init__(self) -> None:
        self.fps: Fraction | None = None
        self._times: deque[int] = deque()
        self._nominal: Fraction | None = None
        self._off_since: int | None = None

    def add(self, pts_ns: int, nominal_fps: float = 0.0) -> None:
        """Count a frame.

        Args:
            pts_ns: its source time.
            nominal_fps: the rate that the source announces; 0 if it announces none.
        """
        times = self._times
        if times and not 0 < pts_ns - times[-1] < JUMP_NS:
            times.clear()
            self._off_since = None
        times.append(pts_ns)
        while times[-1] - times[0] > 2 * SECOND:
            times.popleft()
        nominal = None
        if nominal_fps:
            nominal = _usual(nominal_fps, 0.0002) or Fraction(nominal_fps).limit_denominator(1001)
        if nominal is not None and nominal != self._nominal:
            self.fps, self._off_since = nominal, None
        self._nominal = nominal
        span = times[-1] - times[0]
        if span < SECOND // 2:
            return
        measured = SECOND * (len(times) - 1) / span
        if self.fps is None:
            self.fps = _usual_above(measured)
        change = measured / float(self.fps)
        if self.fps == nominal:
            fits = 0.6 < change < 1.1
        else:
            fits = 0.75 < change < 1.03 and (change > 0.97 or _usual(measured, 0.01) is None)
        if fits:
            self._off_since = None
        elif self._off_since is None:
            self._off_since = pts_ns
        elif pts_ns - self._off_since >= SECOND:
            plausible = nominal is not None and 0.9 < measured / float(nominal) < 1.1
            self.fps = nominal if plausible else _usual_above(measured)
            self._off_since = None


def _usual_above(rate: float) -> Fraction:
    """The smallest usual rate that is at least 97 percent of this one; the rate itself above all of them."""
    return next((usual for usual in USUAL_RATES if float(usual) >= rate * 0.97), Fraction(round(rate)))


def _usual(rate: float, tolerance: float) -> Fraction | None:
    """The usual rate closest to this one, if it differs by less than `tolerance` (a share)."""
    near = min(USUAL_RATES, key=lambda usual: abs(float(usual) - rate))
    return near if abs(rate / float(near) - 1.0) < tolerance else None
