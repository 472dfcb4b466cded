"""Compiles the parts of a network's blocks that lie between their attentions.

`torch.compile` fuses the small operations into a few kernels; matmuls still use the device's library. Prompts, strength
and timesteps are values in tensors, so nothing is compiled again once every number of rows has occurred. Compiled code
is cached on disk between runs.
"""

from __future__ import annotations

import os
from functools import partial

import platformdirs
import torch

from engine.errors import ModelError
from engine.network.protocol import StreamingNetwork
from engine.runtime.device import triton_installed


def check(device: torch.device) -> None:
    """Check that compilation is possible; on a GPU torch's compiler writes its kernels in Triton.

    Raises:
        ModelError: if Triton is missing, as it is on Windows.
    """
    if device.type == "cuda" and not triton_installed():
        raise ModelError(
            'compile = "full" needs Triton, which is not installed. torch brings it on Linux, and not on Windows.',
            'Choose compile = "graphs" (or "auto"), which needs no compiler.',
        )


def compile_blocks(network: StreamingNetwork) -> None:
    """Replace parts of the blocks by compiled ones. They are compiled when they first run."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("tidecast") / "compiled"))
    network.compile(partial(torch.compile, fullgraph=True))
