"""Compiles the parts of a network's blocks that lie between their attentions, and the autoencoder's norms.

`torch.compile` fuses the small operations into a few kernels; matmuls still use the device's library. Prompts, strength
and timesteps are values in tensors, so nothing is compiled again once every number of rows has occurred. Compiled code
is cached on disk between runs.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import platformdirs
import torch

from engine.errors import ModelError
from engine.network.protocol import StreamingNetwork


@runtime_checkable
class CompilableCodec(Protocol):
    """A video autoencoder of which parts can be compiled."""

    def compile(self, compiler: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Compile those parts that `compiler` (for example `torch.compile`) can handle."""
        ...


def check(device: torch.device) -> None:
    """Check that compilation is possible; on a GPU torch's compiler writes its kernels in Triton.

    Raises:
        ModelError: if Triton is missing, as it is on Windows.
    """
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ModelError(
            'compile = "full" needs Triton, which is not installed. torch brings it on Linux, and not on Windows.',
            'Choose compile = "graphs" (or "auto"), which needs no compiler.',
        )


def compile_blocks(network: StreamingNetwork, codec: object) -> None:
    """Replace parts of the blocks and of the autoencoder by compiled ones. They are compiled when they first run."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("tidecast") / "compiled"))
    compiler = partial(torch.compile, fullgraph=True)
    network.compile(compiler)
    if isinstance(codec, CompilableCodec):
        codec.compile(compiler)
