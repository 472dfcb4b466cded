"""Self-Forcing and its relatives: warped timesteps, the clean pass, and a network that sees the source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.models import registry
from engine.models.spec import CacheShape, ModelSpec, Schedule
from engine.models.wan21 import build, checkpoint
from engine.network.dit import CausalDiT
from engine.network.protocol import InTurns
from engine.planning.roofline import chunk_forwards
from engine.runtime import fused_pass
from engine.runtime.graph_capture import Captured
from engine.runtime.graph_checker import GraphChecker
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED, NoiseController
from engine.stream.state import WorkKey
from engine.stream.stream import LocalStream
from engine.stream.timesteps import Sigmas, network_timesteps, steps_for
from tests.engine.stream.test_stream import SHAPE, SPEC, latents, stream

FAMILY = Schedule(
    steps=(1000, 750, 500, 250), default_steps=4, shift=5.0, strength=1.0, drop=0, warp=True, clean_pass=True
)
CLEAN = replace(SPEC, schedule=FAMILY, cache=CacheShape(6, 2), first_latents=2, frames_per_block=2)
STEPS = (1000, 750, 500)


@pytest.mark.parametrize(
    ("positions", "given"),
    [
        ((1000, 750, 500, 250), (1000, 937.5, 833.33, 625)),
        ((1000, 500), (1000, 833.33)),
        ((1000, 800, 600, 400, 200), (1000, 952.38, 882.35, 769.23, 555.56)),
        ((1000, 100), (1000, 357.14)),
    ],
)
def test_the_network_is_given_the_warped_list(positions: tuple[int, ...], given: tuple[float, ...]) -> None:
    table = network_timesteps(FAMILY)
    assert table[list(positions)].tolist() == pytest.approx(given, abs=5e-3)
    assert table[0] == 0
    exact = [5000 * p / (1000 + 4 * p) for p in positions]
    assert table[list(positions)].tolist() == pytest.approx(exact, abs=1e-3)
    assert Sigmas(FAMILY, "cpu").at(torch.tensor(positions)).tolist() == pytest.approx([t / 1000 for t in exact])


def test_the_sigma_at_937_is_the_tables_own_and_other_lists_are_as_written() -> None:
    assert float(Sigmas(FAMILY, "cpu").at(torch.tensor(750))) == 0.9375
    released = registry.get("wan21-1.3b").schedule
    assert torch.equal(network_timesteps(released), torch.arange(1001))
    assert steps_for(released, 0.8, 4).timesteps == (700, 500, 400, 200)


def test_the_time_embeddings_have_the_fraction() -> None:
    dit = build.build_network(registry.get("wan21-tiny"), torch.device("cpu"), torch.float32, {})
    found = dit.tables(4, 4, network_timesteps(FAMILY)).time.e_BFD[0, 750]
    torch.testing.assert_close(found, dit.time(torch.tensor([[937.5]])).e_BFD[0, 0])


def test_strength_takes_the_tail_of_the_list_and_glides_between() -> None:
    assert steps_for(FAMILY, 1.0, 4).timesteps == (1000, 750, 500, 250)
    assert steps_for(FAMILY, 0.75, 4).timesteps == (750, 500, 250)
    assert steps_for(FAMILY, 0.5, 4).timesteps == (500, 250)
    assert steps_for(FAMILY, 0.75, 4).noise == 0.9375
    assert steps_for(FAMILY, 0.6, 2).timesteps == (600, 350)
    before = steps_for(FAMILY, 0.05, 4)
    for n in range(51, 1001):
        now = steps_for(FAMILY, n / 1000, 4)
        assert all(0 <= b - a <= 1 for a, b in zip(before.timesteps, now.timesteps, strict=False))
        assert now.timesteps[-1] <= 250, "a step joins at the end of the list, where it changes least"
        before = now


@pytest.mark.parametrize("motion", [0.0, 1.0])
def test_motion_lowers_the_first_step_but_not_below_the_second(motion: float) -> None:
    controller = NoiseController(RELEASED, 4, 4, "cpu")
    steps = steps_for(FAMILY, 1.0, 4)
    controller.begin(torch.zeros(3, 1, 4, 4), steps)
    for level in (1.0, -1.0):
        share, first = controller.update(torch.full((3, 4, 4, 4), level), steps, motion)
        assert int(first) == (751 if motion else 1000)
        position = Sigmas(FAMILY, "cpu").at(first)
        assert float(share) == pytest.approx(float(position), abs=2e-4), "the network is told the noise that is there"


class Counted:
    """A runner that counts forwards."""

    def __init__(self) -> None:
        self.forwards = self.rows = 0

    def __call__(self, key: WorkKey, work, *inputs: Tensor) -> Tensor:
        if key.stage == "forward":
            assert key.rows == len(inputs[0])
            self.forwards += 1
            self.rows += key.rows
        return work(*inputs)


def cleaned(
    spec: ModelSpec = CLEAN, dit: CausalDiT | None = None, *, rule: Rule = Rule.HONEST, fused: bool = True
) -> LocalStream:
    made = stream(spec, rule=rule, dit=dit)
    assert not made.batch, "such a stream has one history"
    assert made.fused, "this network can take the clean pass and a first step in one forward"
    made.fused = fused
    return made


def denoised(made: LocalStream, xs: list[Tensor], timesteps: tuple[int, ...] = STEPS) -> list[Tensor]:
    return [
        clean
        for number, x in enumerate(xs)
        for _, clean in made.denoise(x, torch.tensor(timesteps[0]), timesteps, number)
    ]


def test_the_clean_pass_writes_the_history_and_no_picture() -> None:
    """The cache is that of one forward at timestep 0 over the finished latents, from the first chunk to the last."""
    made = cleaned()
    noisy = stream(replace(CLEAN, schedule=replace(FAMILY, clean_pass=False)), rule=Rule.HONEST, batch=False)
    once = stream(noisy.spec, rule=Rule.HONEST, batch=False)
    for number, x in enumerate(latents(6, 2)):
        (finished,) = denoised(made, [x])
        (without,) = denoised(noisy, [x])
        assert torch.equal(finished, without) is (number == 0), "a chunk is finished before its clean pass"
        made.settle()
        once.denoise(finished, torch.tensor(0), (0,), number)
        for layers in ("k_SRfJK", "v_SRfJK"):
            pairs = zip(getattr(made.state.cache, layers), getattr(once.state.cache, layers), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_n_steps_are_n_plus_one_forwards_or_n_with_one_row_more(count: int, fused: bool) -> None:
    made = cleaned(fused=fused)
    made.run = counted = Counted()
    timesteps = FAMILY.steps[:count]
    denoised(made, latents(5, 2), timesteps)
    assert counted.forwards == 5 * count + (0 if fused else 4), "the last chunk's clean pass is not due yet"
    made.settle()
    made.settle()  # nothing is due
    assert counted.rows == 5 * (count + 1)
    calls, rows = chunk_forwards(count, clean_pass=True, fused=fused)
    assert counted.forwards == 5 * calls + fused, "what plan and benchmarks count"
    assert rows == count + 1


VARIANTS = {
    "as released": CLEAN,
    "three layers": replace(CLEAN, network=replace(SHAPE, layers=3)),
    "one frame a block": replace(CLEAN, first_latents=1, frames_per_block=1, cache=CacheShape(5, 0)),
    "a longer first chunk": replace(CLEAN, first_latents=4, cache=CacheShape(8, 2)),
    "a window of two blocks": replace(CLEAN, cache=CacheShape(4, 0)),
    "positions that wrap": replace(CLEAN, cache=CacheShape(6, 2, wrap_at=8)),
    "sinks that are replaced": replace(
        CLEAN, first_latents=1, frames_per_block=1, cache=CacheShape(6, 3, threshold=0.99)
    ),
}


@pytest.mark.parametrize("rule", [Rule.HONEST, Rule.ADAPTIVE])
@pytest.mark.parametrize("timesteps", [STEPS, (900, 300), (640,)])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_clean_pass_in_the_next_first_step_equals_one_by_itself(
    name: str, timesteps: tuple[int, ...], rule: Rule
) -> None:
    spec = VARIANTS[name]
    xs = latents(1, spec.first_latents) + latents(9, spec.frames_per_block, seed=1)
    alone, fused = (cleaned(spec, rule=rule, fused=way) for way in (False, True))
    for made in (alone, fused):
        made.run = Counted()
    for number, x in enumerate(xs):
        wanted, found = (
            made.denoise(x, torch.tensor(timesteps[0] - 7), timesteps, number, anchor=number == 6)
            for made in (alone, fused)
        )
        torch.testing.assert_close(found[0][1], wanted[0][1], atol=2e-5, rtol=1e-4)
    alone.settle()
    fused.settle()
    history, other = alone.state.cache.tensors(), fused.state.cache.tensors()
    for key, tensor in history.items():
        torch.testing.assert_close(other[key], tensor, atol=2e-5, rtol=1e-4)
    assert torch.equal(history["queue"], other["queue"]) and torch.equal(history["slot"], other["slot"])
    shared = len(xs) - 1 - (spec.first_latents != spec.frames_per_block)
    assert alone.run.forwards - fused.run.forwards == shared  # type: ignore[attr-defined]


def test_with_a_source_the_clean_pass_in_a_first_step_has_its_own_source() -> None:
    pairs = [torch.cat(pair, dim=1) for pair in zip(latents(5, 2), latents(5, 2, seed=9), strict=True)]
    alone = denoised(cleaned(SOURCE, with_source(0.05), fused=False), pairs)
    fused = denoised(cleaned(SOURCE, with_source(0.05)), pairs)
    for wanted, found in zip(alone, fused, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_captured_work_fuses_the_clean_pass_too() -> None:
    """The capture is proved by a replay from the same state, which holds what the clean pass still attends to."""
    direct, captured = cleaned(), cleaned()
    direct.whole_text = captured.whole_text = True
    captured.run = runner = Captured(captured.state, GraphChecker(), 1e-4)
    for made in (direct, captured):
        made.set_prompt(torch.randn(SHAPE.text_len, SHAPE.text_dim, generator=torch.Generator().manual_seed(5)))
    wanted, found = (denoised(made, latents(8, 2)) for made in (direct, captured))
    assert runner.trouble == ""
    assert any(key.earlier for key in runner.keys)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("faster", [True, False])
def test_the_warm_up_keeps_the_faster_way(faster: bool) -> None:
    made, xs = cleaned(), iter(latents(20, 2))
    clock = [0.0]

    def chunk() -> None:
        denoised(made, [next(xs)])
        clock[0] += 1.0 if made.fused is faster else 1.5

    fused_pass.choose(made, chunk, lambda: clock[0])
    assert made.fused is faster


def test_a_network_that_cannot_take_turns_runs_its_clean_pass_alone() -> None:
    dit = CausalDiT(SHAPE)
    dit.init_weights(torch.Generator().manual_seed(1))
    dit.__class__ = type("Plain", (CausalDiT,), {"takes_turns": False})
    assert not stream(CLEAN, rule=Rule.HONEST, dit=dit.eval().requires_grad_(False)).fused
    with pytest.raises(TypeError, match="take turns"):
        InTurns(()).append(0, torch.zeros(1), torch.zeros(1))


def test_a_saved_stream_still_owes_its_clean_pass() -> None:
    xs = latents(8, 2)
    whole = cleaned()
    wanted = denoised(whole, xs)
    first = cleaned()
    denoised(first, xs[:4])
    saved = first.save()
    saved = replace(saved, tensors={name: tensor.clone() for name, tensor in saved.tensors.items()})
    second = cleaned()
    for number in range(4 * len(STEPS[1:])):
        second.noise.draw(number, 1, 2)
    second.restore(saved)
    found = denoised(second, xs[4:])
    assert all(torch.equal(a, b) for a, b in zip(wanted[4:], found, strict=True))


SOURCE = replace(CLEAN, network=replace(SHAPE, source_channels=16), schedule=replace(FAMILY, from_noise=True))


def with_source(weight: float) -> CausalDiT:
    """The network of `SHAPE`, and one that also takes a source, whose weights for it are `weight`."""
    plain, made = CausalDiT(SHAPE), CausalDiT(SOURCE.network)
    plain.init_weights(torch.Generator().manual_seed(1))
    tensors = plain.state_dict()
    known = tensors["patch_embedding.weight"]
    tensors["patch_embedding.weight"] = torch.cat((known, torch.full_like(known, weight)), dim=1)
    made.load_state_dict(tensors)
    return made.eval().requires_grad_(False)


def test_a_source_without_weights_changes_nothing() -> None:
    sources, xs = latents(4, 2, seed=9), latents(4, 2)
    both = [torch.cat(pair, dim=1) for pair in zip(xs, sources, strict=True)]
    plain = denoised(cleaned(), xs)
    found = denoised(cleaned(SOURCE, with_source(0.0)), both)
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    seen = denoised(cleaned(SOURCE, with_source(0.05)), both)
    assert not any(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))


def test_the_source_goes_into_every_forward_and_the_clean_pass() -> None:
    made = cleaned(SOURCE, with_source(0.05))
    seen: list[Tensor] = []

    def watched(key: WorkKey, work, *inputs: Tensor) -> Tensor:
        if key.stage == "forward":
            seen.append(inputs[0][:, 16:].clone())
        return work(*inputs)

    made.run = watched
    source = latents(1, 2, seed=9)[0]
    denoised(made, [torch.cat((latents(1, 2)[0], source), dim=1)])
    made.settle()
    assert len(seen) == len(STEPS) + 1
    assert all(torch.equal(part, source) for part in seen)


def test_a_network_with_a_source_starts_from_noise_whatever_the_strength() -> None:
    for strength in (0.0, 0.3, 1.0):
        steps = steps_for(SOURCE.schedule, strength, 4)
        assert (steps.timesteps, steps.noise, steps.depth) == ((1000, 750, 500, 250), 1.0, 0.0)
    made = cleaned(SOURCE, with_source(0.0))
    video = torch.rand(3, SOURCE.first_frames, 32, 32) * 2 - 1
    noisy, first = made.encode(video, steps_for(SOURCE.schedule, 0.5, 4))
    assert noisy.shape[1] == 32 and int(first) == 1000
    made.reset()
    assert torch.equal(noisy[:, 16:], made.mean(video))


def test_the_32_channels_are_read_from_the_file(tmp_path: Path) -> None:
    torch.save(with_source(0.1).state_dict(), tmp_path / "edit.pt")
    dit = build.build_network(CLEAN, torch.device("cpu"), torch.float32, {"dit": tmp_path / "edit.pt"})
    assert dit.source_channels == 16


@pytest.mark.parametrize("name", ["self-forcing-1.3b", "longlive-1.3b"])
def test_the_row_says_which_of_two_networks_in_a_file_is_used(name: str, tmp_path: Path) -> None:
    path = tmp_path / "two.pt"
    torch.save({"generator": {"model.a": torch.zeros(1)}, "generator_ema": {"model.a": torch.ones(1)}}, path)
    spec = registry.get(name)
    assert float(checkpoint.read(path, ema=spec.ema)["a"]) == float(name == "self-forcing-1.3b")


def test_the_first_chunk_of_a_frame_wise_network_has_the_long_list() -> None:
    schedule = registry.get("causal-2step-1.3b").schedule
    assert steps_for(schedule, 1.0, 2, opening=True).timesteps == (1000, 750, 500, 250)
    assert steps_for(schedule, 1.0, 2).timesteps == (1000, 500)
    assert steps_for(registry.get("causal-1step-1.3b").schedule, 1.0, 1).timesteps == (1000,)
