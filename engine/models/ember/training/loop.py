"""The training loop: steps, learning rate, averaged weights, and checkpoints that resume exactly.

The result of a step depends only on the weights, the optimiser's moments and the number of the step, which seeds the
generators of batches and noise. So an interrupted run ends with the same weights, to the bit, as one without
interruptions. Networks and data belong to a `Task`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn


class Task(Protocol):
    """What is trained: networks, data and loss."""

    modules: dict[str, nn.Module]
    """The modules to save and to average, by name."""

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters to train with their peak learning rates."""
        ...

    def loss(self, number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of step `number`, and figures for the log; all randomness comes from `generator` and `number`."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """The learning rate over time: linear warm-up, a plateau, and a cosine decay to zero once an end is set.

    Attributes:
        first, warmup: step at which the warm-up begins, and its length in steps.
        fall_from, fall_to: first and last step of the decay; None for a plateau without an end.
    """

    first: int = 0
    warmup: int = 40
    fall_from: int | None = None
    fall_to: int | None = None

    def at(self, number: int) -> float:
        """Factor on the peak rate at this step, 0 to 1."""
        rise = min(1.0, (number - self.first + 1) / self.warmup)
        if self.fall_from is None or self.fall_to is None or number < self.fall_from:
            return rise
        done = min(1.0, (number - self.fall_from) / max(1, self.fall_to - self.fall_from))
        return rise * (0.5 + 0.5 * math.cos(math.pi * done))


class Trainer:
    """Trains a task, and resumes from its checkpoint.

    Args:
        task: what is trained.
        path: the checkpoint; read if it exists, written every `every` seconds and at the end.
        seed: seed of all randomness.
        device: where the task computes.
        half: whether matmuls and convolutions run in bfloat16; weights and moments stay in fp32.
        average: decay per step of the exponential moving average of the weights.
        every: seconds between two checkpoints.
    """

    def __init__(
        self,
        task: Task,
        path: Path,
        seed: int,
        device: torch.device,
        *,
        half: bool = False,
        average: float = 0.996,
        every: float = 180.0,
    ) -> None:
        self.task, self.path, self.seed, self.average, self.every = task, path, seed, average, every
        self.device, self.half = device, half
        self.number = 0
        self.seconds = 0.0
        self.stopped = False
        self.pace = Pace()
        groups = [{"params": parameters, "lr": rate, "peak": rate} for parameters, rate in task.groups()]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.averages = {name: _copy(module) for name, module in task.modules.items()}
        if path.exists():
            self._load()

    def stop(self) -> None:
        """Let `run` end after the current step."""
        self.stopped = True

    def run(self, *, seconds: float = math.inf, steps: float = math.inf, report: Callable[[str], None] = print) -> None:
        """Train for this time or number of further steps, or until `stop` is called or the decay ends; then save."""
        started = saved = time.monotonic()
        last, first = self.seconds, self.number
        figures: dict[str, list[float]] = {}
        while self.number - first < steps and time.monotonic() - started < seconds and not self.stopped:
            if self.pace.fall_to is not None and self.number >= self.pace.fall_to:
                break
            for name, value in self._step().items():
                figures.setdefault(name, []).append(value)
            now = time.monotonic()
            self.seconds = last + now - started
            if self.number % 50 == 0:
                means = "  ".join(f"{name} {sum(values) / len(values):.4f}" for name, values in figures.items())
                report(f"step {self.number}  {self.seconds / 60:.1f} min  {means}")
                figures.clear()
            if now - saved > self.every:
                self.save()
                saved = now
        self.save()

    def _step(self) -> dict[str, float]:
        factor = self.pace.at(self.number)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.number)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss, figures = self.task.loss(self.number, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.number += 1
        weight = 1 - min(self.average, self.number / (self.number + 10))
        with torch.no_grad():
            for name, module in self.task.modules.items():
                state, averages = module.state_dict(), self.averages[name]
                torch._foreach_lerp_([averages[key] for key in state], list(state.values()), weight)
        return figures

    def save(self) -> None:
        """Write the checkpoint; a run that is killed leaves the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "number": self.number,
            "seconds": self.seconds,
            "seed": self.seed,
            "averages": self.averages,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "pace": (self.pace.first, self.pace.warmup, self.pace.fall_from, self.pace.fall_to),
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True, map_location=self.device)
        self.number, self.seconds, self.seed = state["number"], state["seconds"], state["seed"]
        self.averages, self.pace = state["averages"], Pace(*state["pace"])
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, (_, rate) in zip(self.optimizer.param_groups, self.task.groups(), strict=True):
            group["peak"] = rate  # the code takes precedence over the checkpoint


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
