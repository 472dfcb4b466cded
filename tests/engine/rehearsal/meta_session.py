"""Opens a whole session on torch's device `meta`, at a model's true sizes but for the number of blocks.

What goes between host and device passes through stand-ins, which count it: the transfers of pixels and prompts, and the
numbers of each forward, all from page-locked memory on a GPU. Whatever else copies from the host is in `Ledger.sends`,
and whatever the host reads from the device raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import opening
from engine import session as session_module
from engine.bench.kernel_count import Counts, KernelCounter
from engine.config import Config
from engine.models import registry
from engine.models.wan21 import build
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape, dit_shape
from engine.runtime.transfers import FinishedCopy
from engine.session import Session
from engine.stream import prompts
from engine.stream.state import WorkKey
from engine.stream.stream import LocalStream
from tests.engine.rehearsal.meta_stream import BLOCKS_RUN, META, stand_in


class Noise:
    """Stands for `Gaussian`: torch has no generator for this device."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, *, steps: int, fixed: bool) -> None:
        self._shape, self.seed = shape, 0

    def set_seed(self, seed: int) -> None:
        self.seed = seed

    def reset(self) -> None:
        pass

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        channels, height, width = self._shape
        return torch.randn(count, channels, frames, height, width, device=META)


class Crossings:
    """Counts what crosses between host and device, by direction."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def transfers(self, device: torch.device) -> tuple[_Transfer, _Transfer]:
        """Stands for `engine.runtime.transfers.transfers`."""
        return _Transfer(self.counts, "up", META), _Transfer(self.counts, "down", torch.device("cpu"))

    def numbers(self, numbers: Sequence[Any]) -> Tensor:
        """Stands for `LocalStream._to_device`."""
        self.counts["numbers"] += 1
        return torch.empty(torch.tensor(numbers).shape, dtype=torch.int64, device=META)


class _Transfer:
    def __init__(self, counts: Counter[str], direction: str, target: torch.device) -> None:
        self._counts, self._direction, self._target = counts, direction, target

    def send(self, source: Tensor) -> FinishedCopy:
        self._counts[self._direction] += 1
        return FinishedCopy(torch.zeros(source.shape, dtype=source.dtype, device=self._target))


def opened(patch: pytest.MonkeyPatch, config: Config) -> tuple[Session, Crossings]:
    """A session in bf16 on the device `meta`."""
    stand_in(patch)
    found = registry.get(config.model)
    assert isinstance(found.network, DiTShape)
    spec = replace(found, network=replace(found.network, layers=BLOCKS_RUN))
    crossings = Crossings()

    def network(*_: object) -> CausalDiT:
        with META:
            return CausalDiT(dit_shape(spec.network)).to(torch.bfloat16).eval().requires_grad_(False)

    patch.setattr(opening.registry, "get", lambda name: spec)
    patch.setattr(opening, "_prepare_device", lambda *_: (META, torch.bfloat16))
    patch.setattr(opening, "Gaussian", Noise)
    patch.setattr(build, "build_network", network)
    patch.setattr(session_module, "transfers", crossings.transfers)
    patch.setattr(prompts, "transfers", crossings.transfers)
    patch.setattr(LocalStream, "_to_device", lambda stream, numbers: crossings.numbers(numbers))
    return Session.open(config, files={}), crossings


def refuse_numbers(patch: pytest.MonkeyPatch) -> None:
    """From now on numbers of Python do not become tensors on the device: no operation shows that copy on `meta`."""
    for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (Tensor, "new_tensor")):
        patch.setattr(owner, name, _refusing(getattr(owner, name)))


def _refusing(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, **kwargs: Any) -> Tensor:
        found = make(*args, **kwargs)
        assert not found.is_meta, "a copy from ordinary host memory, for which the host waits"
        return found

    return made


def counted(session: Session, work: Callable[[], object]) -> dict[str, Counts]:
    """Kernels of the work by stage, as a CUDA graph holds them; those beside the stages under the empty name."""
    stages: dict[str, Counts] = {}
    stream = session._stream
    assert isinstance(stream, LocalStream)
    with KernelCounter() as counter:

        def run(key: WorkKey, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
            beside, counter.counts = counter.counts, Counts()
            result = part(*inputs)
            stages[key.stage], counter.counts = counter.counts, beside
            return result

        before, stream.run = stream.run, run
        try:
            work()
        finally:
            stream.run = before
    return stages | {"": counter.counts}
