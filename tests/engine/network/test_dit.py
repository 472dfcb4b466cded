"""The network: sizes, names, masks and gradients. (test_golden.py compares its results with reference vectors.)"""

from __future__ import annotations

from typing import cast

import pytest
import torch

from engine.errors import ModelError
from engine.models import registry
from engine.network import cpu_inplace
from engine.network.dit import Block, CausalDiT, block_causal_mask
from engine.network.dit_shape import DiTShape
from engine.network.rope import rope_for

TINY = DiTShape(dim=48, heads=2, layers=2, ffn=64, text_dim=16, text_len=6, freq_dim=32)


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"), [("wan21-1.3b", 825, 1.419e9), ("wan21-14b", 1095, 14.288e9)]
)
def test_the_released_sizes_cost_nothing_on_the_meta_device(name: str, tensors: int, parameters: float) -> None:
    with torch.device("meta"):
        dit = CausalDiT(registry.get(name).network)
    state = dit.state_dict()
    assert len(state) == tensors
    assert sum(t.numel() for t in state.values()) == pytest.approx(parameters, rel=5e-4)
    for key in (
        "patch_embedding.weight",
        "text_embedding.2.bias",
        "time_embedding.0.weight",
        "time_projection.1.weight",
        "blocks.0.modulation",
        "blocks.1.self_attn.norm_q.weight",
        "blocks.1.cross_attn.v.bias",
        "blocks.2.norm3.bias",
        "blocks.3.ffn.2.weight",
        "head.modulation",
        "head.head.weight",
    ):
        assert key in state


def test_no_frame_sees_a_later_block() -> None:
    dit = CausalDiT(TINY)
    dit.init_weights(torch.Generator().manual_seed(0))
    x, t, text = torch.randn(1, 16, 4, 4, 4), torch.full((1, 4), 300), torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, :, 2:] += 1
    for block, same in ((1, 2), (2, 2), (4, 0), (None, 0)):
        a, b = dit(x, t, text, frames_per_block=block), dit(changed, t, text, frames_per_block=block)
        equal = [torch.allclose(a[:, :, f], b[:, :, f], atol=1e-6) for f in range(4)]
        assert equal.index(False) == same


def test_the_forward_is_differentiable_down_to_every_parameter() -> None:
    dit = CausalDiT(TINY)
    dit.init_weights(torch.Generator().manual_seed(0))
    dit(torch.randn(2, 16, 3, 4, 4), torch.full((2, 3), 300), torch.randn(2, 6, 16)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in dit.parameters())


def test_inference_on_a_cpu_gives_what_the_plain_layers_give() -> None:
    dit = CausalDiT(TINY)
    generator = torch.Generator().manual_seed(0)
    dit.init_weights(generator)
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if name.endswith(("bias", "norm_q.weight", "norm_k.weight")):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    x, t, text = torch.randn(2, 16, 3, 4, 4), torch.full((2, 3), 300), torch.randn(2, 6, 16)
    plain = dit(x, t, text).detach()
    with torch.inference_mode():
        apart = dit(x, t, text)
        dit.fuse()
        together = dit(x, t, text)
    torch.testing.assert_close(apart, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, plain, rtol=1e-4, atol=1e-5)


def test_a_feed_forward_in_parts_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_inplace, "MAX_HIDDEN", 0)
    up, down = torch.nn.Linear(24, 150), torch.nn.Linear(150, 24)
    x = torch.randn(2, 5, 24)
    before = x.clone()
    with torch.inference_mode():
        parts = cpu_inplace.feed_forward(x, up.weight, up.bias, down.weight, down.bias)
        whole = down(torch.nn.functional.gelu(up(x), approximate="tanh"))
    torch.testing.assert_close(parts, whole)
    assert torch.equal(x, before)


def test_a_text_that_is_taken_through_the_last_product_once_reads_the_same() -> None:
    dit = CausalDiT(TINY)
    generator = torch.Generator().manual_seed(0)
    dit.init_weights(generator)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    attention = cast(Block, dit.blocks[0]).cross_attn
    x, y, bias = torch.randn(2, 5, 48), torch.randn(2, 5, 48), torch.randn(7)
    with torch.inference_mode():
        keys = attention.keys(torch.randn(1, 7, 48))
        folded = attention.folded(keys)
        assert folded[1].shape == (2 * 7, 48)
        for added in (bias, None):
            torch.testing.assert_close(
                attention.add(x.clone(), y, folded, added), x + attention(y, keys, added), rtol=1e-4, atol=1e-5
            )
        long = attention.keys(torch.randn(1, 24, 48))
        assert attention.folded(long) is long  # where it would be more work
    assert attention.folded(keys) is keys  # where gradients are wanted


def test_the_mask_counts_whole_blocks() -> None:
    assert block_causal_mask(3, 1, 2, torch.device("cpu")).tolist() == [
        [True, True, False],
        [True, True, False],
        [True, True, True],
    ]


def test_turns_split_a_head_into_frame_row_and_column() -> None:
    rope = rope_for(registry.get("wan21-1.3b").network, 4, 6, torch.device("cpu"))
    assert rope.frame_FP.shape == (1024, 22)
    assert rope.place_LP.shape == (24, 42)
    assert rope.at(torch.tensor([[0, 7]])).shape == (1, 48, 1, 64)
    torch.testing.assert_close(rope.at(torch.tensor([[5]]))[0, 0, 0, :22], rope.frame_FP[5])


def test_the_table_has_one_row_per_name_and_says_so_when_there_is_none() -> None:
    assert registry.get("self-forcing-1.3b").frames_per_block == 3
    with pytest.raises(ModelError, match=r"wan21-1\.3b"):
        registry.get("wan22")


def test_the_separate_weights_are_returned_to_the_driver_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They leave gaps in the GPU's memory that are too small for what comes later."""
    returned: list[None] = []
    monkeypatch.setattr(CausalDiT, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: returned.append(None))
    dit = CausalDiT(TINY)
    dit.fuse()
    dit.fuse()
    assert len(returned) == 1
