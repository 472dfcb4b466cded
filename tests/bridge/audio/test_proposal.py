"""The tempo that is heard: of a beat with hats, of noise, and the time that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.audio.analysis import HOP, Analysis, Settings
from bridge.audio.proposal import LEAST_S, Proposal, tempo_of
from tests.bridge.audio.test_analysis import RATE, blocks, kick

HOPS = RATE / HOP


def music(bpm: float, seconds: float) -> np.ndarray:
    """A bass drum on every beat, and a softer hat between two."""
    rng = np.random.default_rng(int(bpm))
    sound = rng.normal(0.0, 0.002, round(seconds * RATE)).astype(np.float32)
    hat = (rng.normal(0.0, 0.15, 2400) * np.exp(-np.arange(2400) / 500.0)).astype(np.float32)
    for n in range(int(seconds * bpm / 30.0)):
        part = kick() if n % 2 == 0 else hat
        at = round(n * 30.0 / bpm * RATE)
        part = part[: len(sound) - at]
        sound[at : at + len(part)] += part
    return sound


def strengths(sound: np.ndarray) -> list[float]:
    analysis = Analysis(RATE)
    for block in blocks(sound):
        analysis.feed(block, Settings())
    return analysis.take_strengths()


@pytest.mark.parametrize("bpm", [84.0, 100.0, 126.0, 140.0, 174.0])
def test_the_tempo_of_a_beat_is_heard(bpm: float) -> None:
    assert tempo_of(np.array(strengths(music(bpm, 8.0))), HOPS) == pytest.approx(bpm, abs=0.5)


def test_noise_and_silence_have_none() -> None:
    rng = np.random.default_rng(7)
    assert tempo_of(rng.random(750), HOPS) == 0.0
    assert tempo_of(np.zeros(750), HOPS) == 0.0


def test_it_is_proposed_when_it_was_found_twice_and_forgotten_with_the_music() -> None:
    proposal = Proposal(HOPS)
    heard = strengths(music(126.0, 20.0))
    second = round(HOPS)
    after = 0
    while not proposal.bpm:
        proposal.add(heard[after * second : (after + 1) * second])
        after += 1
        assert after < 12
    assert LEAST_S <= after <= LEAST_S + 2 and proposal.bpm == pytest.approx(126.0, abs=0.5)
    for _ in range(12):
        proposal.add([0.0] * second)
    assert proposal.bpm == 0.0
