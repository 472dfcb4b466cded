"""Warm-up: every path once before the first frame, so that nothing is compiled, tuned or allocated on stage.

Must not know frames or controls. (Capturing the step in CUDA graphs belongs here; the stream keeps fixed addresses
and reads nothing back for it.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.errors import ModelError
from engine.models.spec import ModelSpec
from engine.steps import steps_for
from engine.stream import Stream


def check(mode: str) -> None:
    """Refuse what is not built.

    Raises:
        ModelError: if `mode` asks for graphs or full compilation.
    """
    if mode in ("graphs", "full"):
        raise ModelError(f"compile = {mode!r} is not available in this version.", 'Choose compile = "auto" or "off".')


def warm_up(spec: ModelSpec, stream: Stream, height: int, width: int, say: Callable[[str], None]) -> None:
    """Run a first block, a full cache and every number of steps, then make the stream new again."""
    later = spec.frames_per_latent * spec.frames_per_block
    counts = [1] * spec.cache.slots + [*range(1, stream.max_steps + 1)] * 2
    for number, count in enumerate(sorted(counts)):
        say(f"warming up, {100 * number // len(counts)} %")
        video = torch.zeros(3, later if stream.begun else spec.first_frames, height, width, device=stream.device)
        steps = steps_for(spec.schedule, spec.schedule.strength, count)
        noisy, first = stream.encode(video, steps)
        for _, clean in stream.denoise(noisy, first, steps.timesteps, number):
            stream.decode(clean)
    stream.reset()
