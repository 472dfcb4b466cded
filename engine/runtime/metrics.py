"""Measurements of a session: its health, and the time of each stage of a chunk, without making the device wait.

On a GPU, a stage is timed with a pair of CUDA events. They are read after the chunk's frames have been downloaded, when
the device has finished anyway. Elsewhere stages are timed with the host's clock.
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
    """Settings and measurements of the newest chunk, and the state of the session.

    Attributes:
        noise: share of noise mixed into the chunk, as the setting of the strength control that stands for it.
        strength: its strength.
        steps: its number of denoising steps.
        stages: ms of each stage (upload, encode, dit, decode, download).
        in_flight: chunks that have been started but are not finished.
        chunks: chunks started since the session was opened.
        prompt: the prompt; if several are blended, with shares in per cent.
        unknown_words: words of the prompt that the model does not know.
        missing_prompts: wanted prompts that are not encoded yet (only with `defer_prompts`).
        loras: the loaded LoRAs: slot, name and trigger words.
        vram: GPU memory that this process has reserved, in GiB; 0 without a GPU.
        devices: number of devices that share the network.
        trouble: what went wrong and what was done about it, for the user; empty if nothing did.
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
    loras: str = ""
    vram: float = 0.0
    devices: int = 1
    trouble: str = ""


class StageTimers:
    """Measures the time of each stage of a chunk."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device
        self._host: dict[str, float] = {}
        self._events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of the `with` statement; times of the same name are added."""
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
        """ms of every stage since the last call. Call it when the device has finished the chunk; else it waits."""
        for name, pairs in self._events.items():
            pairs[-1][1].synchronize()
            self._host[name] = sum(begin.elapsed_time(end) for begin, end in pairs)
        times = {name: self._host.get(name, 0.0) for name in STAGES}
        self._host, self._events = {}, {}
        return times
