"""The stream: streamed equals offline, batch equals no batch, positions, rows that join and leave, a long run."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import psutil
import pytest
import torch
from torch import Tensor

from engine.models.spec import CacheShape, Codec, ModelSpec, Schedule
from engine.models.wan21.build import build_codec
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED, Gaussian
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

SHAPE = DiTShape(dim=48, heads=2, layers=2, ffn=64, text_dim=16, text_len=6, freq_dim=32)
SPEC = ModelSpec(
    name="test",
    family="wan21",
    title="test",
    network=SHAPE,
    cache=CacheShape(slots=6, sinks=3, wrap_at=50),
    schedule=Schedule(),
    vae={"base": 4, "blocks": 1},
)
SIDE = 32


def network(shape: DiTShape = SHAPE) -> CausalDiT:
    dit = CausalDiT(shape)
    dit.init_weights(torch.Generator().manual_seed(1))
    return dit.eval().requires_grad_(False)


DIT = network()
CODEC = build_codec(SPEC, "full", torch.device("cpu"), torch.float32, {})


def stream(
    spec: ModelSpec = SPEC,
    *,
    batch: bool = True,
    rule: Rule = Rule.REFERENCE,
    steps: int = 4,
    dit: CausalDiT | None = None,
    codec: Codec = CODEC,
) -> LocalStream:
    noise = Gaussian((16, SIDE // 8, SIDE // 8), "cpu", steps=steps, fixed=spec.schedule.fixed_noise, seed=3)
    made = LocalStream(
        spec,
        dit or (DIT if spec.network == SHAPE else network(spec.network)),
        codec,
        height=SIDE,
        width=SIDE,
        noise=noise,
        rule=rule,
        noise_rule=RELEASED,
        batch=batch,
        max_steps=steps,
    )
    made.set_prompt(
        torch.randn(spec.network.text_len, spec.network.text_dim, generator=torch.Generator().manual_seed(2))
    )
    return made


def latents(count: int, frames: int = 1, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 16, frames, SIDE // 8, SIDE // 8, generator=generator) for _ in range(count)]


def run(made: LocalStream, xs: list[Tensor], timesteps: tuple[int, ...] = (700,)) -> list[tuple[int, Tensor]]:
    out = []
    for ticket, x in enumerate(xs):
        out += made.denoise(x, torch.tensor(timesteps[0]), timesteps, ticket)
    return out


def test_cached_attention_equals_block_causal_attention_while_nothing_is_evicted() -> None:
    for block in (1, 3):
        slots = 6
        spec = replace(SPEC, first_latents=block, frames_per_block=block, cache=CacheShape(slots, 0, wrap_at=50))
        made = stream(spec, rule=Rule.HONEST)
        xs = latents(slots // block, block)
        streamed = torch.cat([clean for _, clean in run(made, xs)], dim=2)
        whole = torch.cat(xs, dim=2)
        text = torch.randn(SHAPE.text_len, SHAPE.text_dim, generator=torch.Generator().manual_seed(2))[None]
        flow = DIT(whole, torch.full((1, slots), 700), text, frames_per_block=block)
        offline = whole - made.sigmas.at(torch.tensor(700)) * flow
        torch.testing.assert_close(streamed, offline, atol=2e-5, rtol=0)


def test_stream_batch_equals_no_batch_at_one_step() -> None:
    xs = latents(1, 2) + latents(20, seed=1)
    with_batch, without = run(stream(), xs), run(stream(batch=False), xs)
    assert [t for t, _ in with_batch] == [t for t, _ in without] == list(range(21))
    for (_, a), (_, b) in zip(with_batch, without, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_reset_equals_new(rule: Rule, threshold: float | None) -> None:
    spec = replace(SPEC, cache=replace(SPEC.cache, threshold=threshold))
    made = stream(spec, rule=rule)
    xs = latents(1, 2) + latents(9, seed=1)
    first = run(made, xs, (700, 500))
    run(made, latents(1), (700, 500))
    made.reset()
    made.noise.reset()
    again = run(made, xs, (700, 500))
    assert [t for t, _ in first] == [t for t, _ in again]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))
    assert all(bool(clean.isfinite().all()) for _, clean in again)


def test_a_chunk_leaves_after_as_many_calls_as_it_has_steps() -> None:
    made = stream()
    made.denoise(latents(1, 2)[0], torch.tensor(700), (700, 500, 400), "first")
    for call, x in enumerate(latents(6)):
        done = made.denoise(x, torch.tensor(700), (700, 500, 400), call)
        assert [t for t, _ in done] == ([call - 2] if call >= 2 else [])


def test_a_row_joins_with_the_history_of_its_neighbour() -> None:
    made = stream()
    run(made, latents(1, 2) + latents(8, seed=1))
    made.denoise(latents(1)[0], torch.tensor(700), (700, 500), "two steps")
    cache = made.state.cache
    newest = int(cache.slot_ASF[0, 0, 0])
    others = [slot for slot in range(6) if slot != newest]
    assert all(torch.equal(k_SRfJK[0, others], k_SRfJK[1, others]) for k_SRfJK in cache.k_SRfJK)
    made.denoise(latents(1)[0], torch.tensor(700), (700, 500), "next")
    assert int(cache.slot_ASF[0, 1, 0]) == newest, "the second row writes the slot that the first one wrote"


def test_fewer_steps_end_what_is_in_flight_in_order() -> None:
    made = stream()
    made.denoise(latents(1, 2)[0], torch.tensor(700), (700, 500, 400, 200), "first")
    xs = latents(8)
    for call in range(3):
        assert made.denoise(xs[call], torch.tensor(700), (700, 500, 400, 200), call) == []
    done = made.denoise(xs[3], torch.tensor(700), (700,), 3)
    assert [t for t, _ in done] == [0, 1, 2, 3]
    assert made.state.flights == []


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_bfloat16_stays_near_float32(threshold: float | None) -> None:
    spec = replace(SPEC, cache=replace(SPEC.cache, threshold=threshold))
    xs = latents(1, 2) + latents(12, seed=1)
    exact = run(stream(spec), xs, (700, 500))
    rough = run(stream(spec, dit=network().bfloat16()), xs, (700, 500))
    for (_, a), (_, b) in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32
        assert float((a - b).square().mean().sqrt() / a.square().mean().sqrt()) < 0.03


def test_positions_wrap_and_never_jump() -> None:
    made = stream()
    made.denoise(latents(1, 2)[0], torch.tensor(700), (700,), "first")
    seen = []
    for ticket, x in enumerate(latents(110)):
        seen.append(made.state.position)
        made.denoise(x, torch.tensor(700), (700,), ticket)
    assert seen[:50] == [*range(2, 50), 5, 6]
    assert all(b - a == 1 or (a, b) == (49, 5) for a, b in pairwise(seen))


def test_a_prompt_changes_the_picture_and_keeps_the_history() -> None:
    xs = latents(1, 2) + latents(8, seed=1)
    plain, other = stream(), stream()
    run(plain, xs[:5])
    run(other, xs[:5])
    before = torch.stack(plain.state.cache.k_SRfJK)
    other.set_prompt(torch.ones(SHAPE.text_len, SHAPE.text_dim))
    assert torch.equal(torch.stack(other.state.cache.k_SRfJK), before)
    a = plain.denoise(xs[5], torch.tensor(700), (700,), 0)[0][1]
    b = other.denoise(xs[5], torch.tensor(700), (700,), 0)[0][1]
    assert not torch.allclose(a, b, atol=1e-3)


def test_every_tensor_stays_where_it_was_allocated() -> None:
    made = stream()
    before = {name: tensor.data_ptr() for name, tensor in made.state.tensors()}
    video = torch.rand(3, 5, SIDE, SIDE) * 2 - 1
    for call in range(9):
        steps = steps_for(SPEC.schedule, 0.8, 1 + call % 4)
        noisy, first = made.encode(video[:, : 5 if call == 0 else 4], steps)
        for _, clean in made.denoise(noisy, first, steps.timesteps, call, anchor=call == 6):
            made.decode(clean)
    made.reset()
    assert {name: tensor.data_ptr() for name, tensor in made.state.tensors()} == before


def test_a_long_run_keeps_memory_flat_and_values_finite() -> None:
    """TIDECAST_CHUNKS=10000 runs the full length; the default is short for the test suite."""
    chunks = int(os.environ.get("TIDECAST_CHUNKS", "600"))
    spec = replace(SPEC, network=replace(SHAPE, layers=1))
    made = stream(spec, steps=2)
    made.denoise(latents(1, 2)[0], torch.tensor(700), (700, 500), -1)
    process = psutil.Process()
    x, sizes, spread = latents(1)[0], [], []
    for chunk in range(chunks):
        for _, clean in made.denoise(x, torch.tensor(700), (700, 500), chunk):
            assert bool(clean.isfinite().all())
            spread.append(float(clean.std()))
        if chunk % (chunks // 20) == 0:
            sizes.append(process.memory_info().rss / 2**20)
    assert made.state.number == chunks + 2
    assert 5 <= made.state.position < 50
    late = spread[len(spread) // 2 :]
    assert abs(sum(late) / len(late) - spread[50]) < 0.25 * spread[50]
    print(f"\n{chunks} chunks: {sizes[2]:.1f} MiB after a tenth, {sizes[-1]:.1f} MiB at the end")
    assert sizes[-1] - sizes[2] < 8.0


@pytest.mark.parametrize("batch", [True, False])
def test_a_stream_that_was_saved_and_restored_goes_on_as_the_one_that_was_not(batch: bool) -> None:
    xs = latents(12)
    whole = run(stream(batch=batch), xs, (900, 700, 500))
    before, after = stream(batch=batch), stream(batch=batch)
    first = run(before, xs[:7], (900, 700, 500))
    after.restore(before.save())
    kept = before.noise.tensors()
    after.noise.resume(before.noise.seed, kept["generator"])
    rest = []
    for ticket, x in enumerate(xs[7:], start=7):
        rest += after.denoise(x, torch.tensor(900), (900, 700, 500), ticket)
    assert [ticket for ticket, _ in first + rest] == [ticket for ticket, _ in whole]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first + rest, whole, strict=True))
