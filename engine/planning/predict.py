"""Predicts the frame rate and latency of one or several GPUs from stage times, without having the GPUs.

Uses the engine's own block split (`engine.distributed.split`) and operation counts (`engine.planning.roofline`). Each
prediction names the source of its stage times: "measured" (a file of `tidecast bench engine`), "published" (fitted to
the paper's single-GPU figures), "scaled" (these, by the ratio of the datasheets' arithmetic rates) or "limit" (the
roofline).

    python -m engine.planning.predict       compares the method with the paper's figures for two to four GPUs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from engine.distributed.split import Placement, even_split, place
from engine.errors import ConfigError
from engine.planning.roofline import Ceiling, chunk_forwards, vae_decode_flops, vae_encode_flops

CHUNK = 4
"""Pixel frames of a chunk."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's datasheet.

    Attributes:
        name: as on the command line.
        flops: dense bf16 operations per second, with fp32 accumulation.
        bytes: memory bandwidth in bytes per second.
        gib: memory in GiB.
    """

    name: str
    flops: float
    bytes: float
    gib: float

    @property
    def ceiling(self) -> Ceiling:
        """80 % of the datasheet's arithmetic rate, which large matmuls reach on an H100 (790 of 989 TFLOP/s)."""
        return Ceiling(0.8 * self.flops, self.bytes)


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("RTX3090", 71e12, 936e9, 24),
        Gpu("RTX4080", 97.5e12, 717e9, 16),
        Gpu("RTX4090", 165.2e12, 1008e9, 24),
        Gpu("RTX5090", 209.5e12, 1792e9, 32),
        Gpu("A100", 312e12, 2039e9, 80),
        Gpu("H100", 989e12, 3350e9, 80),
        Gpu("H200", 989e12, 4800e9, 141),
    )
}

HOP_S = 0.002
"""Seconds that a rank spends per call on communication, fitted to the paper's figures for several GPUs."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Times in seconds per chunk on one GPU.

    Attributes:
        encode_s, decode_s: the autoencoder.
        call_s, row_s: the network takes call_s + rows * row_s per forward.
        source: where the times come from (see the module's docstring).
    """

    encode_s: float
    decode_s: float
    call_s: float
    row_s: float
    source: str

    def network_s(self, rows: int) -> float:
        """Seconds of a forward with this number of rows."""
        return self.call_s + rows * self.row_s

    def scaled(self, ratio: float) -> StageTimes:
        """The times on a GPU that is `ratio` times as fast."""
        return StageTimes(
            self.encode_s / ratio, self.decode_s / ratio, self.call_s / ratio, self.row_s / ratio, "scaled"
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """Prediction for one number of steps.

    Attributes:
        steps: denoising steps.
        fps: frames per second.
        latency_s: seconds from the capture of a chunk's first frame to its result: collecting the chunk's frames,
            waiting between denoising steps (for each further step, as many calls as are in flight), and one pass
            through all stages.
        placement: the blocks of each GPU, and where frames are encoded and decoded.
        bottleneck: the slowest stage and its GPU, as text.
    """

    steps: int
    fps: float
    latency_s: float
    placement: Placement
    bottleneck: str


def alone(
    times: StageTimes, blocks: int, steps: int, *, clean_pass: bool, chunk: int = CHUNK, input_fps: float = 30.0
) -> Forecast:
    """Predict a model on one GPU whose chunks follow each other, without the stream batch.

    Args:
        times: stage times of a chunk on this GPU.
        blocks: transformer blocks of the network.
        steps: denoising steps.
        clean_pass: as for `roofline.chunk_forwards`.
        chunk: pixel frames of a chunk.
        input_fps: frames per second of the input, for the latency.
    """
    calls, rows = chunk_forwards(steps, batch=False, clean_pass=clean_pass)
    network = calls * times.call_s + rows * times.row_s
    parts = {"network": network, "encode": times.encode_s, "decode": times.decode_s}
    period = sum(parts.values())
    placed = Placement(((0, blocks),), 0, 0, (period,))
    slowest = max(parts, key=lambda name: parts[name])
    return Forecast(steps, chunk / period, chunk / input_fps + period, placed, f"{slowest} on GPU 1")


def forecast(
    times: Sequence[StageTimes], blocks: int, steps: int, *, input_fps: float = 30.0, hop_s: float = HOP_S
) -> Forecast:
    """Predict a pipeline of GPUs that share the blocks of one network, with the stream batch.

    Args:
        times: stage times of each GPU alone (all blocks), in pipeline order.
        blocks: transformer blocks of the network.
        steps: denoising steps (rows of the stream batch).
        input_fps: frames per second of the input, for the latency.
        hop_s: seconds that a rank spends per call on communication.
    """
    world = len(times)
    placed = place(
        blocks,
        [t.network_s(steps) / blocks for t in times],
        [t.encode_s for t in times],
        [t.decode_s for t in times],
    )
    hop = hop_s if world > 1 else 0.0
    period = placed.period_s + hop
    slowest = max(range(world), key=lambda r: placed.rank_s[r])
    parts = {
        "network": (placed.split[slowest][1] - placed.split[slowest][0]) * times[slowest].network_s(steps) / blocks
    }
    if placed.encode_rank == slowest:
        parts["encode"] = times[slowest].encode_s
    if placed.decode_rank == slowest:
        parts["decode"] = times[slowest].decode_s
    stage = max(parts, key=lambda name: parts[name])
    gather = CHUNK / input_fps
    interval = max(period, gather)
    one_pass = sum(placed.rank_s) + hop * (world - 1)
    depth = min(world, math.ceil(one_pass / interval))
    latency = gather + (steps - 1) * depth * interval + one_pass
    return Forecast(steps, CHUNK / period, latency, placed, f"{stage} on GPU {slowest + 1}")


def fit_single(fps: Sequence[float], height: int, width: int, vae_flops_s: float) -> StageTimes:
    """Stage times from published single-GPU figures.

    The time of a chunk is fitted as fixed + rows * row by least squares; the VAE's share of the fixed part follows from
    its operation count.

    Args:
        fps: frames per second at 1, 2, 3, ... steps.
        height, width: pixels.
        vae_flops_s: operations per second that the VAE reaches.
    """
    chunk = [CHUNK / value for value in fps]
    n = range(1, len(chunk) + 1)
    mean_n, mean_c = sum(n) / len(chunk), sum(chunk) / len(chunk)
    row = sum((a - mean_n) * (c - mean_c) for a, c in zip(n, chunk, strict=True)) / sum((a - mean_n) ** 2 for a in n)
    encode = vae_encode_flops(height, width) / vae_flops_s
    decode = vae_decode_flops(height, width) / vae_flops_s
    return StageTimes(encode, decode, max(0.0, mean_c - row * mean_n - encode - decode), row, "published")


@dataclass(frozen=True, slots=True)
class Published:
    """One of the paper's figures 10 to 15; `fps` is indexed by [number of GPUs - 1][steps - 1]."""

    model: str
    height: int
    width: int
    gpu: str
    fps: tuple[tuple[float, float, float, float], ...]


PUBLISHED: tuple[Published, ...] = (
    Published(
        "wan21-1.3b",
        480,
        832,
        "H100",
        (
            (20.47, 17.97, 15.68, 13.95),
            (39.77, 34.67, 30.69, 27.06),
            (43.88, 43.79, 41.13, 38.09),
            (44.38, 43.41, 43.08, 42.26),
        ),
    ),
    Published(
        "wan21-1.3b",
        512,
        512,
        "H100",
        (
            (26.21, 24.02, 21.51, 19.43),
            (51.76, 46.92, 41.09, 37.49),
            (63.45, 62.76, 56.75, 54.09),
            (64.52, 63.99, 62.43, 61.57),
        ),
    ),
    Published(
        "wan21-1.3b",
        480,
        832,
        "RTX4090",
        (
            (8.58, 7.37, 6.27, 5.59),
            (16.59, 14.75, 13.06, 7.76),
            (16.66, 16.49, 16.17, 15.74),
            (16.64, 16.42, 15.97, 15.73),
        ),
    ),
    Published(
        "wan21-1.3b",
        512,
        512,
        "RTX4090",
        (
            (12.87, 11.76, 10.42, 7.87),
            (24.68, 22.13, 19.33, 17.98),
            (25.64, 25.03, 24.58, 24.22),
            (25.04, 24.77, 24.30, 23.97),
        ),
    ),
    Published(
        "wan21-14b",
        480,
        832,
        "H100",
        (
            (12.68, 8.64, 6.49, 5.28),
            (25.39, 17.31, 13.23, 10.69),
            (37.55, 25.02, 19.12, 15.42),
            (39.24, 33.36, 25.02, 20.05),
        ),
    ),
    Published(
        "wan21-14b",
        512,
        512,
        "H100",
        (
            (18.71, 13.01, 10.09, 8.26),
            (37.12, 25.72, 20.11, 16.65),
            (53.84, 37.47, 29.34, 24.35),
            (58.28, 51.09, 38.41, 31.62),
        ),
    ),
)
"""StreamDiffusionV2, arXiv 2511.07399: bf16, without TensorRT or quantisation."""

BLOCKS: Mapping[str, int] = {"wan21-1.3b": 30, "wan21-14b": 40}
"""Transformer blocks of the published models."""

VAE_FLOPS_S: Mapping[str, float] = {"H100": 146e12, "RTX4090": 56e12}
"""Operations per second of the reference's VAE, from the four-GPU figures of the 1.3B model, where decoding is the
bottleneck (on an H100, at 512x512: 8.88 TFLOP in 62 ms)."""


def published_times(model: str, height: int, width: int, gpu: Gpu) -> StageTimes:
    """Stage times of the published implementation on `gpu`, scaled if the paper has no figures for it.

    Raises:
        ConfigError: if the paper has no figures for this model.
    """
    rows = [row for row in PUBLISHED if row.model == model]
    if not rows:
        raise ConfigError(
            f"There are no published figures for {model}.", "Measure it: tidecast bench engine --json FILE."
        )
    source = next((row for row in rows if row.gpu == gpu.name), rows[0])
    pixels = height * width
    nearest = min((row for row in rows if row.gpu == source.gpu), key=lambda row: abs(row.height * row.width - pixels))
    fitted = fit_single(nearest.fps[0], nearest.height, nearest.width, VAE_FLOPS_S[nearest.gpu])
    resized = fitted.scaled(nearest.height * nearest.width / pixels)
    exact = nearest.gpu == gpu.name and nearest.height * nearest.width == pixels
    if exact:
        return fitted
    return resized.scaled(gpu.flops / GPUS[nearest.gpu].flops)


def check() -> list[tuple[Published, int, int, float, float]]:
    """Predict the paper's figures for 2 to 4 GPUs from its single-GPU rows.

    Returns:
        (row, number of GPUs, steps, predicted FPS, published FPS) for every figure.
    """
    result = []
    for row in PUBLISHED:
        times = fit_single(row.fps[0], row.height, row.width, VAE_FLOPS_S[row.gpu])
        for gpus in (2, 3, 4):
            for steps in (1, 2, 3, 4):
                got = forecast([times] * gpus, BLOCKS[row.model], steps)
                result.append((row, gpus, steps, got.fps, row.fps[gpus - 1][steps - 1]))
    return result


def main() -> None:
    """Print the comparison as Markdown."""
    print("| model, size, GPU | GPUs | predicted / published FPS at 1, 2, 3, 4 steps | largest error |")
    print("|---|---|---|---|")
    rows = check()
    for at in range(0, len(rows), 4):
        row, gpus = rows[at][:2]
        figures = [(got, want) for _, _, _, got, want in rows[at : at + 4]]
        shown = ", ".join(f"{got:.1f} / {want:.1f}" for got, want in figures)
        worst = max(abs(got / want - 1) for got, want in figures)
        print(f"| {row.model} {row.width}x{row.height} {row.gpu} | {gpus} | {shown} | {worst:.0%} |")
    errors = sorted(abs(got / want - 1) for *_, got, want in rows)
    most = errors[int(0.9 * len(errors))]
    print(f"\nError over {len(rows)} figures: median {median(errors):.1%}, 90 % below {most:.1%}.")
    print("\n| speeds of the GPUs | blocks each | busy, share of the slowest | FPS | even split |")
    print("|---|---|---|---|---|")
    for speeds in ((1.0, 1.0, 1.0), (1.0, 0.5, 0.25), (1.0, 0.5), (0.25, 0.5, 1.0)):
        print("| " + " | ".join(balance(speeds)) + " |")


def balance(speeds: Sequence[float], blocks: int = 30, steps: int = 2) -> tuple[str, ...]:
    """One table row: how GPUs of these relative speeds share the 1.3B network with the full VAE."""
    whole = fit_single(PUBLISHED[1].fps[0], PUBLISHED[1].height, PUBLISHED[1].width, VAE_FLOPS_S["H100"])
    times = [whole.scaled(speed) for speed in speeds]
    got = forecast(times, blocks, steps)
    even = [
        (end - start) * t.network_s(steps) / blocks + (rank == 0) * t.encode_s + (rank == len(times) - 1) * t.decode_s
        for rank, (t, (start, end)) in enumerate(zip(times, even_split(blocks, len(times)), strict=True))
    ]
    share = max(got.placement.rank_s)
    return (
        " : ".join(f"{speed:g}" for speed in speeds),
        " + ".join(str(end - start) for start, end in got.placement.split),
        ", ".join(f"{seconds / share:.0%}" for seconds in got.placement.rank_s),
        f"{got.fps:.1f}",
        f"{CHUNK / (max(even) + HOP_S):.1f}",
    )


if __name__ == "__main__":
    main()
