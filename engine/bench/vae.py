"""Benchmark of the video autoencoders alone: milliseconds to encode and to decode one chunk, with random weights.

    python -m engine.bench.vae --size 128x128 --size 512x512 --base 96 --threads 2

Prints a table and JSON.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from engine.bench import report
from engine.models.registry import builder, get
from engine.models.spec import CODECS, Codec

COLUMNS = {
    "codec": "autoencoder",
    "base": "base width",
    "size": "size",
    "dtype": "dtype",
    "device": "device",
    "encode_ms": "encode ms",
    "decode_ms": "decode ms",
    "chunk_ms": "both ms",
}


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call; waits for the device before and after it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) * 1e3


def measure(codec: Codec, width: int, height: int, chunks: int, device: torch.device) -> dict[str, float]:
    """Median times in ms over `chunks` chunks; the stream's first chunk and one more are not counted."""
    encoding, decoding = codec.encoder_state(1, height, width), codec.decoder_state(1, height, width)
    video = torch.rand(1, 3, 1 + codec.frames_per_latent, height, width, device=device) * 2 - 1
    latent = codec.encode(video, encoding)
    codec.decode(latent, decoding)
    encode_ms, decode_ms = [], []
    for _ in range(chunks + 1):
        encode_ms.append(timed(lambda: codec.encode(video[:, :, 1:], encoding), device))
        decode_ms.append(timed(lambda: codec.decode(latent[:, :, -1:], decoding), device))
    encode, decode = statistics.median(encode_ms[1:]), statistics.median(decode_ms[1:])
    return {"encode_ms": encode, "decode_ms": decode, "chunk_ms": encode + decode}


def main() -> None:
    """Measure the autoencoders and sizes of the command line; print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", help="WIDTHxHEIGHT in pixels; repeatable (default 128x128)")
    parser.add_argument("--codec", action="append", choices=tuple(CODECS), help="repeatable (default full and tiny)")
    parser.add_argument(
        "--base",
        type=int,
        default=96,
        help="base width of the full autoencoder; the light one has a quarter of it (default 96)",
    )
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--json", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    spec = get("wan21-1.3b")
    rows = []
    for which in options.codec or ("full", "tiny"):
        shape = {"base": options.base} if which in ("full", "light") else {}
        codec = builder(spec).build_codec(replace(spec, vae=shape), which, device, dtype, {})
        for size in options.size or ["128x128"]:
            width, height = (int(side) for side in size.split("x"))
            row = {"codec": which, "base": shape.get("base", 0), "size": size}
            row |= {"dtype": options.dtype, "device": options.device}
            rows.append(row | measure(codec, width, height, options.chunks, device))
    report.show("Video autoencoder, one chunk of four frames", rows, COLUMNS, path=options.json)


if __name__ == "__main__":
    main()
