"""Scaled dot-product attention, with the fastest kernel for each shape.

Which kernel is fastest for few queries and many cached keys depends on the GPU and on the installed libraries, so it is
measured. At warm-up, inside `measuring`, each shape that occurs is run with every available kernel. Kernels that do not
support the shape, or whose result differs by more than rounding explains, are left out. All other shapes use the kernel
that torch chooses. So do all shapes on a CPU, where it was the fastest in every comparison.

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
"""Name of the kernel that torch chooses."""

MIN_GAIN = 0.03
"""Share of time that another kernel must save to be used instead of torch's choice; less is measurement noise."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest relative root mean square difference of a kernel's result from that of torch's choice, by type."""

ROUNDS, CALLS = 5, 4
"""A kernel's time is the median of `ROUNDS` measurements, each of `CALLS` calls."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """The shape for which a kernel is chosen."""

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
    """The kernel chosen for a shape, and the time of each kernel in ms."""

    name: str
    kernel: Kernel
    times_ms: Mapping[str, float]


decisions: dict[AttentionShape, Decision] = {}
"""The kernels chosen so far, for all streams of this process: they depend on the computer alone."""

_measuring = False


def attend(q_BLJK: Tensor, k_BMJK: Tensor, v_BMJK: Tensor, mask_LM: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, per head.

    Args:
        q_BLJK: queries.
        k_BMJK, v_BMJK: keys and values, with any strides.
        mask_LM: broadcastable to [B, J, L, M]: bool, True where a query attends to a key; or numbers that are added to
            the logits. None: every query attends to every key.

    Returns:
        [B, L, J, K], in memory order B L J K or B J L K, depending on the kernel.
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
def measuring(enabled: bool = True) -> Iterator[None]:
    """A context in which the kernels for new shapes are measured. This takes a while, so use it at warm-up only."""
    global _measuring  # the only global switch; set by the one thread that runs the warm-up
    before, _measuring = _measuring, enabled
    try:
        yield
    finally:
        _measuring = before


def kernels(device: torch.device) -> dict[str, Kernel]:
    """The available kernels for a device, torch's choice first."""
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
    return found[0] if isinstance(found, tuple) else found  # earlier versions also return the log-sum-exp


def _measure(
    shape: AttentionShape,
    available: Mapping[str, Kernel],
    q_BLJK: Tensor,
    k_BMJK: Tensor,
    v_BMJK: Tensor,
    mask_LM: Tensor | None,
) -> Decision:
    """Time every kernel: the fastest one, or torch's choice unless another is faster by `MIN_GAIN`."""
    arguments = (q_BLJK, k_BMJK, v_BMJK, mask_LM)
    wanted = available[TORCH](*arguments).float()
    times: dict[str, float] = {}
    for name, kernel in available.items():
        try:
            with warnings.catch_warnings(action="ignore"):  # torch explains at length why a kernel cannot be used
                found = kernel(*arguments).float()
            error = ((found - wanted).norm() / wanted.norm()).item()
            if not error <= TOLERANCE[shape.dtype]:
                log.warning("attention kernel %s is wrong on this device: relative error %.1e, %s", name, error, shape)
                continue
            times[name] = _time_ms(partial(kernel, *arguments), q_BLJK.device)
        except RuntimeError as reason:  # the kernel does not support this shape or device
            log.debug("attention kernel %s does not support %s: %s", name, shape, reason)
    best = min(times, key=lambda name: times[name] * (1.0 if name == TORCH else 1 + MIN_GAIN), default=TORCH)
    log.info("attention kernels for %s: %s", shape, ", ".join(f"{name} {ms:.3f} ms" for name, ms in times.items()))
    return Decision(best, available[best], times)


def _time_ms(work: Callable[[], Tensor], device: torch.device) -> float:
    """Milliseconds per call, including the device's work."""

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
