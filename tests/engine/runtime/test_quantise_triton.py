"""The kernel that quantises activations gives the numbers of torch's operations, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from engine.runtime import quantise
from engine.runtime.device import triton_installed

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

needs_triton = pytest.mark.skipif(not triton_installed(), reason="needs Triton: pip install -e .[kernels], on Linux")

# The interpreter's own rounding differs from torch's: up at ties, to half of the number where rounding up reaches the
# next power of 2, and below the smallest normal number. So a step more or less is allowed, and the latter are left out.
# A GPU rounds to nearest by a single instruction, which the next test finds.
IN_THE_INTERPRETER = """
import torch
from engine.runtime import quantise

torch.manual_seed(1)
for dtype in (torch.float32, torch.bfloat16):
    for rows, inputs in ((3, 16), (5, 1536), (2, 8960)):
        x = (torch.randn(rows, inputs) * torch.logspace(-3, 3, rows)[:, None]).to(dtype)
        x[-1, :16] = 0
        if inputs == 16:
            x[0] = 0
        wanted, scale = quantise.to_float8(x)
        with torch.inference_mode():
            found, own_scale = quantise.fused_rows(x)
        assert torch.equal(own_scale, scale)
        quotient = (x / scale).abs()
        sound = (torch.frexp(quotient).mantissa < 15.5 / 16) & ((quotient >= 2**-6) | (quotient == 0))
        found, wanted = found.float()[sound], wanted.float()[sound]
        torch.testing.assert_close(found, wanted, rtol=2**-3, atol=0)
        assert (found == wanted).float().mean() > 0.98
        assert sound.float().mean() > 0.9

layer = quantise.Float8Linear(torch.randn(32, 48), torch.randn(32))
x = torch.randn(2, 5, 48)
wanted = layer(x)
layer.rows = quantise.fused_rows
torch.testing.assert_close(layer(x), wanted, atol=4.0, rtol=0)
"""


@needs_triton
def test_the_kernel_gives_the_results_of_torch() -> None:
    env = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", IN_THE_INTERPRETER], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@needs_triton
@pytest.mark.parametrize(("capability", "inputs"), [(89, 1536), (90, 5120), (120, 13824)])
def test_the_kernel_compiles_for_the_gpus_with_8_bit_matmuls(capability: int, inputs: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from engine.runtime import quantise_triton as own

    constants = {
        "inputs": inputs,
        "block": own.BLOCK,
        "float8_max": quantise.FLOAT8_MAX,
        "min_scale": quantise.MIN_SCALE,
    }
    signature = {"x": "*bf16", "x8": "*fp8e4nv", "scales": "*fp32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(own.kernel, signature, constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=own.OPTIONS)
    assert made.asm["cubin"]
    # Triton 3.7 goes by way of fp16 where the capability is 8.9: numbers within 2^-10 of the middle between two numbers
    # of float8 may then become the farther one.
    ways = [f"cvt.rn.satfinite.e4m3x2.{source}" for source in ("f32", "f16x2")]
    assert any(way in made.asm["ptx"] for way in ways), "rounded to nearest by the GPU"
    assert ".local" not in made.asm["ptx"], "registers do not suffice"


def fails(x: Tensor) -> tuple[Tensor, Tensor]:
    raise RuntimeError("Failed to find C compiler.")


def forgets_the_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    x8, scale = quantise.to_float8(x)
    return x8, torch.ones_like(scale)


def test_the_kernel_is_tried_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert quantise.trial(quantise.to_float8, CPU, torch.float32) == ""
    assert "Failed to find C compiler" in quantise.trial(fails, CPU, torch.bfloat16)
    assert "wrong results" in quantise.trial(forgets_the_scale, CPU, torch.bfloat16)
    monkeypatch.setattr("engine.runtime.device.triton_installed", lambda: True)
    assert quantise.kernel_for(CPU, torch.float32) is None
    monkeypatch.setattr(quantise, "trial", lambda *_: "")
    assert quantise.kernel_for(CUDA, torch.bfloat16) is quantise.fused_rows
    assert not caplog.records
    monkeypatch.setattr(quantise, "trial", lambda *_: "no compiler")
    assert quantise.kernel_for(CUDA, torch.bfloat16) is None
    assert "no compiler" in caplog.text
    monkeypatch.setattr("engine.runtime.device.triton_installed", lambda: False)
    assert quantise.kernel_for(CUDA, torch.bfloat16) is None
