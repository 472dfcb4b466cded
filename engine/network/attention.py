"""Scaled dot-product attention: one function for the whole engine, its kernel decided once for every shape in use.

Knows nothing of caches, rotary positions or models: it is given queries, keys and values and returns their mixture.
Which kernel is fastest for few queries over a long ring depends on the GPU and the libraries on it, so it is measured:
while `measuring`, at warm-up, every shape that comes up is run by each kernel there is. A kernel that cannot do it, or
whose result differs by more than the arithmetic explains, is left out. Any other shape is torch's own choice, as is
everything on a CPU, where its kernel was the fastest wherever it was compared.

Shape letters: B batch, L queries, M keys, J heads, K width of a head.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

try:
    from flash_attn_interface import flash_attn_func  # FlashAttention 3, an extra package for Hopper GPUs
except ImportError:
    flash_attn_func = None

log = logging.getLogger(__name__)

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Arguments and result of `attend`."""

TORCH = "torch"
"""Name of torch's own choice."""

MIN_GAIN = 0.03
"""Another kernel than torch's choice must be faster by this share: less is noise."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Most that a kernel may differ from torch's choice: root mean square, relative."""

ROUNDS, CALLS = 5, 4
"""A kernel's time is the median of so many rounds of so many calls."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a kernel is chosen for."""

    batch: int
    queries: int
    keys: int
    heads: int
    width: int
    masked: bool
    dtype: torch.dtype
    device: str

    def __str__(self) -> str:
        size = f"{self.batch} x {self.queries} queries, {self.keys} keys, {self.heads} heads of {self.width}"
        return f"{size}, {str(self.dtype).removeprefix('torch.')}{', masked' if self.masked else ''}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The kernel of one shape, and what each took, in ms."""

    name: str
    kernel: Kernel
    times_ms: Mapping[str, float]


decisions: dict[AttentionShape, Decision] = {}
"""What was decided in this process: facts about this computer."""

_measuring = False


def attend(q_BLJK: Tensor, k_BMJK: Tensor, v_BMJK: Tensor, mask_LM: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, per head.

    Args:
        q_BLJK: queries.
        k_BMJK, v_BMJK: keys and values, with any strides.
        mask_LM: broadcastable to [B, J, L, M]: bool, True where a query may look, or numbers that are added to
            the logits; None: look everywhere.

    Returns:
        [B, L, J, K], in memory order B L J K or B J L K as the kernel likes.
    """
    if not (decisions or _measuring):
        return _by_torch(q_BLJK, k_BMJK, v_BMJK, mask_LM)
    batch, queries, heads, width = q_BLJK.shape
    shape = AttentionShape(
        batch, queries, k_BMJK.shape[1], heads, width, mask_LM is not None, q_BLJK.dtype, q_BLJK.device.type
    )
    if _measuring and shape not in decisions:
        decisions[shape] = _measure(shape, kernels(q_BLJK.device), q_BLJK, k_BMJK, v_BMJK, mask_LM)
    kernel = decisions[shape].kernel if shape in decisions else _by_torch
    return kernel(q_BLJK, k_BMJK, v_BMJK, mask_LM)


@contextmanager
def measuring(yes: bool = True) -> Iterator[None]:
    """Inside, shapes that were not decided yet are measured when they come up. Only at warm-up: it takes a while."""
    global _measuring  # the one switch of the module, flipped by the one thread that warms up
    before, _measuring = _measuring, yes
    try:
        yield
    finally:
        _measuring = before


def kernels(device: torch.device) -> dict[str, Kernel]:
    """What there is for a device, torch's own choice first."""
    found: dict[str, Kernel] = {TORCH: _by_torch}
    if device.type == "cuda":
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
            found[backend.name.removesuffix("_ATTENTION").lower()] = partial(_by_backend, backend)
        if flash_attn_func is not None:
            found["flash3"] = _by_flash3
    return found


def _by_torch(q_BLJK: Tensor, k_BMJK: Tensor, v_BMJK: Tensor, mask_LM: Tensor | None) -> Tensor:
    out_BJLK = scaled_dot_product_attention(
        q_BLJK.transpose(1, 2), k_BMJK.transpose(1, 2), v_BMJK.transpose(1, 2), attn_mask=mask_LM
    )
    return out_BJLK.transpose(1, 2)


def _by_backend(backend: SDPBackend, q_BLJK: Tensor, k_BMJK: Tensor, v_BMJK: Tensor, mask_LM: Tensor | None) -> Tensor:
    with sdpa_kernel(backend):
        return _by_torch(q_BLJK, k_BMJK, v_BMJK, mask_LM)


def _by_flash3(q_BLJK: Tensor, k_BMJK: Tensor, v_BMJK: Tensor, mask_LM: Tensor | None) -> Tensor:
    if mask_LM is not None:
        raise RuntimeError("FlashAttention 3 takes no mask")
    found = flash_attn_func(q_BLJK, k_BMJK, v_BMJK)
    return found[0] if isinstance(found, tuple) else found  # earlier versions give the logarithmic sums too


def _measure(
    shape: AttentionShape,
    there: Mapping[str, Kernel],
    q_BLJK: Tensor,
    k_BMJK: Tensor,
    v_BMJK: Tensor,
    mask_LM: Tensor | None,
) -> Decision:
    """Run the shape by every kernel; the fastest, or torch's own choice unless another is faster by `MIN_GAIN`."""
    arguments = (q_BLJK, k_BMJK, v_BMJK, mask_LM)
    wanted = there[TORCH](*arguments).float()
    times: dict[str, float] = {}
    for name, kernel in there.items():
        try:
            with warnings.catch_warnings(action="ignore"):  # torch tells at length why a kernel is not for a shape
                found = kernel(*arguments).float()
            error = ((found - wanted).norm() / wanted.norm()).item()
            if not error <= TOLERANCE[shape.dtype]:
                log.warning("attention by %s is wrong on this device: %.1e relative, %s", name, error, shape)
                continue
            times[name] = _time_ms(partial(kernel, *arguments), q_BLJK.device)
        except RuntimeError as reason:  # not for this shape or this device
            log.debug("attention by %s is not for %s: %s", name, shape, reason)
    best = min(times, key=lambda name: times[name] * (1.0 if name == TORCH else 1 + MIN_GAIN), default=TORCH)
    log.info("attention for %s: %s", shape, ", ".join(f"{name} {ms:.3f} ms" for name, ms in times.items()))
    return Decision(best, there[best], times)


def _time_ms(work: Callable[[], Tensor], device: torch.device) -> float:
    """Milliseconds of one call, the device's part included."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    rounds = []
    for _ in range(ROUNDS):
        began = now()
        for _ in range(CALLS):
            work()
        rounds.append((now() - began) * 1e3 / CALLS)
    return statistics.median(rounds)
