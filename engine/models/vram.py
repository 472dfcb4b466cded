"""GPU memory of a row of the model table with the settings of a configuration (see `engine.planning.vram`)."""

from __future__ import annotations

from pathlib import Path

from engine.config import Config
from engine.models.spec import ModelSpec
from engine.network.dit_shape import DiTShape
from engine.planning.vram import GIB, Need, Setting, Sizes, need, suggestion

TEXT_BYTES = {"cuda": 10.6 * GIB, "offload": 0.5 * GIB, "cpu": 0.0}
"""GPU memory of UMT5 in bfloat16, by `Config.text_device`: all of it, or one block and what it computes."""


def sizes_of(spec: ModelSpec) -> Sizes | None:
    """The sizes of a model; None if its memory is not known, as of a small model or another kind of network."""
    if not isinstance(spec.network, DiTShape) or not spec.codecs:
        return None
    return Sizes(
        network=spec.network,
        slots=spec.cache.slots,
        first=spec.first_latents,
        frames=spec.frames_per_block,
        stride=spec.stride,
        most_steps=len(spec.schedule.steps),
        codecs=spec.codecs,
        clean_pass=spec.schedule.clean_pass,
    )


def setting_of(spec: ModelSpec, config: Config) -> Setting:
    """The settings of a configuration on which memory on a GPU depends."""
    text = TEXT_BYTES["offload" if config.text_device == "auto" else config.text_device]
    return Setting(
        width=config.width,
        height=config.height,
        vae=spec.default_vae if config.vae == "auto" else config.vae,
        max_steps=config.max_steps,
        batch=config.batch and spec.batches,
        float8=config.weights_dtype == "float8",
        graphs=config.compile != "off" and config.warmup,
        gpus=max(1, len(config.devices)),
        text=text / 2 if config.text_weights == "float8" else text,
        loras=bool(config.loras),
        lora_files=sum(
            path.stat().st_size for lora in config.loras if (path := Path(lora.file).expanduser()).is_file()
        ),
    )


def need_of(spec: ModelSpec, config: Config) -> Need | None:
    """The memory that a configuration needs on a GPU; None if it is not known."""
    sizes = sizes_of(spec)
    return need(sizes, setting_of(spec, config)) if sizes else None


def what_fits(spec: ModelSpec, config: Config, free: float) -> str:
    """A sentence on what fits into `free` bytes instead of this configuration."""
    sizes = sizes_of(spec)
    found = suggestion(sizes, setting_of(spec, config), free) if sizes else None
    if found is None:
        return "Choose a smaller model (tidecast models list), or a GPU with more memory."
    option, needed = found
    settings = f'vae = "{option.vae}", max_steps = {option.max_steps}'
    return f"It fits at {option.width}x{option.height} with {settings}: {needed.gib:.1f} GiB."
