"""What is read out of sound, on synthetic sound: levels of tones, silence, gain, hits and how soon they show."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from bridge.audio.analysis import HOP, LONG, SILENCE, Analysis, Features, Settings, Spectrum

RATE = 48000
PLAIN = Settings(auto=False, release_s=0.0)
AUTO = Settings()


def tone(hz: float, level: float = 0.1, seconds: float = 1.0, rate: int = RATE, phase: float = 0.0) -> np.ndarray:
    """A sine whose root mean square is `level`."""
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sqrt(2.0) * np.sin(2.0 * np.pi * hz * times + phase)).astype(np.float32)


def kick(rate: int = RATE) -> np.ndarray:
    """A bass drum: a falling tone of 120 to 50 Hz with a click."""
    times = np.arange(round(0.25 * rate)) / rate
    body = np.sin(2.0 * np.pi * (50.0 * times + 70.0 * 0.03 * (1.0 - np.exp(-times / 0.03)))) * np.exp(-times / 0.08)
    return (0.7 * body + 0.2 * np.exp(-times / 0.002)).astype(np.float32)


def decibels(value: float) -> float:
    return 20.0 * float(np.log10(max(value, 1e-9)))


def blocks(sound: np.ndarray, size: int = HOP) -> list[np.ndarray]:
    return [sound[at : at + size] for at in range(0, len(sound), size)]


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize(
    ("hz", "band"),
    [(50, 0), (63.7, 0), (100, 0), (250, 1), (440, 1), (1000, 1), (1700, 1), (2600, 2), (5000, 2), (12000, 2)],
)
def test_a_tone_has_its_level_in_its_band_and_nowhere_else(hz: float, band: int, rate: int) -> None:
    worst, spectrum = 0.0, Spectrum(rate, 150.0, 2000.0)
    for phase in np.arange(8) * np.pi / 4.0:
        sound = tone(hz, 0.1, 1.0, rate, float(phase))[: spectrum.long]
        levels = [*spectrum.slow(sound), spectrum.quick(sound)[0]]
        worst = max(worst, abs(decibels(levels[band]) - decibels(0.1)))
        others = [decibels(levels[n]) for n in range(3) if n != band]
        assert max(others) < decibels(0.1) - 12.0
    assert worst < 1.0, f"{worst:.2f} dB"


def test_the_edges_of_the_bands_are_those_of_the_controls() -> None:
    sound = tone(300.0)
    assert Analysis(RATE).feed(sound, PLAIN).mid > 0.09
    wide = Settings(auto=False, release_s=0.0, low_hz=450.0)
    features = Analysis(RATE).feed(sound, wide)
    assert features.low > 0.09 > 0.02 > features.mid


def test_silence_is_exactly_0_and_stays_so_whatever_was_before() -> None:
    analysis = Analysis(RATE)
    for _ in range(400):
        assert analysis.feed(np.zeros(HOP, np.float32), AUTO) == SILENCE
    for block in blocks(tone(60.0, 0.2, 2.0)):
        loud = analysis.feed(block, AUTO)
    assert loud.level > 0.9
    for _ in range(200):  # two seconds, in which the readings fall
        quiet = analysis.feed(np.zeros(HOP, np.float32), AUTO)
    assert quiet == SILENCE
    hiss = np.random.default_rng(1).normal(0.0, 10.0 ** (-80 / 20), RATE).astype(np.float32)
    for block in blocks(hiss):
        assert analysis.feed(block, AUTO) == SILENCE, "hiss at -80 dB is silence too"


@pytest.mark.parametrize("level", [0.003, 0.03, 0.3])
def test_the_automatic_gain_makes_quiet_and_loud_alike(level: float) -> None:
    analysis = Analysis(RATE)
    sound = tone(80.0, level, 4.0) + tone(700.0, level / 4, 4.0) + tone(6000.0, level / 10, 4.0)
    for block in blocks(sound):
        features = analysis.feed(block, AUTO)
    assert features.level > 0.9 and features.low > 0.9
    for block in blocks(sound[:RATE] * 0.5):
        softer = analysis.feed(block, AUTO)
    assert 0.4 < softer.level < 0.6 and 0.4 < softer.low < 0.6


def test_noise_is_not_blown_up_by_the_automatic_gain() -> None:
    analysis = Analysis(RATE)
    for block in blocks(tone(1000.0, 10.0 ** (-56 / 20), 11.0)):
        features = analysis.feed(block, AUTO)
    assert 0.3 < features.mid < 0.6, "-56 dB over -50 dB"


def test_the_gain_by_hand_is_in_decibels_and_readings_end_at_1() -> None:
    sound = tone(1000.0, 0.05)
    assert Analysis(RATE).feed(sound, PLAIN).mid == pytest.approx(0.05, rel=0.05)
    assert Analysis(RATE).feed(sound, Settings(False, 10.0, 0.0)).mid == pytest.approx(0.5, rel=0.05)
    assert Analysis(RATE).feed(sound, Settings(False, 100.0, 0.0)).mid == 1.0


def test_readings_fall_with_the_release() -> None:
    analysis = Analysis(RATE)
    slow = Settings(auto=False, gain=1.0, release_s=0.5)
    for block in blocks(tone(1000.0, 0.5)):
        before = analysis.feed(block, slow)
    for _ in range(round(0.5 * RATE / HOP) + LONG // HOP):
        after = analysis.feed(np.zeros(HOP, np.float32), slow)
    assert after.mid == pytest.approx(before.mid / np.e, rel=0.15)


@pytest.mark.parametrize("before", ["silence", "music"])
def test_a_hit_shows_within_two_hundredths_of_a_second(before: str, tell: Callable[[str], None]) -> None:
    """From the first sample of a bass drum to the end of the block with which its onset is told, in blocks of 512."""
    late = []
    for shift in range(0, HOP, 64):
        start = RATE + shift
        sound = np.zeros(2 * RATE, np.float32)
        if before == "music":
            sound += tone(440.0, 0.05, 2.0) + tone(3000.0, 0.02, 2.0)
        sound[start : start + len(kick())] += kick()
        analysis, told = Analysis(RATE), 0.0
        for number, block in enumerate(blocks(sound)):
            features = analysis.feed(block, AUTO)
            end = (number + 1) * HOP
            if end <= start:
                told = features.onset
            elif features.onset == 1.0 and told < 1.0:
                late.append((end - start) / RATE * 1e3)
                break
        else:
            pytest.fail("the hit was not heard")
    tell(f"a hit after {before} is told after {np.mean(late):.1f} ms, {max(late):.1f} at most (blocks of 10.7 ms)")
    assert max(late) <= 2.1 * HOP / RATE * 1e3


def test_a_bass_drum_is_loud_in_the_low_band_within_three_hundredths_of_a_second() -> None:
    late = []
    for shift in range(0, 2 * HOP, 64):
        start = RATE + shift
        sound = np.zeros(2 * RATE, np.float32)
        sound[start : start + len(kick())] += kick()
        analysis = Analysis(RATE)
        lows = [analysis.feed(block, AUTO).low for block in blocks(sound)]
        first = next(number for number, low in enumerate(lows) if low > 0.5)
        late.append(((first + 1) * HOP - start) / RATE * 1e3)
    assert 0.0 < max(late) <= 32.0, late


def test_each_beat_is_one_hit() -> None:
    analysis, hits, last = Analysis(RATE), [], 0.0
    sound = np.zeros(8 * RATE, np.float32)
    beats = [round((0.5 + n * 60.0 / 126.0) * RATE) for n in range(15)]
    for at in beats:
        sound[at : at + len(kick())] += kick()
    for number, block in enumerate(blocks(sound)):
        onset = analysis.feed(block, AUTO).onset
        if onset == 1.0 and last < 1.0:
            hits.append(number * HOP)
        last = onset
    assert len(hits) == len(beats)
    assert max(abs(hit - at) for hit, at in zip(hits, beats, strict=True)) < 3 * HOP


def test_a_steady_sound_has_no_hits() -> None:
    analysis = Analysis(RATE)
    noise = np.random.default_rng(2).normal(0.0, 0.1, 6 * RATE).astype(np.float32)
    told = [analysis.feed(block, AUTO).onset for block in blocks(noise)]
    assert max(told[100:]) < 0.01


@pytest.mark.parametrize("size", [1, 441, 512, 1600, 48000])
def test_blocks_of_any_length_give_the_same(size: int) -> None:
    sound = tone(300.0, 0.2, 1.5)
    analysis = Analysis(RATE)
    for block in blocks(sound, size):
        features = analysis.feed(block, PLAIN)
    assert features.mid == pytest.approx(0.2, rel=0.05)


def test_what_is_no_number_counts_as_silence() -> None:
    analysis = Analysis(RATE)
    for bad in (np.nan, np.inf, -np.inf, 3e38):
        block = tone(300.0)[:HOP].copy()
        block[7] = bad
        features = analysis.feed(block, AUTO)
    assert features == SILENCE
    assert isinstance(features, Features)
    assert analysis.feed(tone(300.0), AUTO).mid > 0.5


def test_it_costs_a_hundredth_of_a_core(tell: Callable[[str], None]) -> None:
    """Music in blocks of 10.7 ms, by the processor time of this thread."""
    noise = np.random.default_rng(3).normal(0.0, 0.1, 4 * RATE).astype(np.float32)
    parts, costs = blocks(noise), []
    for _ in range(3):
        analysis = Analysis(RATE)
        began = time.thread_time()
        for block in parts:
            analysis.feed(block, AUTO)
        costs.append((time.thread_time() - began) / 4.0)
    tell(f"the analysis takes {min(costs):.2%} of a core")
    assert min(costs) < 0.02
