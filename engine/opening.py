"""Opens a model as configured: chooses device and type, loads the network, autoencoder and text encoder, warms up.

`Session.open` calls `opened` once. If a device is lost, `Opened.build` is called again with the remaining devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.config import Config
from engine.distributed.launch import open_pipeline
from engine.errors import ModelError, OutOfMemoryError
from engine.models import lora_file, registry, vram, weights
from engine.models.lora_slots import LoraSlots
from engine.models.spec import ModelSpec
from engine.network.lora.branch import Branches, places_for
from engine.network.lora.updates import Lora
from engine.network.protocol import StreamingNetwork
from engine.planning.vram import GIB, Need
from engine.runtime import graph_capture, quantise
from engine.runtime.device import device_for, dtype_for, use_video_stream
from engine.runtime.gpu_memory import forbid_spilling
from engine.runtime.host_memory import keep_memory
from engine.stream.kv_cache import Rule
from engine.stream.noise import RULES, Gaussian
from engine.stream.prompts import BLENDS, Prompts
from engine.stream.protocol import Stream, StreamSettings
from engine.stream.saved_state import Setting
from engine.stream.stream import LocalStream

Progress = Callable[[str], None]
"""Called with a short text for the user at every step of opening a model."""

Build = Callable[[Sequence[str]], tuple[Stream, str]]
"""Makes a warmed-up stream on the given devices. Also returns what went wrong, for the user; empty if nothing did."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A model that is ready for a session.

    Attributes:
        spec: its row in the model table.
        stream, noise, prompts: the parts that a session uses.
        settings: what the session's state depends on, by name; see `state_settings`.
        loras: the LoRAs.
        build: makes a new stream on other devices.
        trouble: what went wrong and what was done about it, for the user; empty if nothing did.
    """

    spec: ModelSpec
    stream: Stream
    noise: Gaussian
    prompts: Prompts
    settings: Mapping[str, Setting]
    loras: LoraSlots
    build: Build
    trouble: str


def opened(config: Config, *, say: Progress, defer_prompts: bool, files: registry.Files | None) -> Opened:
    """Open the model that `config` names; arguments and errors as for `Session.open`."""
    if config.size:
        raise ModelError(
            f"The size {config.size!r} is measured by tidecast run; a session needs a width and a height.",
            "Set width and height.",
        )
    for package in config.families:
        registry.register(package)
    spec = registry.get(config.model)
    device, dtype = _prepare_device(config, spec, say)
    which = spec.default_vae if config.vae == "auto" else config.vae
    if files is None:
        files = weights.locate(spec, weights.folder(config.weights_dir), vae=which)
    max_steps = min(config.max_steps, len(spec.schedule.steps))
    noise = Gaussian(
        (spec.network.latent_channels, config.height // spec.stride, config.width // spec.stride),
        device,
        steps=max_steps,
        fixed=spec.schedule.fixed_noise,
    )
    settings = StreamSettings(
        height=config.height,
        width=config.width,
        noise=noise,
        rule=Rule(spec.cache.rule if config.cache == "auto" else config.cache),
        noise_rule=RULES[config.noise],
        batch=config.batch,
        max_steps=max_steps,
    )
    parts = registry.builder(spec)

    def build(devices: Sequence[str]) -> tuple[Stream, str]:
        trouble = ""
        stream: Stream
        if len(devices) > 1:
            say(f"loading {spec.title} on {len(devices)} devices")
            stream = open_pipeline(
                spec,
                devices,
                dtype,
                files,
                which,
                settings,
                threads=config.threads,
                address=config.ring_address,
                warmup=config.warmup,
            )
        else:
            say(f"loading {spec.title}")
            float8 = config.weights_dtype == "float8"
            branches = None
            # The device has no room for a large network in 16 bits, so its file stays in host memory, mapped. Random
            # weights, which only benchmarks use, are made on the device: it makes them many times faster.
            home = torch.device("cpu") if float8 and "dit" in files else device
            dit = parts.build_network(spec, home, dtype, files)
            if float8:
                say("quantising weights to 8 bits")
                given = given_loras(config, spec)
                originals = originals_of(dit, given)
                quantise.quantise(dit, device)
                branches = Branches(dit, places_for(given), originals) if given else None
            say("loading the video autoencoder")
            codec = parts.build_codec(spec, which, device, dtype, files)
            stream = LocalStream(spec, dit, codec, branches=branches, **settings)
        mode = graph_capture.choose(config.compile, device, devices=len(devices), warmup=config.warmup)
        if config.warmup and (mode != "off" or device.type != "cpu"):  # without capture, a CPU needs no warm-up
            trouble = graph_capture.prepare(spec, stream, mode, config.height, config.width, say)
            noise.reset()
        if trouble:
            say(trouble)
        return stream, trouble

    try:
        stream, trouble = build(config.devices)
        say("loading the text encoder")
        text = parts.build_text(spec, device, files, where=config.text_device, storage=config.text_weights)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(spec, config, error) from None
    prompts = Prompts(text, BLENDS[config.travel], gain=spec.blend_gain, device=device, defer=defer_prompts)
    kept = state_settings(config, spec, device, dtype, rule=settings["rule"], vae=which, max_steps=max_steps)
    return Opened(spec, stream, noise, prompts, kept, loras_of(config, spec, stream), build, trouble)


def given_loras(config: Config, spec: ModelSpec) -> list[Lora]:
    """The LoRAs of a configuration, as they would be loaded; none for a model that takes none.

    Raises:
        ModelError: if one of them cannot be read or is not for this network.
    """
    if not lora_file.takes_lora(spec):
        return []
    return [lora_file.fits(lora_file.read(Path(lora.file).expanduser()), spec) for lora in config.loras]


def originals_of(network: StreamingNetwork, given: Sequence[Lora]) -> dict[str, Tensor]:
    """In host memory, the weights in 16 bits that whole differences of these LoRAs change, before they are quantised.

    Where the network's file is mapped, they stay there and take no memory of their own.
    """
    assert isinstance(network, nn.Module)
    wanted = {name for lora in given for name, update in lora.updates.items() if update.whole}
    return {name: weight.detach().cpu() for name, weight in network.named_parameters() if name in wanted}


def loras_of(config: Config, spec: ModelSpec, stream: Stream) -> LoraSlots:
    """The LoRAs of a configuration, read and checked.

    Raises:
        ModelError: if one of them cannot be read or is not for this network, or if this configuration takes none.
    """
    refusal = ""
    if not lora_file.takes_lora(spec):
        refusal = f"{spec.title} takes no LoRA."
    elif config.weights_dtype == "float8" and not config.loras:
        refusal = "With float8, LoRAs need places that are kept from the start: name at least one under engine.loras."
    return LoraSlots(config.loras, None if refusal else stream.loras, refusal)


def state_settings(
    config: Config,
    spec: ModelSpec,
    device: torch.device,
    dtype: torch.dtype,
    *,
    rule: Rule,
    vae: str,
    max_steps: int,
) -> dict[str, Setting]:
    """The settings on which the state of a session depends, by name: with others it has other tensors or values.

    A saved stream is continued only with the same ones. Where a setting may be "auto", it is what was chosen.

    - The size, the rows of the stream batch and the slots are sizes of tensors.
    - The cache rule, the sinks and the frames per block decide what the slots and the eviction queue hold.
    - The keys and values in the cache, and the codec's features, are as this network and this autoencoder compute them;
      those of the sinks stay for the whole stream.
    - Motion is kept as the noise rule needs it, and a random generator only continues on a device of the same kind.
    - Embeddings are interpolated as `travel` says; it matters only while one is (`Prompts.blended`).

    What changes only the speed (threads, compile) or what is encoded from now on (text_weights) is not among them.
    """
    kept: dict[str, Setting] = {
        "width": config.width,
        "height": config.height,
        "rows of the stream batch": max_steps if config.batch and spec.batches else 1,
        "cache": str(rule),
        "slots of the cache": spec.cache.slots,
        "sinks of the cache": spec.cache.sinks,
        "frames per block": spec.frames_per_block,
        "dtype": str(dtype).removeprefix("torch."),
        "weights_dtype": config.weights_dtype,
        "vae": vae,
        "noise": config.noise,
        "device": device.type,
        "travel": config.travel,
    }
    if spec.schedule.fixed_noise:
        kept["max_steps"] = max_steps  # one tensor of noise for each
    return kept


def _prepare_device(config: Config, spec: ModelSpec, say: Progress) -> tuple[torch.device, torch.dtype]:
    """Choose device and type, check that the configuration can run, and set up the process."""
    device = device_for(config.devices[0] if config.devices else config.device)
    if len(config.devices) > 1 and not spec.batches:
        raise ModelError(
            f"{spec.title} runs on one device: each step needs the finished history of the chunk before, so several "
            "devices would only wait for each other.",
            "Choose one device (devices = []).",
        )
    needed = vram.need_of(spec, config)
    if device.type == "cpu" and config.device == "auto" and not config.devices and spec.needs_gpu:
        raise ModelError(
            f"{spec.title} needs a GPU{_with(needed)}, but torch finds no GPU.",
            'Run tidecast doctor to see why. device = "cpu" runs the model, but far too slowly for a performance.',
        )
    dtype = dtype_for(config.dtype, device)
    graph_capture.choose(config.compile, device, devices=len(config.devices), warmup=config.warmup)
    if config.weights_dtype == "float8":
        quantise.check(device, dtype, devices=len(config.devices))
    if device.type == "cuda" and needed is not None:
        for name in config.devices or (str(device),):
            if name != "remote":
                check_free_memory(spec, config, needed, torch.device(name), say)
    forbid_spilling(device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # CUDA streams, events and graphs are created on the current device
    use_video_stream(device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        keep_memory()
    return device, dtype


def _with(needed: Need | None) -> str:
    return f" with {needed.gib:.1f} GiB of free memory" if needed else ""


def check_free_memory(spec: ModelSpec, config: Config, needed: Need, device: torch.device, say: Progress) -> None:
    """Say how much memory the configuration needs, and check that the GPU has it free, before anything is loaded.

    Raises:
        OutOfMemoryError: if it has not; the remedy names what would fit.
    """
    free, total = torch.cuda.mem_get_info(device)
    of = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free on {device}"
    say(f"{spec.title} needs {needed}; {of}")
    if needed.total > free:
        raise OutOfMemoryError(
            f"{spec.title} at {config.width}x{config.height} needs {needed}, but {of}.",
            vram.what_fits(spec, config, free),
        )


def out_of_memory(spec: ModelSpec, config: Config, error: BaseException) -> OutOfMemoryError:
    """The error for a device without enough memory."""
    return OutOfMemoryError(
        f"{spec.title} at {config.width}x{config.height} does not fit into the memory: {error}",
        'Choose a smaller size, vae = "tiny", a lower max_steps, or a smaller model.',
    )
