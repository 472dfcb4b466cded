"""Tempo by tapping."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.tempo.state import MAX_BPM, MIN_BPM
from bridge.control.tempo.taps import BOUNCE_NS, FORGET_NS, Tap, Taps

MS = 1_000_000
START_NS = 7_000_000_000_000


def tapped(intervals_ms: list[float]) -> list[Tap | None]:
    taps, ns = Taps(), START_NS
    found = [taps.add(ns)]
    for interval in intervals_ms:
        ns += round(interval * MS)
        found.append(taps.add(ns))
    return found


def last_bpm(intervals_ms: list[float]) -> float:
    tap = tapped(intervals_ms)[-1]
    assert tap is not None and tap.bpm is not None
    return tap.bpm


def test_a_first_tap_tells_no_tempo_and_a_second_does() -> None:
    first, second = tapped([500.0])
    assert first == Tap(None, False)
    assert second is not None and second.bpm == pytest.approx(120.0)


def test_sixteen_taps_are_better_than_four() -> None:
    wrong = {4: 0.0, 16: 0.0}
    for seed in range(200):
        noise = random.Random(seed)
        times = [500.0 * n + noise.gauss(0.0, 20.0) for n in range(16)]
        for count in wrong:
            intervals = [after - before for before, after in pairwise(times[:count])]
            wrong[count] += abs(last_bpm(intervals) - 120.0) / 200
    assert wrong[16] < 0.5
    assert wrong[16] < wrong[4] / 4


def test_taps_before_the_last_sixteen_no_longer_count() -> None:
    drift = [500.0] * 8 + [480.0] * 16
    assert last_bpm(drift) == pytest.approx(125.0, abs=0.01)


@pytest.mark.parametrize("percent", [-14.0, 0.0, 14.0])
def test_a_missed_tap_is_two_beats(percent: float) -> None:
    steady = [500.0] * 6
    missed = 1000.0 * (1.0 + percent / 100.0)
    found = last_bpm([*steady, missed])
    assert found == pytest.approx(120.0, rel=abs(percent) / 100.0 + 1e-6)
    assert last_bpm([*steady, 1000.0]) == pytest.approx(120.0)


def test_a_double_tap_is_half_a_beat_and_the_next_is_on_the_beat() -> None:
    found = tapped([500.0, 500.0, 500.0, 250.0, 250.0, 500.0])
    assert [tap is not None and tap.between for tap in found] == [False] * 4 + [True, False, False]
    assert all(tap is not None and tap.bpm == pytest.approx(120.0) for tap in found[1:])


def test_an_interval_that_fits_nothing_begins_another_tempo() -> None:
    assert last_bpm([500.0, 500.0, 500.0, 700.0]) == pytest.approx(60_000 / 700)
    assert last_bpm([500.0, 500.0, 500.0, 700.0, 700.0]) == pytest.approx(60_000 / 700)


def test_a_pause_of_two_seconds_forgets() -> None:
    found = tapped([500.0, 500.0, FORGET_NS / MS + 1.0, 400.0])
    assert found[3] == Tap(None, False)
    assert found[4] is not None and found[4].bpm == pytest.approx(150.0)


def test_a_button_that_bounces_and_a_flood_are_one_tap() -> None:
    taps = Taps()
    taps.add(START_NS)
    assert [taps.add(START_NS + n) for n in range(0, BOUNCE_NS, BOUNCE_NS // 1000)] == [None] * 1001
    found = taps.add(START_NS + 500 * MS)
    assert found is not None and found.bpm == pytest.approx(120.0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2_500_000_000), max_size=40))
def test_whatever_is_tapped_is_a_tempo(intervals: list[int]) -> None:
    taps, ns = Taps(), START_NS
    for interval in intervals:
        ns += interval
        found = taps.add(ns)
        assert found is None or found.bpm is None or MIN_BPM <= found.bpm <= MAX_BPM * 1.001
