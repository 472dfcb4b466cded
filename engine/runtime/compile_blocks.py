"""Compiles what lies between the attentions of a block; the network says which pieces those are.

Applied from outside to a network that is there already. `torch.compile` fuses the small operations of a piece into few
kernels and leaves the matmuls to the device's library. Prompts, strength and steps are numbers in tensors, so nothing
is compiled again once every number of rows has been seen. Compiled code is kept on disk between runs. Knows nothing of
streams.
"""

from __future__ import annotations

import os
from functools import partial

import platformdirs
import torch

from engine.network.protocol import StreamingNetwork


def compile_blocks(network: StreamingNetwork) -> None:
    """Let the blocks run in compiled pieces from now on; the pieces are compiled when they first run."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("tidecast") / "compiled"))
    network.compile(partial(torch.compile, fullgraph=True))
