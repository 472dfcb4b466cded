"""Pure arithmetic of modulators: the value of every shape at any position, a rate limit, and a follower's envelope.

Positions are counted in cycles: their whole numbers begin a cycle. Every shape is a function of the position alone,
also the random ones, so that it has the same value at the same moment however often, in whatever order and from
wherever it is asked for. Values are -1 to 1. What has to remember something (`Slew`, `Follower`) remembers one moment
and one value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

DRUNK_OCTAVES = 5
"""Octaves that `drunk` adds up; the slowest lasts 16 cycles."""

_MASK = 2**64 - 1


def hashed(seed: int, number: int) -> float:
    """A number from -1 to 1 that seems random, always the same for the same arguments.

    The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    x = (number * 0x9E3779B97F4A7C15 + (seed + 1) * 0xD1B54A32D192ED03) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((x ^ (x >> 31)) >> 11) / 2.0**52 - 1.0


def sine(position: float, seed: int) -> float:
    """From 0 up."""
    return math.sin(2.0 * math.pi * (position % 1.0))


def triangle(position: float, seed: int) -> float:
    """From 0 up, in straight lines."""
    return 1.0 - abs(((position + 0.25) % 1.0) * 4.0 - 2.0)


def up(position: float, seed: int) -> float:
    """A ramp from -1 to 1."""
    return (position % 1.0) * 2.0 - 1.0


def down(position: float, seed: int) -> float:
    """A ramp from 1 to -1."""
    return 1.0 - (position % 1.0) * 2.0


def square(position: float, seed: int) -> float:
    """1 in the first half of a cycle, -1 in the second."""
    return 1.0 if position % 1.0 < 0.5 else -1.0


def hold(position: float, seed: int) -> float:
    """Sample and hold: another random number in every cycle."""
    return hashed(seed, math.floor(position))


def random(position: float, seed: int) -> float:
    """A random number at the begin of every cycle, with smooth ways between them."""
    number = math.floor(position)
    share = position - number
    share *= share * (3.0 - 2.0 * share)
    first = hashed(seed, number)
    return first + (hashed(seed, number + 1) - first) * share


def drunk(position: float, seed: int) -> float:
    """Wanders: within a cycle it moves by a third at most, and it never leaves the range.

    A random walk would have to be walked from its begin to know where it is. So this is noise in octaves, each twice as
    slow and twice as large as the one before: what a random walk looks like, known at any position.
    """
    total = 0.0
    for octave in range(DRUNK_OCTAVES):
        at = position / 2.0**octave
        number = math.floor(at)
        first = hashed(seed + octave, number)
        total += 2.0**octave * (first + (hashed(seed + octave, number + 1) - first) * (at - number))
    return total / (2.0**DRUNK_OCTAVES - 1.0)


SHAPES: Mapping[str, Callable[[float, int], float]] = {
    "sine": sine,
    "triangle": triangle,
    "up": up,
    "down": down,
    "square": square,
    "random": random,
    "hold": hold,
    "drunk": drunk,
}
"""Shapes that need only a position in cycles and a seed."""


def envelope(elapsed_s: float, attack_s: float, release_s: float, period_s: float = math.inf) -> float:
    """A hit: rises in a straight line, then falls by the factor e in every `release_s`.

    Args:
        elapsed_s: time since the hit, in s; below 0 there was none.
        attack_s: how long it rises, in s.
        release_s: how fast it falls, in s.
        period_s: time between two hits, in s: it rises from where the last one has fallen to.

    Returns:
        -1 (nothing) to 1 (the hit).
    """
    if elapsed_s < 0.0:
        return -1.0
    rest = math.exp(-max(0.0, period_s - attack_s) / release_s)
    if elapsed_s < attack_s:
        level = rest + (1.0 - rest) * elapsed_s / attack_s
    else:
        level = math.exp(-(elapsed_s - attack_s) / release_s)
    return 2.0 * level - 1.0


def smooth(share: float) -> float:
    """A way from 0 to 1 that begins and ends gently, for a share of its time; clamped."""
    share = min(1.0, max(0.0, share))
    return share * share * (3.0 - 2.0 * share)


class Slew:
    """Limits how fast a value moves.

    Args:
        per_s: fastest change in 1/s; infinite for no limit.
    """

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._state: tuple[float, float] | None = None  # time in s, value; replaced as a whole

    def take(self, other: Slew) -> None:
        """Go on from the value that another one has."""
        self._state = other._state

    def limited(self, target: float, at_s: float) -> float:
        """The value at a time: as close to the target as it may have come since the last time. A time before that
        changes nothing."""
        state = self._state
        if state is None or self.per_s == math.inf:
            self._state = (at_s, target)
            return target
        then_s, value = state
        if at_s > then_s:
            most = self.per_s * (at_s - then_s)
            value += min(max(target - value, -most), most)
            self._state = (at_s, value)
        return value


class Follower:
    """The envelope of a number that comes now and then: a filter of the first order, faster up or faster down.

    Args:
        attack_s: time in which it covers 63 % of the way up, in s; 0 for at once.
        release_s: the same of the way down.
    """

    def __init__(self, attack_s: float, release_s: float) -> None:
        self.attack_s = attack_s
        self.release_s = release_s
        self._state: tuple[float, float] | None = None  # time in s, value; replaced as a whole

    def take(self, other: Follower) -> None:
        """Go on from the value that another one has."""
        self._state = other._state

    def fed(self, target: float, at_s: float) -> float:
        """The value at a time, towards the number that has come since the last time. A time before that changes
        nothing."""
        state = self._state
        if state is None:
            self._state = (at_s, target)
            return target
        then_s, value = state
        if at_s > then_s:
            time_s = self.attack_s if target > value else self.release_s
            value = target + (value - target) * math.exp(-(at_s - then_s) / time_s) if time_s > 0.0 else target
            self._state = (at_s, value)
        return value
