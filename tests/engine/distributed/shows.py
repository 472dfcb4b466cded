"""Streams of the tiny model, in one process or over several ranks, and a show that they play."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from engine.distributed.chunk_plan import text_versions
from engine.distributed.pipeline_stream import PipelineStream
from engine.distributed.ring import Job, Ring
from engine.models import registry
from engine.models.wan21.build import WordVectors
from engine.network.protocol import keep_blocks
from engine.stream.kv_cache import Rule
from engine.stream.noise import RULES, Gaussian
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

SPEC = registry.get("wan21-tiny")
CPU = torch.device("cpu")
STEPS = (2, 2, 2, 3, 3, 1, 1, 4, 4, 4, 2, 2, 4, 4, 1, 3, 3, 3, 2, 2)
STRENGTHS = (0.8, 0.5, 1.0)
PROMPTS = (0, 5, 9, 10, 14)


def processes(job: Job) -> Ring:
    """A ring of processes on this machine."""
    return Ring(job, ["cpu"] * len(job.split))


def make(size: int, split=None, *, rule=Rule.REFERENCE, decodes=False, ring: Callable[[Job], Any] = processes):
    """A stream of the tiny model: in one process, or with one rank per interval of `split`."""
    noise = Gaussian((16, size // 8, size // 8), CPU, steps=4, fixed=False)
    parts = registry.builder(SPEC)
    dit = parts.build_network(SPEC, CPU, torch.float32, {})
    codec = parts.build_codec(SPEC, "full", CPU, torch.float32, {})
    settings = dict(
        height=size, width=size, noise=noise, rule=rule, noise_rule=RULES["released"], batch=True, max_steps=4
    )
    if split is None:
        return LocalStream(SPEC, dit, codec, **settings), noise
    job = Job(
        SPEC.name, size, size, split, 4, text_versions(4, len(split)), str(rule), "full", "float32", decodes, threads=1
    )
    keep_blocks(dit, *split[0])
    return PipelineStream(ring(job), SPEC, dit, codec, **settings), noise


def play(stream: LocalStream | PipelineStream, noise: Gaussian, between=None):
    """A show with a change of steps, strength, prompt, seed or anchor at almost every chunk."""
    words, generator, out = WordVectors(SPEC), torch.Generator().manual_seed(3), []
    size = stream.ends.controller.last_frame.shape[-1]
    scene = torch.rand(3, 1, size, size, generator=generator) * 2 - 1
    for index, count in enumerate(STEPS):
        if between is not None:
            between(stream, index)
        if index in PROMPTS:
            stream.set_prompt(words.encode(f"prompt {index}").embedding)
        if index == 11:
            noise.set_seed(7)
        steps = steps_for(SPEC.schedule, STRENGTHS[index % 3], count)
        video = scene + 0.3 * torch.rand(3, 4 + (index == 0), size, size, generator=generator)
        noisy, first = stream.encode(video.clamp(-1, 1), steps)
        for ticket, clean in stream.denoise(noisy, first, steps.timesteps, index, anchor=index == 8):
            out.append((ticket, clean.clone(), stream.decode(clean).clone()))
    out += [(ticket, clean.clone(), stream.decode(clean).clone()) for ticket, clean in stream.flush()]
    stream.reset()
    return out


def largest_difference(got, want) -> float:
    """Between two shows, of latents and pixels; every chunk must be there, in order."""
    assert [g[0] for g in got] == [w[0] for w in want] == list(range(len(STEPS)))
    pairs = [(g[i], w[i]) for g, w in zip(got, want, strict=True) for i in (1, 2)]
    return max((g - w).abs().max().item() for g, w in pairs)


def splits_over(ranks: int) -> list[tuple[tuple[int, int], ...]]:
    """Every split of the tiny model's four blocks over this many ranks, each next to another one."""
    cuts = {2: [(2,), (3,), (1,)], 3: [(1, 2), (1, 3), (2, 3)], 4: [(1, 2, 3)]}[ranks]
    return [tuple(zip((0, *cut), (*cut, 4), strict=True)) for cut in cuts]
