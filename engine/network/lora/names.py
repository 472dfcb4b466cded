"""How LoRA files spell the modules of a network, and one function for each way of spelling.

Every function looks the spelling up in a dictionary that is made from the network's own names. So a name with
underscores, such as `blocks_0_self_attn_q`, is never split by guessing, and names of other networks are not found.
Those of layers that only image-to-video or VACE networks have are recognised (`foreign`), so that they can be counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "model.", "unet.", "pipe.dit.", "dit.")
"""Prefixes of dotted names, which files combine in any order."""

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Parts of names that come from wrappers used in training."""

_OF_DIFFUSERS = (
    (r"^time_embedding\.0$", "condition_embedder.time_embedder.linear_1"),
    (r"^time_embedding\.2$", "condition_embedder.time_embedder.linear_2"),
    (r"^text_embedding\.0$", "condition_embedder.text_embedder.linear_1"),
    (r"^text_embedding\.2$", "condition_embedder.text_embedder.linear_2"),
    (r"^time_projection\.1$", "condition_embedder.time_proj"),
    (r"^head\.head$", "proj_out"),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.([qkv])$", r".to_\1"),
    (r"\.o$", ".to_out.0"),
    (r"\.ffn\.0$", ".ffn.net.0.proj"),
    (r"\.ffn\.2$", ".ffn.net.2"),
    (r"\.norm3$", ".norm2"),
)
"""What diffusers calls the modules of Wan's network (scripts/convert_wan_to_diffusers.py), as replacements in order."""

_IMAGE_TO_VIDEO = re.compile(r"k_img|v_img|img_emb|add_k_proj|add_v_proj|norm_added_k|image_embedder")
_VACE = re.compile(r"vace_(blocks|patch_embedding)")
_TEXT_ENCODER = re.compile(r"^(lora_te\d*_|text_encoder\d*\.|te\d*_)")


class ModuleNames:
    """The modules of one network by each way of spelling them.

    Args:
        parameters: names of the network's parameters.

    Attributes:
        parameters: the names of each module's parameters, by the last part of the name: `weight`, `bias` or
            `modulation`. A parameter such as `blocks.0.modulation` also counts as a module of its own.
        underscored: modules by their native names, with underscores for dots.
        of_diffusers: modules by the names of the library diffusers.
        of_diffusers_underscored: these with underscores for dots.
    """

    def __init__(self, parameters: Iterable[str]) -> None:
        self.parameters: dict[str, dict[str, str]] = {}
        for name in parameters:
            module, _, leaf = name.rpartition(".")
            self.parameters.setdefault(module, {})[leaf] = name
            if leaf == "modulation":
                self.parameters.setdefault(name, {})[leaf] = name
        self.underscored = {module.replace(".", "_"): module for module in self.parameters}
        self.of_diffusers = {diffusers_name(module): module for module in self.parameters}
        self.of_diffusers_underscored = {name.replace(".", "_"): module for name, module in self.of_diffusers.items()}


def diffusers_name(module: str) -> str:
    """What the library diffusers calls a module of Wan's network."""
    for pattern, replacement in _OF_DIFFUSERS:
        module = re.sub(pattern, replacement, module)
    return module


Layout = Callable[[str, ModuleNames], str | None]
"""Converts a module's name in a file to the network's own; None if it is not spelled in this way."""


def native(name: str, names: ModuleNames) -> str | None:
    """The network's own names, with or without prefixes: ComfyUI, diffusion-pipe, peft, DiffSynth, LightX2V."""
    bare = without_prefixes(name)
    return bare if bare in names.parameters else None


def diffusers(name: str, names: ModuleNames) -> str | None:
    """The names of the library diffusers, `transformer.blocks.0.attn1.to_q`."""
    return names.of_diffusers.get(without_prefixes(name))


def kohya(name: str, names: ModuleNames) -> str | None:
    """`lora_unet_blocks_0_self_attn_q` (kohya, musubi-tuner), with two underscores in VideoX-Fun."""
    return _underscored(name, "lora_unet_", names)


def lycoris(name: str, names: ModuleNames) -> str | None:
    """`lycoris_blocks_0_self_attn_q` (LyCORIS, ai-toolkit), with native names or those of diffusers."""
    return _underscored(name, "lycoris_", names)


LAYOUTS: tuple[Layout, ...] = (native, diffusers, kohya, lycoris)
"""The known layouts. To add one, write such a function and add it here."""


def without_prefixes(name: str) -> str:
    """A dotted name without prefixes and without the names of wrappers."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    found = True
    while found:
        found = False
        for prefix in PREFIXES:
            if name.startswith(prefix):
                name, found = name.removeprefix(prefix), True
    return name


def foreign(name: str) -> str:
    """What a name belongs to that this network lacks and that can be left out; empty if it is none of these."""
    if _IMAGE_TO_VIDEO.search(name):
        return "image-to-video"
    if _VACE.search(name):
        return "VACE"
    return "text encoder" if _TEXT_ENCODER.search(name) else ""


def _underscored(name: str, prefix: str, names: ModuleNames) -> str | None:
    if not name.startswith(prefix):
        return None
    bare = name.removeprefix(prefix).removeprefix("_")
    return names.underscored.get(bare) or names.of_diffusers_underscored.get(bare)
