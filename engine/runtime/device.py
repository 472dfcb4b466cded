"""Chooses the device and the type of the network."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

from engine.errors import ModelError

log = logging.getLogger(__name__)

Kernel = TypeVar("Kernel")


def device_for(name: str) -> torch.device:
    """The device with this name. "auto" is the GPU if there is one, else the CPU.

    Raises:
        ModelError: if there is no such device, or it cannot run the models (Apple's "mps" has no float64).
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"There is no device {name!r}.", "Choose auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"The models do not run on {device.type}.", "Choose auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"There is no {name}: torch finds {torch.cuda.device_count()} GPUs.", "Choose cpu.")
    return device


def dtype_for(name: str, device: torch.device) -> torch.dtype:
    """The type with this name. "auto" is bfloat16 if the device has matrix units for it, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or _matrix_units() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _matrix_units() -> bool:
    """Whether the CPU has units for matmuls in bfloat16 (AMX), which are several times as fast as float32."""
    capabilities: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # since torch 2.12
    return bool(capabilities().get("amx_bf16"))


def one_thread_here() -> None:
    """Have the work of the calling thread on the CPU done by this thread alone; all others keep their number.

    torch keeps one number for each thread, and a last one for threads that compute for the first time. Setting it
    changes both, so the last one is set back by a thread that then ends.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(before,))
    restore.start()
    restore.join()


def triton_installed() -> bool:
    """Whether Triton is there; torch brings it on Linux with its builds for GPUs."""
    return importlib.util.find_spec("triton") is not None


def tried_kernel(kernel: Kernel, trial: Callable[[], str], device: torch.device, without: str) -> Kernel | None:
    """A kernel in Triton, on a GPU with Triton where `trial` finds no trouble; else None.

    Triton compiles at the first call, and may fail for reasons of its own: there is no C compiler, the GPU is newer
    than Triton, its cache cannot be written. Then the log says why.

    Args:
        trial: tries the kernel; returns why it cannot be used, or "".
        without: what it costs to do without the kernel, for the log.
    """
    if device.type != "cuda" or not triton_installed():
        return None
    trouble = trial()
    if trouble:
        log.warning("%s, which is slower: %s", without, trouble)
        return None
    return kernel


def use_video_stream(device: torch.device) -> None:
    """Let this thread's work on a GPU take precedence over other streams, in which prompts are encoded.

    CUDA's default stream already has the lowest priority there is; so the video needs one with a higher priority.
    """
    if device.type == "cuda":
        torch.cuda.set_stream(_video_stream(device))


def release_freed(device: torch.device) -> None:
    """Return memory that torch has freed and kept to the driver; the device must finish its work for it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@cache
def _video_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(
        device, priority=-1
    )  # one for the whole process: freed memory is reused only in its stream
