"""The settings with which the engine is started. Does not import torch."""

from __future__ import annotations

import sys
from pathlib import Path, PureWindowsPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SHORT_PATH = 259
"""Longest path that Windows takes as it is, in UTF-16 units."""

ROOM_BELOW = 150
"""Longest path, in characters, that Tidecast makes below a folder: a model's files in the cache."""

_LONG_FORM = "\\\\?\\"
_SHARE = "\\\\"


class LoraConfig(BaseModel):
    """A LoRA that is loaded at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(min_length=1, description="A LoRA file, .safetensors or .pt (tidecast models lora FILE).")
    name: str = Field("", description="Its name for users; empty for the file's own.")
    strength: float = Field(1.0, ge=-2.0, le=2.0, description="Its strength at the start.")


class Config(BaseModel):
    """The settings with which the engine is started; they cannot change later. An unknown key is an error.

    Sizes are in pixels and must be multiples of 16 (the autoencoder's stride times the patch size).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("ember", description="Name of a row in the model table (tidecast models list).")
    width: int = Field(256, ge=32, le=4096, multiple_of=16, description="Width of the model's picture.")
    height: int = Field(256, ge=32, le=4096, multiple_of=16, description="Height of the model's picture.")
    size: Literal["", "auto"] = Field(
        "",
        description="auto measures at the start which size holds rate and latency; width and height are then ignored.",
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    devices: tuple[str, ...] = Field(
        (),
        description="Devices that share the network, in pipeline order, the first encodes and the last decodes; "
        'empty for `device` alone. "remote" is a rank that is started on another machine.',
    )
    ring_address: str = Field(
        "",
        pattern=r"^$|:\d{1,5}$",
        description='This machine\'s address and a free port, "HOST:PORT", where ranks on other machines reach it.',
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of the network; auto is bfloat16 on a GPU or a CPU with matrix units (AMX), "
        "else float32.",
    )
    weights_dtype: Literal["auto", "float8"] = Field(
        "auto",
        description="How the network's large weights are held and multiplied; auto is as dtype, float8 takes "
        "half the memory of bfloat16 and needs an NVIDIA GPU of compute capability 8.9 or newer.",
    )
    vae: Literal["auto", "full", "light", "tiny", "light-tiny"] = Field(
        "auto", description="The model's own video autoencoder, or the tiny fast one; auto is the model's choice."
    )
    text_device: Literal["auto", "cpu", "cuda", "offload"] = Field(
        "auto", description="Where prompts are encoded; offload keeps the encoder on the CPU between prompts."
    )
    text_weights: Literal["bfloat16", "float8"] = Field(
        "bfloat16", description="How the text encoder's weights are held; float8 takes half the memory."
    )
    batch: bool = Field(True, description="Run the denoising steps of successive chunks in one forward (stream batch).")
    max_steps: int = Field(4, ge=1, le=4, description="Most denoising steps that can be chosen live.")
    cache: Literal["auto", "reference", "honest", "adaptive"] = Field(
        "auto", description="Rule for the sink frames of the rolling cache; auto is the model's own."
    )
    travel: Literal["slerp", "linear"] = Field(
        "slerp", description="How prompts are blended and travel: on the arc between them, or the straight line."
    )
    noise: Literal["released", "paper"] = Field(
        "released", description="Motion-aware noise as the release computes it, or as the paper writes it."
    )
    families: tuple[str, ...] = Field(
        (), description="Packages with further families of models, by their Python names."
    )
    loras: tuple[LoraConfig, ...] = Field(
        (), max_length=8, description="LoRAs that are loaded at the start, on the faders /tidecast/lora/1 to 8."
    )
    weights_dir: str = Field("", description="Folder with model files; empty for the user's cache folder.")
    threads: int = Field(0, ge=0, le=256, description="CPU threads of the engine; 0 leaves the choice to torch.")
    warmup: bool = Field(True, description="Run every path once before the first frame.")
    compile: Literal["auto", "off", "graphs", "full"] = Field(
        "auto",
        description="graphs captures the steps in CUDA graphs at warm-up, full also compiles what lies "
        "between the attentions; auto is graphs on one GPU, off elsewhere.",
    )


def long_folder(folder: Path, platform: str = sys.platform) -> Path:
    """The folder in the form in which paths below it may have any length; unchanged where they stay short.

    Windows refuses paths of more than 260 characters unless the system was set up otherwise; one that begins with
    `\\\\?\\` may have 32,767. Whatever is made below a folder that begins so, does too.

    Args:
        folder: a folder below which Tidecast reads and writes.
        platform: `sys.platform`; tests pass another.
    """
    if platform != "win32":
        return folder
    text = extended(str(folder.absolute()))
    return Path(text) if text else folder


def extended(absolute: str) -> str:
    """The long form of an absolute path of Windows; empty if it needs none, or has it."""
    if len(absolute) + ROOM_BELOW <= SHORT_PATH or absolute.startswith(_LONG_FORM):
        return ""
    plain = str(PureWindowsPath(absolute))  # in the long form Windows does not take / for \\
    return f"{_LONG_FORM}UNC\\{plain[2:]}" if plain.startswith(_SHARE) else _LONG_FORM + plain
