"""LoRA files: every layout in use maps to the network's own names, and what does not fit is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import CheckpointError
from engine.models import lora_file
from engine.models.lora_file import parameters_of
from engine.models.wan21.specs import DIT_1_3B, DIT_14B
from engine.network.dit_shape import DiTShape
from engine.network.lora import keys
from engine.network.lora.merge import merged
from engine.network.lora.names import ModuleNames, diffusers_name
from engine.network.lora.scale import Scales, scales_of
from engine.network.lora.updates import read

SHAPE = DiTShape(dim=24, heads=2, layers=2, ffn=40, text_dim=8, text_len=4, freq_dim=8)
RANK, ALPHA = 3, 1.5
MODULES = ("blocks.0.self_attn.q", "blocks.1.cross_attn.o", "blocks.1.ffn.0", "blocks.0.ffn.2", "head.head")

BASE = {
    name: torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
    for number, (name, tensor) in enumerate(parameters_of(SHAPE).items())
}


def pairs(seed: int = 5) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for module in MODULES:
        outputs, inputs = BASE[f"{module}.weight"].shape
        made[module] = (torch.randn(RANK, inputs, generator=generator), torch.randn(outputs, RANK, generator=generator))
    return made


PAIRS = pairs()


def written(spell: Callable[[str], str], down: str, up: str, alpha: bool = True) -> dict[str, Tensor]:
    """The pairs as a file with this layout holds them."""
    file = {}
    for module, (a, b) in PAIRS.items():
        file |= {spell(module) + down: a, spell(module) + up: b}
        if alpha:
            file[f"{spell(module)}.alpha"] = torch.tensor(ALPHA)
    return file


def expected(scale: float = ALPHA / RANK) -> dict[str, Tensor]:
    return {f"{m}.weight": BASE[f"{m}.weight"] + scale * b @ a for m, (a, b) in PAIRS.items()}


def check(file: Mapping[str, Tensor], wanted: Mapping[str, Tensor], scales: Scales | None = None) -> None:
    found = merged(BASE, [(read(file, BASE, "file", scales=scales), 1.0)])
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, msg=lambda text, name=name: f"{name}: {text}")


def underscored(module: str) -> str:
    return module.replace(".", "_")


AB = (".lora_A.weight", ".lora_B.weight")
DOWN_UP = (".lora_down.weight", ".lora_up.weight")
LAYOUTS = {
    "ComfyUI": (lambda m: f"diffusion_model.{m}", *AB),
    "ComfyUI, down and up": (lambda m: f"diffusion_model.{m}", *DOWN_UP),
    "diffusers": (lambda m: f"transformer.{diffusers_name(m)}", *AB),
    "peft": (lambda m: f"base_model.model.{m}", *AB),
    "peft, named": (lambda m: f"base_model.model.{m}", ".lora_A.default.weight", ".lora_B.default.weight"),
    "kohya": (lambda m: f"lora_unet_{underscored(m)}", *DOWN_UP),
    "VideoX-Fun": (lambda m: f"lora_unet__{underscored(m)}", *DOWN_UP),
    "lycoris": (lambda m: f"lycoris_{underscored(m)}", *DOWN_UP),
    "ai-toolkit": (lambda m: f"lycoris_{underscored(diffusers_name(m))}", *DOWN_UP),
    "DiffSynth": (lambda m: m, ".lora_A.default.weight", ".lora_B.default.weight"),
    "UniAnimate": (lambda m: f"pipe.dit.{m}", ".lora_A.weight", ".lora_B.weight"),
    "old diffusers": (lambda m: f"unet.{m}", "_lora.down.weight", "_lora.up.weight"),
    "lora.down": (lambda m: m, ".lora.down.weight", ".lora.up.weight"),
    "lora_linear_layer": (lambda m: m, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "bare ends": (lambda m: f"diffusion_model.{m}", ".lora_A", ".lora_B"),
    "wrapped": (lambda m: f"model._fsdp_wrapped_module.{m}", *AB),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_update_in_every_layout_gives_the_same_weights(name: str) -> None:
    spell, down, up = LAYOUTS[name]
    check(written(spell, down, up), expected())
    check(written(spell, down, up, alpha=False), expected(1.0))


def test_alpha_comes_from_the_key_then_from_the_metadata_then_is_the_rank() -> None:
    spell, down, up = LAYOUTS["diffusers"]
    with_key, without = written(spell, down, up), written(spell, down, up, alpha=False)
    peft = scales_of({"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": 6})})
    check(without, expected(6 / RANK), peft)
    check(with_key, expected(), peft)
    check(without, expected(6 / RANK**0.5), scales_of({}, {"lora_alpha": 6, "use_rslora": True}))
    patterned = scales_of({}, {"lora_alpha": 6, "alpha_pattern": {"ffn.net.0.proj": 9}})
    wanted = expected(6 / RANK) | {k: v for k, v in expected(9 / RANK).items() if ".ffn.0." in k}
    check(without, wanted, patterned)
    check(without, expected(2 / RANK), scales_of({"ss_network_alpha": "2.0", "ss_network_dim": str(RANK)}))
    zero = with_key | {key: torch.tensor(0.0) for key in with_key if key.endswith(".alpha")}
    check(zero, expected(1.0))


def test_biases_and_whole_differences_are_added() -> None:
    generator = torch.Generator().manual_seed(8)
    names = {"blocks.0.norm3": ".diff", "blocks.1.ffn.0": ".diff_b", "blocks.1.self_attn.norm_q": ".w_norm"}
    targets = ("blocks.0.norm3.weight", "blocks.1.ffn.0.bias", "blocks.1.self_attn.norm_q.weight")
    file, wanted = {}, {}
    for (module, end), target in zip(names.items(), targets, strict=True):
        file[f"diffusion_model.{module}{end}"] = added = torch.randn(BASE[target].shape, generator=generator)
        wanted[target] = BASE[target] + added
    moved = torch.randn(1, 6, SHAPE.dim, generator=generator)
    for key in (
        "diffusion_model.blocks.0.diff_m",
        "blocks.0.modulation.diff",
        "transformer.blocks.0.scale_shift_table.diff",
    ):
        check(file | {key: moved}, wanted | {"blocks.0.modulation": BASE["blocks.0.modulation"] + moved})
    up_bias = torch.randn(SHAPE.dim, generator=generator)
    pair = {k: v for k, v in written(*LAYOUTS["diffusers"]).items() if "attn1.to_q" in k}
    with_bias = pair | {"transformer.blocks.0.attn1.to_q.lora_B.bias": up_bias}
    check(with_bias, {"blocks.0.self_attn.q.bias": BASE["blocks.0.self_attn.q.bias"] + up_bias})


def test_a_convolution_takes_pairs_with_and_without_a_kernel_between() -> None:
    generator = torch.Generator().manual_seed(9)
    weight = BASE["patch_embedding.weight"]
    outputs, inputs, *kernel = weight.shape
    down, up = torch.randn(RANK, inputs, *kernel, generator=generator), torch.randn(outputs, RANK, 1, 1, 1)
    file = {
        "diffusion_model.patch_embedding.lora_down.weight": down,
        "diffusion_model.patch_embedding.lora_up.weight": up,
    }
    wanted = weight + (up.flatten(1) @ down.flatten(1)).view_as(weight)
    check(file, {"patch_embedding.weight": wanted})
    mid = torch.randn(RANK, RANK, *kernel, generator=generator)
    narrow = torch.randn(RANK, inputs, 1, 1, 1, generator=generator)
    file = file | {
        "diffusion_model.patch_embedding.lora_down.weight": narrow,
        "diffusion_model.patch_embedding.lora_mid.weight": mid,
    }
    inner = torch.einsum("oa,abthw,bi->oithw", up.flatten(1), mid, narrow.flatten(1))
    check(file, {"patch_embedding.weight": weight + inner})


def test_dora_sets_the_lengths_of_the_rows_and_is_reached_on_a_straight_line() -> None:
    weight, (a, b) = BASE["blocks.0.self_attn.q.weight"], PAIRS["blocks.0.self_attn.q"]
    lengths = torch.rand(SHAPE.dim, 1) + 0.5
    spelled = "diffusion_model.blocks.0.self_attn.q"
    file = {f"{spelled}.lora_A.weight": a, f"{spelled}.lora_B.weight": b, f"{spelled}.dora_scale": lengths}
    whole = weight + b @ a
    wanted = whole * lengths / whole.norm(dim=1, keepdim=True)
    check(file, {"blocks.0.self_attn.q.weight": wanted})
    half = merged(BASE, [(read(file, BASE, "file"), 0.5)])["blocks.0.self_attn.q.weight"]
    torch.testing.assert_close(half, (weight + wanted) / 2)


def test_lokr_and_loha_are_multiplied_out() -> None:
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weight, spelled = BASE["blocks.0.self_attn.q.weight"], "lycoris_blocks_0_self_attn_q"
    w1, a, b = drawn(4, 4), drawn(6, RANK), drawn(RANK, 6)
    lokr = {f"{spelled}.lokr_w1": w1, f"{spelled}.lokr_w2_a": a, f"{spelled}.lokr_w2_b": b}
    check(
        lokr | {f"{spelled}.alpha": torch.tensor(ALPHA)},
        {"blocks.0.self_attn.q.weight": weight + ALPHA / RANK * torch.kron(w1, a @ b)},
    )
    whole = {f"{spelled}.lokr_w1": w1, f"{spelled}.lokr_w2": drawn(6, 6), f"{spelled}.alpha": torch.tensor(ALPHA)}
    check(whole, {"blocks.0.self_attn.q.weight": weight + torch.kron(w1, whole[f"{spelled}.lokr_w2"])})
    parts = {f"hada_w{n}_{side}": drawn(*((24, RANK) if side == "a" else (RANK, 24))) for n in (1, 2) for side in "ab"}
    loha = {f"{spelled}.{name}": tensor for name, tensor in parts.items()}
    product = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    check(
        loha | {f"{spelled}.alpha": torch.tensor(ALPHA)},
        {"blocks.0.self_attn.q.weight": weight + ALPHA / RANK * product},
    )


@pytest.mark.parametrize("shape", [DIT_1_3B, DIT_14B], ids=["1.3B", "14B"])
def test_every_module_of_the_true_networks_is_found_by_each_of_its_names(shape: DiTShape) -> None:
    names = ModuleNames(parameters_of(shape))
    linear = [module for module, leaves in names.parameters.items() if "weight" in leaves]
    assert len(linear) > 14 * shape.layers
    spellings = {"native": lambda m: m, "diffusers": diffusers_name}
    for spelling in spellings.values():
        spelled = {spelling(module) for module in linear}
        assert len(spelled) == len(linear), "no two modules share a name"
        for prefix, dots in (("diffusion_model.", True), ("lora_unet_", False), ("lycoris_", False)):
            file = {
                f"{prefix}{spelling(module) if dots else underscored(spelling(module))}.lora_down.weight": module
                for module in linear
            }
            found = keys.sort(file, names)  # type: ignore[arg-type]
            assert not found.unknown and not found.unreadable
            assert {m: parts["down"] for m, parts in found.modules.items()} == {m: m for m in linear}


def test_keys_of_layers_that_the_network_lacks_are_counted() -> None:
    own = written(*LAYOUTS["ComfyUI"])
    image = {
        f"diffusion_model.blocks.{n}.cross_attn.{m}.lora_{side}.weight": torch.ones(1, 1)
        for n in range(2)
        for m in ("k_img", "v_img")
        for side in "AB"
    }
    vace = {"diffusion_model.vace_blocks.0.self_attn.q.lora_A.weight": torch.ones(1, 1)}
    lora = read(own | image | vace | {"diffusion_model.img_emb.proj.1.diff_b": torch.ones(1)}, BASE, "file")
    assert lora.left_out == {"image-to-video": 9, "VACE": 1}
    assert lora.note == "9 image-to-video keys ignored, 1 VACE keys ignored"
    with pytest.raises(CheckpointError, match="changes only image-to-video layers"):
        read(image, BASE, "file")


def test_a_lora_for_a_network_of_another_width_is_refused_with_both_sizes() -> None:
    small, large = parameters_of(DIT_1_3B), parameters_of(DIT_14B)
    module = "diffusion_model.blocks.0.self_attn.q"
    with torch.device("meta"):
        file = {f"{module}.lora_A.weight": torch.empty(16, 5120), f"{module}.lora_B.weight": torch.empty(5120, 16)}
    with pytest.raises(CheckpointError, match=r"width 5120 \(Wan 14B\); this one's width is 1536 \(Wan 1\.3B\)"):
        read(file, small, "origami.safetensors")
    assert read(file, large, "origami.safetensors").ranks == (16,)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"lora_unet_down_blocks_0_attentions_0.lora_down.weight": torch.ones(1, 1)}, "of no known layout"),
        ({}, "it is empty"),
        ({"blocks.0.self_attn.q.lora_A.weight": torch.ones(3, 24)}, r"one half of the pair is missing \(up\)"),
        ({"blocks.0.self_attn.q.set_weight": torch.ones(24, 24)}, "whole weights"),
        ({"blocks.0.norm3.diff": torch.ones(25)}, r"the parameter is \[24\], the update \[25\]"),
        ({"blocks.0.self_attn.q.lokr_w1": torch.ones(4, 4)}, "the factor lokr_w2 is missing"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(file: dict[str, Tensor], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(file, BASE, "file")


def test_a_file_tells_its_title_and_trigger_words(tmp_path: Path) -> None:
    path, file = tmp_path / "noir.safetensors", written(*LAYOUTS["kohya"])
    save_file(file, path, {"modelspec.title": "Film noir", "modelspec.trigger_phrase": "noir style"})
    found = lora_file.read(path)
    assert (found.title, found.triggers) == ("Film noir", ("noir style",))
    tags = {"10_a": {"rain": 4, "noir": 9}, "20_b": {"night": 6, "noir": 1, "hat": 1}}
    save_file(file, path, {"ss_tag_frequency": json.dumps(tags), "ss_base_model_version": "wan2.1"})
    found = lora_file.read(path)
    assert (found.title, found.triggers, found.base) == ("noir", ("noir", "night", "rain"), "wan2.1")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6}))
    save_file(written(*LAYOUTS["peft"], alpha=False), path)
    found = lora_file.read(path)
    torch.testing.assert_close(
        merged(BASE, [(found.fitted(BASE), 1.0)])["head.head.weight"], expected(6 / RANK)["head.head.weight"]
    )
