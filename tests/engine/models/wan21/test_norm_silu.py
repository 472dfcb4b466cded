"""The autoencoder's norm, activation and window in one kernel: the same numbers as torch's operations.

Without a GPU, Triton runs the kernel in its interpreter, and compiles it for the GPUs that it is meant for.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from engine.models.wan21 import norm_silu
from engine.runtime.device import triton_installed

CPU = torch.device("cpu")

needs_triton = pytest.mark.skipif(not triton_installed(), reason="needs Triton: pip install -e .[kernels], on Linux")

IN_THE_INTERPRETER = """
import torch
from engine.models import conv
from engine.models.wan21 import norm_silu
from engine.runtime.graph_checker import GraphChecker
from tests.engine.models.wan21.test_vae import SIZE, clip, latents, random_codec

last = torch.channels_last
for dtype, within in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
    for channels in (6, 96):
        for batch, frames in ((1, 1), (1, 4), (2, 3)):
            counts = (frames * batch, 2 * batch, (2 + frames) * batch)
            x, past, window = (torch.randn(n, channels, 5, 7).to(dtype).contiguous(memory_format=last) for n in counts)
            x[0, :, 0, 0] = 0
            gamma, own_past = torch.randn(channels).to(dtype), past.clone()
            own_window = torch.full_like(window, torch.nan)
            norm_silu.plain(x, gamma, past, window)
            with torch.inference_mode():
                norm_silu.fused(x, gamma, own_past, own_window)
            torch.testing.assert_close(own_window, window, atol=within, rtol=within)
            assert torch.equal(own_past, own_window[-2 * batch :])

wanted = random_codec()
pictures = wanted.decode(latents(3), wanted.decoder_state(1, *SIZE))
conv.on_cpu = lambda tensor: False
codec = random_codec()
codec.use(norm_silu.fused)
torch.testing.assert_close(codec.decode(latents(3), codec.decoder_state(1, *SIZE)), pictures, atol=5e-5, rtol=0)

state, video = codec.encoder_state(1, *SIZE), clip(4)
codec.encode(clip(5), state)
replay = GraphChecker().capture(lambda: codec.encode(video, state), (state.started,))
replay()
"""


@needs_triton
def test_the_kernel_gives_the_results_of_torch_and_can_be_captured() -> None:
    """Triton decides when it is imported whether it interprets; so this is a process of its own."""
    env = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", IN_THE_INTERPRETER], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@needs_triton
@pytest.mark.parametrize(("capability", "channels"), [(89, 96), (90, 192), (120, 384)])
def test_the_kernel_compiles_for_the_gpus_it_is_meant_for(capability: int, channels: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from engine.models.wan21 import norm_silu_triton as own

    constants = own.sizes(channels) | {"epsilon": norm_silu.EPSILON}
    signature = dict.fromkeys(("x", "gamma", "past", "window"), "*bf16") | dict.fromkeys(("positions", "frames"), "i32")
    source = ASTSource(own.kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=own.OPTIONS)
    assert made.asm["cubin"]
    assert f".target sm_{capability}" in made.asm["ptx"]
    assert ".local" not in made.asm["ptx"], "registers do not suffice"


def fails(*tensors: Tensor) -> None:
    raise RuntimeError("Failed to find C compiler.")


def forgets_the_past(x: Tensor, gamma: Tensor, past: Tensor, window: Tensor) -> None:
    norm_silu.plain(x, gamma, past.clone(), window)


def test_a_kernel_is_tried_before_it_is_used() -> None:
    assert norm_silu.trial(norm_silu.plain, CPU, torch.float32) == ""
    assert norm_silu.trial(norm_silu.plain, CPU, torch.bfloat16) == ""
    assert "Failed to find C compiler" in norm_silu.trial(fails, CPU, torch.float32)
    assert "wrong results" in norm_silu.trial(forgets_the_past, CPU, torch.float32)


def test_torch_computes_where_the_kernel_does_not_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr("engine.runtime.device.triton_installed", lambda: False)
    assert norm_silu.kernel_for(cuda, torch.bfloat16) is norm_silu.plain
    monkeypatch.setattr("engine.runtime.device.triton_installed", lambda: True)
    assert norm_silu.kernel_for(CPU, torch.float32) is norm_silu.plain
    monkeypatch.setattr(norm_silu, "trial", lambda *_: "")
    assert norm_silu.kernel_for(cuda, torch.bfloat16) is norm_silu.fused
    assert not caplog.records
    monkeypatch.setattr(norm_silu, "trial", lambda *_: "no compiler")
    assert norm_silu.kernel_for(cuda, torch.bfloat16) is norm_silu.plain
    assert "no compiler" in caplog.text
