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

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from engine.frame import Frame

SECOND = 1_000_000_000

WINDOW_NS = 4 * SECOND
"""How far back delay, latency and rate are measured."""

SLOT_NS = SECOND // 10
QUANTILE = 0.95
"""The delay is long enough for every frame in this share of the tenths of a second."""

GUARD_NS = 1_000_000
"""Kept between a frame being ready and its tick, beside the measured delay."""

PULL = 0.02
"""Most that one tick may be moved towards the source's phase, as a share of the period, or of what it is behind."""

BACKLOG = 4
"""Periods of the output that a frame may be overdue while older ones are still shown before it."""

CREDIT = 0.0007
"""Share of the ticks that may be gained by running faster after pauses, in the long run."""

SAVED = 8
"""Most gained ticks that are saved up for a pause to come, in periods."""

SHRINK = 0.08
"""Most that the delay may shrink, as a share of the time that passes."""

JUMP_NS = SECOND
"""A source time this far off the one that is expected is a new beginning (a loop, another source, a set clock)."""

MAX_DELAY_NS = 5 * SECOND
"""Frames that take longer than this do not count towards the delay: that is a stall, not jitter."""

_NEARLY = Fraction(995, 1000)  # the ticks follow the source over such a difference of rates

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
        self._period_ns, self._spread = 0.0, 0.0  # the spread as a share
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
                self._period_ns, self._spread, self._steps = nominal, 0.02, 0
            off = step / self._period_ns - 1.0
            if abs(off) < 0.25:
                self._steps += 1
                share = max(1 / 256, 1 / (16 + self._steps))
                if abs(off) < 2 * self._spread:
                    self._period_ns *= 1.0 + off * share
                self._spread += (max(abs(off), 0.01) - self._spread) * share
            if self._made is not None:
                self._made += step / self._period_ns

    def take(self) -> float | None:
        """How many since the last call; None if nobody can tell."""
        with self._lock:
            made, self._made, self.any = self._made, 0.0, False
            return made


class Track:
    """Frames on their way to the output, each with the time at which it is due.

    `offer` may be called from another thread than the rest.

    Attributes:
        late: frames dropped because a newer one was due as well.
        delay_ns: from a frame's moment to its tick.
    """

    def __init__(self) -> None:
        self.late = 0
        self.delay_ns = 0
        self._clock = SourceClock()
        self._queue: deque[tuple[int, Frame]] = deque()
        self._needed: deque[tuple[int, int]] = deque()  # (begin of slot, longest delay needed in it)
        self._measured_at = 0
        self._moment: int | None = None
        self._new = False
        self._lock = threading.Lock()

    def offer(self, frame: Frame, ready_ns: int) -> None:
        """Hand over a finished frame.

        Args:
            frame: with `pts_ns` and `captured_ns` of the input frame that it came from.
            ready_ns: when it was finished.
        """
        with self._lock:
            moment = self._clock.moment(frame)
            # Source times fell back: a new beginning. What waits of the old stream would come after the new.
            while self._queue and self._queue[-1][0] >= moment:
                self._queue.pop()
                self.late += 1
            self._queue.append((moment, frame))
            self._measure(ready_ns - moment, ready_ns)

    def pick(self, tick_ns: int, early_ns: int = 0, slack_ns: int = 0) -> Frame | None:
        """The frame to show at this tick, or None if there is no new one.

        Args:
            tick_ns: planned time of the tick.
            early_ns: how much earlier than due a frame may be shown.
            slack_ns: how much overdue a frame may be before older ones are dropped for it.
        """
        with self._lock:
            horizon = tick_ns - self.delay_ns + early_ns
            queue, picked = self._queue, None
            while queue and queue[0][0] <= (horizon if picked is None else horizon - slack_ns):
                if picked is not None:
                    self.late += 1
                self._moment, picked = queue.popleft()
            self._new = picked is not None
            return picked

    def clear(self) -> None:
        """Forget frames that wait (they count as late) and what was measured."""
        with self._lock:
            self.late += len(self._queue)
            self._queue.clear()
            self._needed.clear()
            self._clock = SourceClock()
            self._moment = None
            self._new = False
            self.delay_ns = 0

    @property
    def waiting(self) -> int:
        """Frames that are not due yet."""
        return len(self._queue)

    def phase_error(self, tick_ns: int, period_ns: int, every: bool) -> int:
        """How much later than the frames' rhythm a tick is, in ns; 0 when not known.

        Within half a period, but where `every` frame is shown and was due long before this tick.
        """
        with self._lock:
            if self._moment is None:
                return 0
            late = tick_ns - (self._moment + self.delay_ns)
            if every and self._new:
                return late
            return (late + period_ns // 2) % period_ns - period_ns // 2

    def _measure(self, needed: int, now_ns: int) -> None:
        slots = self._needed
        while slots and not 0 <= now_ns - slots[0][0] <= WINDOW_NS:
            slots.popleft()
        if needed <= MAX_DELAY_NS:
            if slots and now_ns - slots[-1][0] < SLOT_NS:
                slots[-1] = (slots[-1][0], max(needed, slots[-1][1]))
            else:
                slots.append((now_ns, needed))
        if not slots:
            return
        wanted = quantile([longest for _, longest in slots], QUANTILE) + GUARD_NS
        if wanted < self.delay_ns:
            passed = min(max(0, now_ns - self._measured_at), SECOND)
            wanted = max(wanted, self.delay_ns - int(passed * SHRINK))
        self.delay_ns = wanted
        self._measured_at = now_ns


class OutputClock:
    """Ticks at a steady rate, moved gently towards a source's phase.

    Attributes:
        next_ns: time of the next tick.
        credit_ns: by how much it may still run ahead of the source.
    """

    def __init__(self, fps: Fraction) -> None:
        self.next_ns = 0
        self.credit_ns = SAVED * float(SECOND / fps)
        self._ticks = 0  # since the source last made a frame
        self._remainder = Fraction(0)
        self.fps = fps

    @property
    def fps(self) -> Fraction:
        """Ticks per second; may be changed at any time."""
        return self._fps

    @fps.setter
    def fps(self, fps: Fraction) -> None:
        if fps <= 0:
            raise ValueError(f"a frame rate must be positive, got {fps}")
        self._fps = fps
        self._period = Fraction(SECOND) / fps
        self.period_ns = round(self._period)

    def source_went_on(self, periods: float | None) -> None:
        """The source has made frames for so many periods of this clock since the last call; None: not known."""
        gained = 0.0 if periods is None else self._ticks - periods
        self.credit_ns += (CREDIT * self._ticks - gained) * self.period_ns
        self.credit_ns = max(-float(SECOND), min(self.credit_ns, SAVED * self.period_ns))
        self._ticks = 0

    def advance(self, now_ns: int, phase_error_ns: int = 0) -> int:
        """Go on to the tick after this one and return its planned time (`next_ns`), which is later than `now_ns`.

        Ticks that were missed are left out on the grid, never caught up. A clock that jumped starts a new grid.
        """
        self._ticks += 1
        most = PULL * max(self.period_ns, abs(phase_error_ns))
        pull = max(-most, min(most, phase_error_ns * 0.1, max(0.0, self.credit_ns)))
        exact = self._period + self._remainder
        step = math.floor(exact)
        self._remainder = exact - step
        following = self.next_ns + step - round(pull)
        if 0 <= now_ns - following < SECOND:
            following += ((now_ns - following) // self.period_ns + 1) * self.period_ns
        elif not now_ns < following <= now_ns + 3 * self.period_ns:
            following = now_ns + self.period_ns
        self.next_ns = following
        return following


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


class LatencyMeter:
    """Latency of every frame that was sent, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self.count = 0

    def add(self, captured_ns: int, sent_ns: int) -> None:
        """Record one frame: when it arrived in this machine and when it was handed to the sink."""
        with self._lock:
            self.count += 1
            self._samples.append((sent_ns, sent_ns - captured_ns))
            while not 0 <= sent_ns - self._samples[0][0] <= WINDOW_NS:
                self._samples.popleft()

    def quantiles_ms(self) -> tuple[float, float, float]:
        """p50, p95 and p99 in milliseconds; zeros when nothing was sent lately."""
        with self._lock:
            values = [latency for _, latency in self._samples]
        if not values:
            return 0.0, 0.0, 0.0
        return quantile(values, 0.50) / 1e6, quantile(values, 0.95) / 1e6, quantile(values, 0.99) / 1e6


def quantile(values: list[int], share: float) -> int:
    """The smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


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


def sleep_until(when_ns: int) -> None:
    """Sleep until `time.monotonic_ns()` reaches a time; returns at once if it has passed."""
    while (left := when_ns - time.monotonic_ns()) > 0:
        time.sleep(left / SECOND)
