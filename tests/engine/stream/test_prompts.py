"""Blends of prompts, and the interpolation between them over time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from engine.errors import ModelError
from engine.models.spec import Conditioning
from engine.stream.prompts import BLENDS, Prompts, lengthened, linear, slerp

SEEDED = torch.Generator().manual_seed(1)
A, B = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).split(2)
B = torch.cat((B[:1], torch.zeros(1, 8)))


class Letters:
    """Encodes the prompts "a" and "b", and counts the calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, text: str) -> Conditioning:
        self.asked.append(text)
        return Conditioning(text, {"a": A, "b": B}[text], unknown=("b",) if text == "b" else ())


@pytest.mark.parametrize("blend", BLENDS.values())
def test_a_blend_starts_at_one_end_and_ends_at_the_other(blend) -> None:
    torch.testing.assert_close(blend([(A, 1.0), (B, 0.0)]), A)
    torch.testing.assert_close(blend([(A, 0.0), (B, 1.0)]), B)
    torch.testing.assert_close(blend([(A, 1.0)]), A)


def test_slerp_turns_evenly_and_keeps_the_length() -> None:
    a, b = torch.eye(8)[:1] * 2, torch.eye(8)[1:2] * 4
    middle = slerp([(a, 0.5), (b, 0.5)])
    assert float(middle.norm()) == pytest.approx(3.0)
    assert float(middle[0, 0]) == pytest.approx(float(middle[0, 1]))
    third = slerp([(a, 2 / 3), (b, 1 / 3)])
    assert math.degrees(math.atan2(float(third[0, 1]), float(third[0, 0]))) == pytest.approx(30.0, abs=1e-3)
    nothing = torch.zeros_like(a)
    torch.testing.assert_close(slerp([(a, 0.5), (nothing, 0.5)]), a / 2, msg="a row that only one prompt has shortens")
    assert torch.equal(slerp([(a, 0.5), (-a, 0.5)]), nothing), "opposites cancel each other"


def test_a_spherical_mean_of_four_has_their_length_and_no_order() -> None:
    tokens = [3.0 * torch.nn.functional.normalize(row, dim=0)[None] for row in torch.randn(4, 16, generator=SEEDED)]
    parts = list(zip(tokens, (0.4, 0.3, 0.2, 0.1), strict=True))
    mean = slerp(parts)
    assert float(mean.norm()) == pytest.approx(3.0, rel=1e-4)
    for other in itertools.permutations(parts):
        torch.testing.assert_close(slerp(other), mean, rtol=1e-4, atol=1e-4)
    # At the mean, the turns towards the parts, each times its share, cancel each other.
    unit, pull = mean / mean.norm(), torch.zeros_like(mean)
    for token, share in parts:
        along = token / token.norm()
        across = along - unit * (along * unit).sum()
        pull += share * across / across.norm() * torch.acos((along * unit).sum())
    assert float(pull.norm()) < 0.01
    assert float(linear(parts).norm()) < 2.4, "the weighted mean is much shorter"


def test_the_gain_is_whole_for_four_equal_shares_and_none_for_one() -> None:
    c, d = A.flip(0), A.flip(1)
    alone, pair, even = [(A, 1.0)], [(A, 0.5), (c, 0.5)], [(part, 0.25) for part in (A, B, c, d)]
    torch.testing.assert_close(lengthened(alone, slerp, 1.5), A)
    torch.testing.assert_close(lengthened(even, slerp, 1.5), 1.5 * slerp(even))
    torch.testing.assert_close(lengthened(pair, slerp, 1.5), (1 + 0.5 * 2 / 3) * slerp(pair))


def test_linear_blends_of_several_are_the_weighted_mean() -> None:
    c = A.flip(0)
    torch.testing.assert_close(linear([(A, 0.2), (B, 0.5), (c, 0.3)]), 0.2 * A + 0.5 * B + 0.3 * c)


def test_travel_takes_its_seconds_of_stream_time() -> None:
    prompts = Prompts(Letters(), linear, defer=False)
    assert torch.equal(prompts.update((("a", 1.0),), 2.0, 0.0), A)
    assert prompts.update((("a", 1.0),), 2.0, 0.5) is None
    to_b = (("b", 1.0),)
    torch.testing.assert_close(prompts.update(to_b, 2.0, 1.0), torch.lerp(A, B, 0.25))
    torch.testing.assert_close(prompts.update(to_b, 2.0, 2.0), torch.lerp(A, B, 0.75))
    half_way_back = prompts.update((("a", 1.0),), 1.0, 2.5)
    torch.testing.assert_close(half_way_back, torch.lerp(torch.lerp(A, B, 0.75), A, 0.5))
    torch.testing.assert_close(prompts.update((("a", 1.0),), 1.0, 9.0), A)
    assert prompts.update((("a", 1.0),), 1.0, 9.5) is None


def test_frames_without_times_change_at_once_and_time_that_jumps_back_counts_as_none() -> None:
    prompts = Prompts(Letters(), linear, defer=False)
    prompts.update((("a", 1.0),), 5.0, 0.0)
    assert torch.equal(prompts.update((("b", 1.0),), 5.0, 0.0), B)
    prompts.update((("a", 1.0),), 4.0, 1.0)
    torch.testing.assert_close(prompts.update((("a", 1.0),), 4.0, -7.0), torch.lerp(B, A, 0.25))


def test_a_prompt_is_encoded_once_and_unknown_words_are_told() -> None:
    letters = Letters()
    prompts = Prompts(letters, slerp, defer=False)
    for now in range(4):
        prompts.update((("a", 0.5), ("b", 0.5)), 0.0, float(now))
    assert letters.asked == ["a", "b"]
    assert prompts.unknown == ("b",)
    assert prompts.describe() == "50% a + 50% b"


@pytest.mark.parametrize("error", [ModelError("no encoder"), MemoryError("no memory"), RuntimeError("CUDA error")])
def test_a_prompt_that_fails_is_an_error_or_left_to_others(error: Exception) -> None:
    class Broken(Letters):
        def encode(self, text: str) -> Conditioning:
            self.asked.append(text)
            raise error

    with pytest.raises(type(error), match=str(error)):
        Prompts(Broken(), slerp, defer=False).update((("a", 1.0),), 0.0, 0.0)
    broken = Broken()
    prompts = Prompts(broken, slerp, defer=True)
    for now in range(3):
        assert prompts.update((("a", 1.0),), 0.0, float(now)) is None
        assert prompts.missing == ("a",)
    assert broken.asked == ["a"], "the stream tries once and goes on without"
    assert prompts.describe() == ""


def test_deferred_prompts_wait_for_whoever_encodes_them() -> None:
    prompts = Prompts(Letters(), slerp, defer=True)
    assert prompts.update((("a", 1.0),), 0.0, 0.0) is not None, "the first one cannot wait"
    assert prompts.update((("b", 1.0),), 0.0, 1.0) is None
    assert prompts.missing == ("b",)
    prompts.encode("b")
    assert torch.equal(prompts.update((("b", 1.0),), 0.0, 2.0), B)


def test_an_embedding_is_uploaded_by_who_encodes_it_and_the_video_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Recorded:
        arrived = False

        def __init__(self, copy: Tensor) -> None:
            self._copy = copy

        def wait(self) -> Tensor:
            events.append("the video waits")
            return self._copy

    class Up:
        def send(self, source: Tensor) -> Recorded:
            events.append("sent")
            return Recorded(source)

    monkeypatch.setattr("engine.stream.prompts.transfers", lambda device: (Up(), Up()))
    prompts = Prompts(Letters(), linear, defer=True)
    assert prompts.encode("a").embedding is A
    prompts.encode("b")
    assert events == ["sent", "sent"]
    assert prompts.update((("a", 0.5), ("b", 0.5)), 0.0, 0.0) is not None
    assert events[2:] == ["the video waits", "the video waits"], "every tensor of another stream is waited for"
