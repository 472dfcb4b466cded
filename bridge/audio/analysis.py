"""What is read out of sound: how loud it is, in three bands, and its hits. Pure arithmetic; no clock, no thread.

Every 512 samples (a hop) the last 1024 are looked at for the high band and for hits, and every second time the last
2048 for the low and the middle band, which could not be told apart in less; twice as many samples at 96 kHz. A band's
level is its root mean square: by Parseval's theorem twice the sum of its part of the power spectrum, divided by the
window's length and its sum of squares.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

HOP = 512
LONG, SHORT = 2048, 1024
"""Samples of the two windows, at rates up to `USUAL_RATE` and somewhat above."""

USUAL_RATE = 48000

LOWEST_HZ, HIGHEST_HZ = 20.0, 16000.0
FLOOR = 10.0 ** (-60.0 / 20.0)
"""A level below -60 dB of full scale is silence, and its reading 0."""

LEAST_REFERENCE = 10.0 ** (-50.0 / 20.0)
"""The automatic gain never divides by less than -50 dB of full scale, so that noise stays small."""

REFERENCE_S, REFERENCE_SHARE = 10.0, 0.95
"""The automatic gain divides by the level that this share of the last seconds of sound did not exceed."""

REFERENCE_HOPS = 8
"""Hops between two looks at these seconds."""

PARTS = 8
"""Parts of the spectrum, evenly spaced in octaves, of which a hit raises some."""

ONSET_S, ONSET_DEVIATIONS, ONSET_LEAST, ONSET_DEAD_S = 0.5, 1.5, 0.45, 0.1
"""A hit rises above the mean of the last half second by so many deviations, by so much at least (white noise rises by
0.4 at most), and not again within a tenth of a second."""

LOUDNESS = 1000.0
"""How strongly the parts are compressed, log(1 + LOUDNESS x level): a hit shows in quiet music as in loud."""

MOST_S = 0.25
"""Of a block that is longer than this, only the end is looked at."""

TINY = 1e-4
MOST = 1e4
"""A sample of 80 dB over full scale is a fault."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The controls, as the analysis needs them.

    Attributes:
        auto: whether the gain is automatic.
        gain: factor, on top of the automatic one.
        release_s: time in which a reading falls to 1/e.
        low_hz, high_hz: edges of the middle band.
    """

    auto: bool = True
    gain: float = 1.0
    release_s: float = 0.15
    low_hz: float = 150.0
    high_hz: float = 2000.0


@dataclass(frozen=True, slots=True)
class Features:
    """The readings of one moment, 0 to 1 each.

    Attributes:
        level, low, mid, high: how loud the sound and its bands are.
        onset: 1 at a hit, then falling.
    """

    level: float = 0.0
    low: float = 0.0
    mid: float = 0.0
    high: float = 0.0
    onset: float = 0.0


SILENCE = Features()


class Spectrum:
    """The levels of bands.

    Args:
        rate: samples per second.
        low_hz, high_hz: edges of the middle band.

    Attributes:
        long, short: samples of the two windows.
    """

    def __init__(self, rate: int, low_hz: float, high_hz: float) -> None:
        highest = min(HIGHEST_HZ, rate / 2.0)
        low_hz, high_hz = min(low_hz, highest), min(max(high_hz, low_hz), highest)
        parts = np.geomspace(2.0 * LOWEST_HZ, highest, PARTS + 1)
        self.long, self.short = LONG * scale(rate), SHORT * scale(rate)
        self._long_window, long = _window(self.long)
        self._short_window, short = _window(self.short)
        slow = [(LOWEST_HZ, low_hz), (low_hz, high_hz)]
        quick = [(high_hz, highest), *itertools.pairwise(parts)]
        self._slow = np.stack([_share(self.long, rate, *band) * long for band in slow]).astype(np.float32)
        self._quick = np.stack([_share(self.short, rate, *band) * short for band in quick]).astype(np.float32)

    def slow(self, samples: np.ndarray) -> list[float]:
        """The levels of low and mid, of `long` samples; full scale 1.

        Raises:
            ValueError: if there are other than `long` samples.
        """
        if samples.shape != (self.long,):
            raise ValueError(f"{self.long} samples are looked at, not {samples.shape}.")
        levels: list[float] = np.sqrt(self._slow @ _squares(samples * self._long_window)).tolist()
        return levels

    def quick(self, samples: np.ndarray) -> list[float]:
        """The levels of high and of each part, of the last `short` of these samples; full scale 1."""
        levels: list[float] = np.sqrt(self._quick @ _squares(samples[-self.short :] * self._short_window)).tolist()
        return levels


def scale(rate: int) -> int:
    """By how much windows and hops are longer than at 48 kHz."""
    return max(1, round(rate / USUAL_RATE))


def _window(size: int) -> tuple[np.ndarray, float]:
    """A Hann window, and the factor from a sum of the power spectrum of what it is laid on to a mean square."""
    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(size) + 0.5) / size)).astype(np.float32)
    return window, 2.0 / (size * float(np.sum(window.astype(np.float64) ** 2)))


def _share(size: int, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """How much of each bin lies between two frequencies, 0 to 1, for its real and its imaginary part."""
    width = rate / size
    middle = np.arange(size // 2 + 1) * width
    share = (np.minimum(high_hz, middle + width / 2) - np.maximum(low_hz, middle - width / 2)) / width
    shares: np.ndarray = np.repeat(np.clip(share, 0.0, 1.0), 2)
    return shares


def _squares(samples: np.ndarray) -> np.ndarray:
    """The squares of the real and imaginary parts of each bin, one after the other."""
    parts = np.fft.rfft(samples).view(np.float32)
    squares: np.ndarray = parts * parts
    return squares


class Analysis:
    """Follows the sound of one source. Belongs to one thread.

    Args:
        rate: samples per second.

    Attributes:
        features: the newest readings.
        hop: samples of a hop.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.features = SILENCE
        self._strengths: list[float] = []
        self._settings = Settings()
        self._spectrum = Spectrum(rate, self._settings.low_hz, self._settings.high_hz)
        self.hop = HOP * scale(rate)
        self._hop_s = self.hop / rate
        self._fall = self._fall_of(self._settings)
        self._tail = np.zeros(self._spectrum.long - self.hop, np.float32)
        self._slow = [0.0, 0.0]  # the newest levels of low and mid
        self._before = [0.0] * PARTS
        self._values = [0.0] * 5  # of level, low, mid, high, onset, after the release
        self._past = np.zeros((4, max(2, round(REFERENCE_S / self._hop_s))), np.float32)
        self._heard = 0  # hops with sound
        self._reference = [LEAST_REFERENCE] * 4
        self._rises = deque([0.0] * max(2, round(ONSET_S / self._hop_s)))
        self._sum = self._squares = 0.0  # of the rises
        self._hops = self._dead = 0

    def feed(self, samples: np.ndarray, settings: Settings) -> Features:
        """Take more sound; returns the newest readings.

        Args:
            samples: float32, full scale 1. Where one is no number, or beyond `MOST`, all count as silence.
            settings: the controls.
        """
        if settings != self._settings:
            self._apply(settings)
        samples = samples[-round(MOST_S * self.rate) :]
        if not np.abs(samples).max(initial=0.0) <= MOST:  # also where one is no number
            samples = np.zeros(len(samples), np.float32)
        sound = np.concatenate((self._tail, samples))
        hop, long = self.hop, self._spectrum.long
        hops = (len(sound) - (long - hop)) // hop
        for number in range(hops):
            self._look(sound[number * hop : number * hop + long])
        self._tail = sound[hops * hop :]
        if hops:
            self.features = Features(*self._values)
        return self.features

    def take_strengths(self) -> list[float]:
        """How much each hop since the last call rose."""
        taken, self._strengths = self._strengths, []
        return taken

    def _apply(self, settings: Settings) -> None:
        before, self._settings = self._settings, settings
        if (before.low_hz, before.high_hz) != (settings.low_hz, settings.high_hz):
            self._spectrum = Spectrum(self.rate, settings.low_hz, settings.high_hz)
        self._fall = self._fall_of(settings)

    def _fall_of(self, settings: Settings) -> float:
        """What is left of a reading after a hop."""
        return float(np.exp(-self._hop_s / settings.release_s)) if settings.release_s > 0.0 else 0.0

    def _look(self, window: np.ndarray) -> None:
        """Look at one hop."""
        high, *parts = self._spectrum.quick(window)
        if self._hops % 2 == 0:
            self._slow = self._spectrum.slow(window)
        self._hops += 1
        low, mid = self._slow
        heard = [level if level >= FLOOR else 0.0 for level in (math.hypot(low, mid, high), low, mid, high)]
        if heard[0] > 0.0:
            self._refer(heard)
        hit = self._rose(parts, heard[0] > 0.0)
        gain, auto, fall = self._settings.gain, self._settings.auto, self._fall
        now = [
            level * gain / (reference if auto else 1.0) for level, reference in zip(heard, self._reference, strict=True)
        ]
        fallen = [value * fall if value * fall >= TINY else 0.0 for value in self._values]
        self._values = [max(old, min(new, 1.0)) for old, new in zip(fallen, [*now, 1.0 if hit else 0.0], strict=True)]

    def _refer(self, heard: list[float]) -> None:
        """Find anew what the automatic gain divides by. A pause does not count, so that the first note after it is no
        shock."""
        size = self._past.shape[1]
        self._past[:, self._heard % size] = heard
        self._heard += 1
        if self._heard % REFERENCE_HOPS == 0 or self._heard < REFERENCE_HOPS:
            past = self._past[:, : min(self._heard, size)]
            rank = int(REFERENCE_SHARE * (past.shape[1] - 1))
            found = np.partition(past, rank, axis=1)[:, rank].tolist()
            self._reference = [max(level, LEAST_REFERENCE) for level in found]

    def _rose(self, parts: list[float], heard: bool) -> bool:
        """Whether this hop begins a hit: some parts of the spectrum rise together."""
        loud = [math.log1p(LOUDNESS * (level - FLOOR)) if level > FLOOR else 0.0 for level in parts]
        rise = sum(max(0.0, new - old) for new, old in zip(loud, self._before, strict=True)) / PARTS
        self._before = loud
        self._strengths.append(rise)
        count = len(self._rises)
        mean = self._sum / count
        deviation = math.sqrt(max(0.0, self._squares / count - mean * mean))
        oldest = self._rises.popleft()
        self._rises.append(rise)
        self._sum += rise - oldest
        self._squares += rise * rise - oldest * oldest
        self._dead = max(0, self._dead - 1)
        if not heard or self._dead or rise <= max(ONSET_LEAST, mean + ONSET_DEVIATIONS * deviation):
            return False
        self._dead = round(ONSET_DEAD_S / self._hop_s)
        return True
