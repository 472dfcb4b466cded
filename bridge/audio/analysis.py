"""What is read out of sound: how loud it is, in three bands, and its hits. Pure arithmetic; no clock, no thread.

Every 512 samples (a hop) two windows are looked at: the last 2048 samples for the low band, whose frequencies need that
long, and the last 1024 for everything else. A band's level is its root mean square: by Parseval's theorem twice the
sum of its part of the power spectrum, divided by the window's length and its sum of squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HOP = 512
LONG, SHORT = 2048, 1024
"""Samples of the two windows."""

LOWEST_HZ, HIGHEST_HZ = 20.0, 16000.0
FLOOR = 10.0 ** (-60.0 / 20.0)
"""A level below -60 dB of full scale is silence, and its reading 0."""

LEAST_REFERENCE = 10.0 ** (-50.0 / 20.0)
"""The automatic gain never divides by less than -50 dB of full scale, so that noise stays small."""

REFERENCE_S, REFERENCE_SHARE = 10.0, 0.95
"""The automatic gain divides by the level that this share of the last seconds of sound did not exceed."""

REFERENCE_HOPS = 8
"""Hops between two looks at these seconds."""

PARTS = 12
"""Parts of the spectrum, evenly spaced in octaves, of which a hit raises some."""

ONSET_S, ONSET_DEVIATIONS, ONSET_LEAST, ONSET_DEAD_S = 0.5, 1.5, 0.12, 0.1
"""A hit rises above the mean of the last half second by so many deviations, by so much at least, and not again within
a tenth of a second."""

LOUDNESS = 1000.0
"""How strongly the parts are compressed, log(1 + LOUDNESS x level): a hit shows in quiet music as in loud."""

MOST_S = 0.25
"""Of a block that is longer than this, only the end is looked at."""

TINY = 1e-4


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
    """

    def __init__(self, rate: int, low_hz: float, high_hz: float) -> None:
        highest = min(HIGHEST_HZ, rate / 2.0)
        low_hz, high_hz = min(low_hz, highest), min(max(high_hz, low_hz), highest)
        parts = np.geomspace(2.0 * LOWEST_HZ, highest, PARTS + 1)
        self._long_window, long = _window(LONG)
        self._short_window, short = _window(SHORT)
        self._low = _share(LONG, rate, LOWEST_HZ, low_hz) * long
        bands = [(low_hz, high_hz), (high_hz, highest), *zip(parts[:-1], parts[1:], strict=True)]
        self._rest = np.stack([_share(SHORT, rate, *band) * short for band in bands])

    def levels(self, samples: np.ndarray) -> np.ndarray:
        """The levels of low, mid, high and then of each part, of the last `LONG` samples; full scale 1.

        Raises:
            ValueError: if there are other than `LONG` samples.
        """
        if samples.shape != (LONG,):
            raise ValueError(f"{LONG} samples are looked at, not {samples.shape}.")
        low = self._low @ _power(samples * self._long_window)
        rest = self._rest @ _power(samples[-SHORT:] * self._short_window)
        return np.sqrt(np.concatenate(((low,), rest)))


def _window(size: int) -> tuple[np.ndarray, float]:
    """A Hann window, and the factor from a sum of the power spectrum of what it is laid on to a mean square."""
    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(size) + 0.5) / size)).astype(np.float32)
    return window, 2.0 / (size * float(np.sum(window.astype(np.float64) ** 2)))


def _share(size: int, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """How much of each bin lies between two frequencies, 0 to 1."""
    width = rate / size
    middle = np.arange(size // 2 + 1) * width
    return np.clip((np.minimum(high_hz, middle + width / 2) - np.maximum(low_hz, middle - width / 2)) / width, 0.0, 1.0)


def _power(samples: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(samples)
    return spectrum.real**2 + spectrum.imag**2


class Analysis:
    """Follows the sound of one source. Belongs to one thread.

    Args:
        rate: samples per second.

    Attributes:
        features: the newest readings.
        strengths: how much each hop since the last `take_strengths` rose, for the tempo.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.features = SILENCE
        self._strengths: list[float] = []
        self._settings = Settings()
        self._spectrum = Spectrum(rate, self._settings.low_hz, self._settings.high_hz)
        self._hop_s = HOP / rate
        self._fall = self._fall_of(self._settings)
        self._tail = np.zeros(LONG - HOP, np.float32)
        self._before = np.zeros(PARTS)
        self._values = np.zeros(5)  # of level, low, mid, high, onset, after the release
        self._past = np.zeros((4, max(2, round(REFERENCE_S / self._hop_s))), np.float32)
        self._filled = self._next = self._since_look = 0
        self._reference = np.full(4, LEAST_REFERENCE)
        self._rises = np.zeros(max(2, round(ONSET_S / self._hop_s)))
        self._hops = 0
        self._dead = 0

    def feed(self, samples: np.ndarray, settings: Settings) -> Features:
        """Take more sound; returns the newest readings.

        Args:
            samples: float32, full scale 1. Where one is no finite number, all count as silence.
            settings: the controls.
        """
        if settings != self._settings:
            self._apply(settings)
        samples = samples[-round(MOST_S * self.rate) :]
        if not np.isfinite(np.dot(samples, samples)):
            samples = np.zeros(len(samples), np.float32)
        sound = np.concatenate((self._tail, samples))
        hops = (len(sound) - (LONG - HOP)) // HOP
        for hop in range(hops):
            self._look(sound[hop * HOP : hop * HOP + LONG])
        self._tail = sound[hops * HOP :]
        if hops:
            self.features = Features(*self._values.tolist())
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
        levels = self._spectrum.levels(window)
        bands, parts = levels[:3], levels[3:]
        heard = np.concatenate(((np.sqrt(bands @ bands),), bands))
        heard[heard < FLOOR] = 0.0
        values = np.minimum(heard * self._gain(heard), 1.0)
        hit = self._rose(parts, heard[0] > 0.0)
        self._values *= self._fall
        self._values[self._values < TINY] = 0.0
        np.maximum(self._values[:4], values, out=self._values[:4])
        if hit:
            self._values[4] = 1.0

    def _gain(self, heard: np.ndarray) -> np.ndarray:
        if heard[0] > 0.0:  # a pause does not count, so that the first note after it is no shock
            self._past[:, self._next] = heard
            self._next = (self._next + 1) % self._past.shape[1]
            self._filled = min(self._filled + 1, self._past.shape[1])
            self._since_look += 1
            if self._since_look >= REFERENCE_HOPS or self._filled < REFERENCE_HOPS:
                self._since_look = 0
                rank = int(REFERENCE_SHARE * (self._filled - 1))
                past = self._past[:, : self._filled]
                self._reference = np.maximum(np.partition(past, rank, axis=1)[:, rank], LEAST_REFERENCE)
        return self._settings.gain / self._reference if self._settings.auto else np.full(4, self._settings.gain)

    def _rose(self, parts: np.ndarray, heard: bool) -> bool:
        """Whether this hop begins a hit: some parts of the spectrum rise together."""
        loud = np.log1p(LOUDNESS * np.where(parts < FLOOR, 0.0, parts))
        rise = float(np.maximum(loud - self._before, 0.0).mean())
        self._before = loud
        self._strengths.append(rise)
        least = max(ONSET_LEAST, float(self._rises.mean() + ONSET_DEVIATIONS * self._rises.std()))
        self._rises[self._hops % len(self._rises)] = rise
        self._hops += 1
        self._dead = max(0, self._dead - 1)
        if not heard or self._dead or rise <= least:
            return False
        self._dead = round(ONSET_DEAD_S / self._hop_s)
        return True
