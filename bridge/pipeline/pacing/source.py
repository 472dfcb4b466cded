"""What is known of a source by the times of its frames: its clock, how many frames it made, its rate.

Arithmetic on times that are handed in; reads no clock.
"""

from __future__ import annotations

import threading
from collections import deque
from fractions import Fraction

from bridge.pipeline.pacing.latency import SECOND
from engine.frame import Frame

JUMP_NS = SECOND
"""A source time this far off the one that is expected is a new beginning (a loop, another source, a set clock)."""

_FOLLOW = 1 / 64  # share of a new measurement in the offset between source clock and own clock

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
"""Rates that a measured one is rounded to when it lies close."""


class SourceClock:
    """Source times of one stream, moved to this machine's clock.

    The offset follows the mean of arrival minus source time, so that a single late arrival hardly moves it. It
    starts anew when source times jump. Times that do not advance are replaced by the arrival.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._count = 0
        self._last_pts = 0

    def moment(self, frame: Frame) -> int:
        """When the frame was made, in ns of `time.monotonic_ns`."""
        if self._count and frame.pts_ns == self._last_pts:
            return frame.captured_ns
        error = frame.captured_ns - frame.pts_ns - self._offset
        if self._count == 0 or abs(error) > JUMP_NS:
            self._offset, self._count = float(frame.captured_ns - frame.pts_ns), 1
        else:
            self._count += 1
            self._offset += error * max(_FOLLOW, 1.0 / self._count)
        self._last_pts = frame.pts_ns
        return round(frame.pts_ns + self._offset)


class FrameCount:
    """How many frames a source has made, lost ones included, by their times. `add` may be called from another thread.

    Times are counted in the source's own period, the mean of the steps that look like one: its rate may be a little
    off, its times may tremble, and frames that it put off come close together.

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
        """The next frame of a source of this rate; None while it is not known."""
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
        """How many since the last call; None if nobody can tell."""
        with self._lock:
            made, self._made, self.any = self._made, 0.0, False
            return made


class RateMeter:
    """Frame rate of a source: the one that it tells, if its frames do not contradict it, else the one measured.

    A measured rate is counted over two seconds (so jitter hardly matters), rounded up to a usual one (frames get lost,
    none come too many), and replaced only when the frames have come at another rate for a second.

    Attributes:
        fps: frames per second; None until the source tells or half a second has passed.
    """

    def __init__(self) -> None:
        self.fps: Fraction | None = None
        self._times: deque[int] = deque()
        self._told: Fraction | None = None
        self._off_since: int | None = None

    def add(self, pts_ns: int, told_fps: float = 0.0) -> None:
        """Count a frame.

        Args:
            pts_ns: its source time.
            told_fps: the rate that the source tells about itself; 0 if it tells none.
        """
        times = self._times
        if times and not 0 < pts_ns - times[-1] < JUMP_NS:
            times.clear()
            self._off_since = None
        times.append(pts_ns)
        while times[-1] - times[0] > 2 * SECOND:
            times.popleft()
        told = (_usual(told_fps, 0.0002) or Fraction(told_fps).limit_denominator(1001)) if told_fps else None
        if told is not None and told != self._told:
            self.fps, self._off_since = told, None
        self._told = told
        span = times[-1] - times[0]
        if span < SECOND // 2:
            return
        measured = SECOND * (len(times) - 1) / span
        if self.fps is None:
            self.fps = _usual_above(measured)
        change = measured / float(self.fps)
        if self.fps == told:
            fits = 0.6 < change < 1.1
        else:
            fits = 0.75 < change < 1.03 and (change > 0.97 or _usual(measured, 0.01) is None)
        if fits:
            self._off_since = None
        elif self._off_since is None:
            self._off_since = pts_ns
        elif pts_ns - self._off_since >= SECOND:
            believable = told is not None and 0.9 < measured / float(told) < 1.1
            self.fps = told if believable else _usual_above(measured)
            self._off_since = None


def _usual_above(rate: float) -> Fraction:
    """The smallest usual rate that is not below this one (but for 3 percent); the rate itself beyond them all."""
    return next((usual for usual in USUAL_RATES if float(usual) >= rate * 0.97), Fraction(round(rate)))


def _usual(rate: float, tolerance: float) -> Fraction | None:
    """The usual rate next to this one, if it is that close."""
    near = min(USUAL_RATES, key=lambda usual: abs(float(usual) - rate))
    return near if abs(rate / float(near) - 1.0) < tolerance else None
