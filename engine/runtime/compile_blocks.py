"""Compiles the parts of a network's blocks that lie between their attentions, with `torch.compile`.

Compilation fuses the small operations into a few kernels; matmuls still use the device's library. Prompts, strength and
timesteps are values in tensors, so nothing is compiled again once every number of rows has occurred. Compiled code is
cached on disk between runs.
"""

from __future__ import annotations

import os
from functools import partial

import platformdirs
import torch

from engine.network.protocol import StreamingNetwork


def compile_blocks(network: StreamingNetwork) -> None:
    """Replace parts of the blocks by compiled ones. Compilation itself takes place when they first run."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("tidecast") / "compiled"))
    network.compile(partial(torch.compile, fullgraph=True))
