"""Opens a pipeline on several devices: starts the other ranks and builds the stream on this one, rank 0."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist

from engine.distributed.chunk_plan import text_versions
from engine.distributed.pipeline_stream import PipelineStream
from engine.distributed.ring import Job, Ring
from engine.distributed.split import even_split
from engine.errors import ModelError
from engine.models import registry
from engine.models.spec import ModelSpec
from engine.network.protocol import keep_blocks
from engine.stream.protocol import StreamSettings


def open_pipeline(
    spec: ModelSpec,
    devices: Sequence[str],
    dtype: torch.dtype,
    files: registry.Files,
    codec: str,
    settings: StreamSettings,
    *,
    threads: int = 0,
    address: str = "",
    warmup: bool = True,
) -> PipelineStream:
    """Start one rank on every device and return the stream; this process is rank 0, on the first device.

    The last rank decodes. Blocks are first divided evenly; `PipelineStream.rebalance` moves them by measured times.

    Args:
        spec: the model's row.
        devices: in pipeline order; "remote" stands for a rank that is started by hand on another machine.
        dtype: arithmetic of the network.
        files: local files by role; the paths must be the same on every machine.
        codec: the autoencoder, a name in `engine.models.spec.CODECS`.
        settings: as for a stream in one process.
        threads: CPU threads of every rank; 0 leaves the choice to torch.
        address: "HOST:PORT" where ranks of other machines reach this one; empty if there are none.
        warmup: whether the stream will be warmed up; then the ranks choose their kernels as a single process does.

    Raises:
        ModelError: if there are fewer than two devices, or more devices than blocks, or a rank on another machine lacks
            an address or a secret, or this computer cannot connect several GPUs.
        RankLostError: if a rank does not start.
    """
    if not 2 <= len(devices) <= spec.network.layers:
        raise ModelError(
            f"{len(devices)} devices cannot share the {spec.network.layers} blocks of {spec.title}.",
            f"Name 2 to {spec.network.layers} devices, or none for a single one.",
        )
    refuse_without_nccl(devices, sys.platform, nccl=dist.is_nccl_available())
    split = even_split(spec.network.layers, len(devices))
    job = Job(
        model=spec.name,
        height=settings["height"],
        width=settings["width"],
        split=split,
        max_steps=settings["max_steps"],
        versions=text_versions(settings["max_steps"], len(devices)),
        rule=str(settings["rule"]),
        codec=codec,
        dtype=str(dtype).removeprefix("torch."),
        decodes=True,
        tuned=warmup and torch.device(devices[0]).type == "cuda",
        threads=threads,
        files={role: str(path) for role, path in files.items()},
        family=spec.family if "." in spec.family else "",
    )
    host, _, port = (address or "127.0.0.1:0").rpartition(":")
    ring = Ring(
        job,
        [None if device == "remote" else device for device in devices],
        address=host.strip("[]"),
        port=int(port) if port.isdecimal() else 0,
    )
    try:
        builder, device = registry.builder(spec), torch.device(devices[0])
        network = builder.build_network(spec, torch.device("cpu"), dtype, files)
        keep_blocks(network, *split[0])
        own_codec = builder.build_codec(spec, codec, device, dtype, files)
        stream = PipelineStream(ring, spec, network.to(device), own_codec, **settings)
        ring.await_ready()
        return stream
    except BaseException:
        ring.close()
        raise


def refuse_without_nccl(devices: Sequence[str], platform: str, *, nccl: bool) -> None:
    """Check, before anything is loaded, that GPUs can send to each other.

    Args:
        devices: as for `open_pipeline`.
        platform: `sys.platform`.
        nccl: whether torch has NCCL.

    Raises:
        ModelError: if a device is a GPU and there is no NCCL.
    """
    if nccl or not any(device.startswith("cuda") for device in devices):
        return
    if platform == "win32":
        raise ModelError(
            "Several GPUs cannot share a model on Windows: NCCL, by which they exchange data, does not exist there.",
            "Use one GPU (devices = []), or run Tidecast in WSL 2 or on Linux. A model that is too large for one GPU: "
            'weights_dtype = "float8", vae = "tiny", fewer steps, or a smaller size.',
        )
    raise ModelError(
        "Several GPUs cannot share a model: this build of torch has no NCCL.",
        "Install a build of torch for CUDA, or use one device (devices = []).",
    )
