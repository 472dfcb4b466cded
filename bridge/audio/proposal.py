"""The tempo that sound proposes: how evenly its hits return. It is shown and taken by hand, and sets nothing.

The strengths of the hits are compared with themselves, moved by the time of a beat (autocorrelation). No downbeat is
looked for, and half or twice the tempo may be meant: taps tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

SECONDS = 8.0
"""Time that is looked at."""

LEAST_S = 5.0
"""There is no proposal before so much was heard."""

SLOWEST, FASTEST = 60.0, 190.0
"""Range of the tempos that are proposed, in beats per minute."""

USUAL, OCTAVES = 125.0, 0.9
"""Of a tempo and its double the one nearer to this is meant; how far a tempo may be away, in octaves (one sigma)."""

LEAST_EVENNESS = 0.25
"""Autocorrelation (1: each beat is like the last) below which nothing is proposed."""

BEATS = 4
"""The tempo is measured over so many beats: the time of a hop, 10 ms, is 2 % of a single one."""


class Proposal:
    """The tempo of the last seconds. Belongs to one thread.

    Args:
        hops_per_s: strengths that come in a second.

    Attributes:
        bpm: the tempo; 0 while none is heard.
    """

    def __init__(self, hops_per_s: float) -> None:
        self.bpm = 0.0
        self._rate = hops_per_s
        self._strengths: deque[float] = deque(maxlen=round(SECONDS * hops_per_s))
        self._last = 0.0

    def add(self, strengths: Sequence[float]) -> None:
        """Take the strengths of further hops, and look for the tempo anew; to be called about once a second."""
        self._strengths.extend(strengths)
        found = tempo_of(np.array(self._strengths), self._rate) if self._long_enough else 0.0
        # What is found once may be chance.
        self.bpm = round(found, 1) if found and abs(found - self._last) < 0.02 * found else 0.0
        self._last = found

    @property
    def _long_enough(self) -> bool:
        return len(self._strengths) >= LEAST_S * self._rate


def tempo_of(strengths: np.ndarray, rate: float) -> float:
    """The tempo in beats per minute of the strengths of hits; 0 if they return too unevenly.

    Args:
        strengths: one for each hop.
        rate: hops per second.
    """
    size = len(strengths)
    centred = strengths - strengths.mean()
    energy = float(centred @ centred)
    if energy < 1e-9:
        return 0.0
    spectrum = np.fft.rfft(centred, 2 * size)
    alike = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:size] / energy
    alike *= size / np.maximum(size - np.arange(size), size / 4)  # the further they are moved, the fewer meet
    first, last = int(np.ceil(60.0 * rate / FASTEST)), int(60.0 * rate / SLOWEST)
    lags = np.arange(first, min(last, size // 2) + 1)
    octaves = np.log2(60.0 * rate / lags / USUAL)
    weighed = alike[lags] * np.exp(-0.5 * (octaves / OCTAVES) ** 2)
    best = int(lags[np.argmax(weighed)])
    if alike[best] < LEAST_EVENNESS:
        return 0.0
    beats, lag = 1, float(best)
    while beats < BEATS:  # each time twice as many beats, near where the last look points
        beats *= 2
        near = round(2.0 * lag)
        if near + 3 >= size:
            return 60.0 * rate * (beats // 2) / lag
        window = np.arange(near - 2, near + 3)
        lag = _peak(alike, int(window[np.argmax(alike[window])]))
    return 60.0 * rate * beats / lag


def _peak(values: np.ndarray, at: int) -> float:
    """Where the parabola through a peak and its neighbours is highest."""
    before, middle, after = values[at - 1], values[at], values[at + 1]
    bend = before - 2.0 * middle + after
    return at + (0.5 * float(before - after) / float(bend) if bend < 0.0 else 0.0)
