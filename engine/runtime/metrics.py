"""Stage timers: how long each stage of a chunk took, without making the device wait.

On an accelerator a stage is timed by a pair of events on the stream of work, read after the chunk's frames have
been downloaded (which waits for them anyway); elsewhere by the host's clock. Knows nothing of what is timed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from engine.controls import STAGES


@dataclass(frozen=True, slots=True)
class Health:
    """What the last chunk was like.

    Attributes:
        noise: share of noise that was mixed into the newest chunk.
        strength: the strength in force.
        steps: denoising steps in force.
        stages: ms per stage of the last step (upload, encode, dit, decode, download).
        in_flight: chunks that have been begun and are not finished.
        chunks: chunks begun since the session was opened.
        prompt: the prompt in force, in words; shares in per cent when several are blended.
        unknown_words: words of it that the model does not know.
        missing_prompts: texts that are wanted and not encoded yet (only with `defer_prompts`).
        vram: memory in use on the accelerator, in GiB; 0 without one.
        devices: how many devices share the network.
        trouble: what went wrong and how it goes on, in words; empty when nothing did.
    """

    noise: float = 0.0
    strength: float = 0.0
    steps: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    in_flight: int = 0
    chunks: int = 0
    prompt: str = ""
    unknown_words: tuple[str, ...] = ()
    missing_prompts: tuple[str, ...] = ()
    vram: float = 0.0
    devices: int = 1
    trouble: str = ""


class StageTimers:
    """Times the stages of one chunk after the other."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device
        self._host: dict[str, float] = {}
        self._events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside; several times the same name add up."""
        if self._cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.setdefault(name, []).append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self._host[name] = self._host.get(name, 0.0) + (time.perf_counter() - began) * 1e3

    def read(self) -> dict[str, float]:
        """ms of every stage since the last reading; call it when the device has finished the chunk."""
        for name, pairs in self._events.items():
            pairs[-1][1].synchronize()
            self._host[name] = sum(begin.elapsed_time(end) for begin, end in pairs)
        times = {name: self._host.get(name, 0.0) for name in STAGES}
        self._host, self._events = {}, {}
        return times


def memory_gib(device: torch.device) -> float:
    """Memory in use on an accelerator, in GiB; 0 for a CPU."""
    return torch.cuda.memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
