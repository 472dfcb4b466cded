"""Evaluates Ember on content that it was not trained on.

    python -m engine.models.ember.training.evaluate            # all words: about ten minutes on one core
    python -m engine.models.ember.training.evaluate --quick    # every fourth word
    python -m engine.models.ember.training.evaluate --codec --successor drawing.pt --film street.mp4

The content is photographs that move by whole pixels (see `photographs`) and procedural clips from a seed of their own,
run through the engine's own stream. Prints, in this order:

distance      mean absolute difference (0..1) from the style target, per word, strength and number of steps, and that of
              the unchanged input for comparison
recognition   share of pictures whose nearest style target, among all words, is that of the right word
consistency   flicker: mean change between frames of a still scene; warp: mean difference from the previous frame moved
              along, on a moving photograph; with and without the cache, and of the style operators
strength      mean distance from the input at rising strengths, and for how many words it ever falls by more than 0.005
codec         how well encoder and decoder keep photographs at 512 x 288, at rest or sliding, and films: PSNR in
              dB and the ghost index (`ghosts`); of the shipped model, and of the successor's components
blocks        differences of neighbouring pixels across the borders of the network's tokens, relative to those elsewhere
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor

from engine.models.ember.frame_codec import FrameCodec
from engine.models.ember.training.denoise import style_share
from engine.models.ember.training.footage.marks import CELL
from engine.models.ember.training.footage.photographs import NAMES, moving, photograph
from engine.models.ember.training.footage.styles import apply
from engine.models.ember.training.losses import pixel_loss, psnr
from engine.models.ember.training.player import Player
from engine.models.ember.training.pool import CACHE, UNSEEN
from engine.models.ember.training.sheet import open_player
from engine.models.ember.training.successor import LOOK
from engine.models.ember.vocabulary import WORDS
from engine.models.ember.weights import WEIGHTS

STRENGTHS = (0.3, 0.5, 0.7, 0.9)
RECOGNISED = 0.7
"""Strength at which recognition is measured."""

STEPS = (1, 2, 4)
TEXTURED = frozenset(
    {
        "oil",
        "watercolor",
        "sketch",
        "hatch",
        "blueprint",
        "comic",
        "chalk",
        "mosaic",
        "pixel",
        "lowpoly",
        "kaleidoscope",
    }
    | {"halftone", "glitch", "hologram", "matrix", "crt"}
)
"""Words whose operators draw a texture at fixed positions, so that `blocks` cannot measure them."""

FRAMES = 13
SPEED = (2, 1)


def content(size: int, count: int, folder: Path) -> list[Tensor]:
    """Clips [T, 3, H, W] in 0..1: `count` moving photographs and as many procedural clips."""
    photographs = [moving(photograph(name, size), FRAMES, SPEED) for name in NAMES[:count]]
    clips = UNSEEN.make(folder)[:count, :FRAMES, :size, :size]
    painted = [torch.from_numpy(clip.astype(np.float32) / 255).permute(0, 3, 1, 2) for clip in clips]
    return photographs + painted


def target(picture_13HW: Tensor, word: str, strength: float) -> Tensor:
    """The style target of a word at a strength, for a picture in 0..1."""
    share = float(style_share(torch.tensor(strength)))
    return picture_13HW + (apply(picture_13HW, [word]) - picture_13HW) * share


def nearest_word(made_13HW: Tensor, targets: Mapping[str, Tensor]) -> str:
    """The word whose target is nearest, measured by `pixel_loss`."""
    return min(targets, key=lambda word: float(pixel_loss(made_13HW, targets[word])))


def distances(player: Player, clips: Sequence[Tensor], words: Sequence[str]) -> None:
    """Print distance and recognition."""
    print("\ndistance from the style target")
    print(f"{'word':<14}{'input':>7}  " + "".join(f"{s:>7}x{n}" for s in STRENGTHS for n in STEPS))
    sums: dict[tuple[float, int], list[float]] = defaultdict(list)
    hits: dict[tuple[float, int], list[bool]] = defaultdict(list)
    untouched: list[float] = []
    missed: dict[str, str] = {}
    targets = [{word: target(clip[-1:], word, RECOGNISED) for word in WORDS} for clip in clips]
    for word in words:
        row = []
        pairs = zip(clips, targets, strict=True)
        nothing = float(np.mean([float((clip[-1:] - by_word[word]).abs().mean()) for clip, by_word in pairs]))
        untouched.append(nothing)
        for strength in STRENGTHS:
            wanted = [target(clip[-1:], word, strength) for clip in clips]
            for steps in STEPS:
                found = []
                for clip, by_word, goal in zip(clips, targets, wanted, strict=True):
                    made = player.play(clip, word, strength, steps)[-1:]
                    found.append(float((made - goal).abs().mean()))
                    if strength == RECOGNISED:
                        guess = nearest_word(made, by_word)
                        hits[strength, steps].append(guess == word)
                        if guess != word:
                            missed[word] = guess
                row.append(float(np.mean(found)))
                sums[strength, steps].append(row[-1])
        print(f"{word:<14}{nothing:>7.3f}  " + "".join(f"{value:>9.3f}" for value in row), flush=True)
    means = "".join(f"{np.mean(sums[s, n]):>9.3f}" for s in STRENGTHS for n in STEPS)
    print(f"{'mean':<14}{np.mean(untouched):>7.3f}  {means}")
    print(f"\nrecognition at strength {RECOGNISED}, top-1 among all words")
    for (strength, steps), right in hits.items():
        print(f"  strength {strength}, {steps} step(s): {100 * np.mean(right):.1f} % of {len(right)}")
    print("  taken for another at least once: " + (", ".join(f"{a} for {b}" for a, b in missed.items()) or "none"))


def consistency(words: Sequence[str], weights: Path, size: int) -> None:
    """Print flicker and warp error with and without the cache, and of the style operators."""
    picture = photograph(NAMES[0], size)
    still = picture.expand(FRAMES, -1, -1, -1)
    grain = torch.Generator().manual_seed(0)
    still = (still + 0.01 * torch.randn(still.shape, generator=grain)).clamp(0, 1)
    slide = moving(picture, FRAMES, SPEED)

    def flicker(video: Tensor) -> float:
        return float((video[6:] - video[5:-1]).abs().mean())

    def warp(video: Tensor) -> float:
        dx, dy = SPEED
        return float((video[6:, :, :-dy, :-dx] - video[5:-1, :, dy:, dx:]).abs().mean())

    print("\nconsistency at strength 0.7, 2 steps: flicker of a still scene with camera noise, warp error of a slide")
    for name, cached in (("with the cache", True), ("without", False)):
        player = open_player(weights, cached=cached)
        flickers = [flicker(player.play(still, word, 0.7, 2)) for word in words]
        warps = [warp(player.play(slide, word, 0.7, 2)) for word in words]
        print(f"  {name:<16} flicker {np.mean(flickers):.4f}  warp {np.mean(warps):.4f}", flush=True)
    flickers = [flicker(apply(still, [word])) for word in words]
    warps = [warp(apply(slide, [word])) for word in words]
    print(f"  {'the operators':<16} flicker {np.mean(flickers):.4f}  warp {np.mean(warps):.4f}")
    print(f"  {'the input':<16} flicker {flicker(still):.4f}  warp {warp(slide):.4f}")


def monotony(player: Player, clip: Tensor, words: Sequence[str]) -> None:
    """Print the distance from the input at rising strengths."""
    strengths = [round(0.1 * n, 1) for n in range(1, 11)]
    curves = []
    for word in words:
        curves.append([float((player.play(clip, word, s, 1) - clip)[-1].abs().mean()) for s in strengths])
    falls = sum(any(b < a - 0.005 for a, b in pairwise(curve)) for curve in curves)
    print("\nstrength: mean distance from the input, one step")
    print("  " + "".join(f"{s:>7}" for s in strengths))
    print("  " + "".join(f"{value:>7.3f}" for value in np.mean(curves, axis=0)))
    print(f"  falls somewhere in {falls} of {len(curves)} words")


def seams(picture_13HW: Tensor) -> float:
    """Mean difference of neighbouring pixels across borders of 16 x 16 pixels over that elsewhere; 1 without blocks."""
    along = (picture_13HW[..., 1:] - picture_13HW[..., :-1]).abs().mean((0, 1, 2))
    down = (picture_13HW[..., 1:, :] - picture_13HW[..., :-1, :]).abs().mean((0, 1, 3))
    border = torch.arange(1, len(along) + 1) % CELL == 0
    return float((along[border].mean() + down[border].mean()) / (along[~border].mean() + down[~border].mean()))


def blocks(player: Player, clips: Sequence[Tensor]) -> None:
    """Print `seams` for the words whose operators draw no texture."""
    words = [word for word in WORDS if word not in TEXTURED]
    made = {word: float(np.mean([seams(player.play(c, word, 0.7, 2)[-1:]) for c in clips])) for word in words}
    drawn = {word: float(np.mean([seams(apply(c[-1:], [word])) for c in clips])) for word in words}
    print("\nblocks at strength 0.7, 2 steps: differences across token borders over those elsewhere")
    print(f"  Ember {np.mean(list(made.values())):.3f}  the operators {np.mean(list(drawn.values())):.3f}", end="")
    print(f"  the input {np.mean([seams(clip[-1:]) for clip in clips]):.3f}")
    worst = sorted(words, key=lambda word: drawn[word] - made[word])[:6]
    print("  most: " + ", ".join(f"{word} {made[word]:.2f} (operator {drawn[word]:.2f})" for word in worst))


def ghosts(made_T3HW: Tensor, wanted_T3HW: Tensor, reach: int = 2) -> float:
    """Energy of displaced copies in a clip, relative to the change from one frame to the next.

    The error of each frame is explained, by least squares, as a mixture of the frames up to `reach` away from it.
    A clip in which each frame is half the one before it has a ghost index of 0.25; without ghosts it is about 0.
    """
    inner = slice(reach, len(wanted_T3HW) - reach)
    here = wanted_T3HW[inner]
    steps = [step for step in range(-reach, reach + 1) if step]
    copies = torch.stack(
        [(wanted_T3HW[reach + step : len(wanted_T3HW) - reach + step] - here).flatten() for step in steps], 1
    ).double()
    error = (made_T3HW[inner] - here).flatten().double()
    shares = torch.linalg.lstsq(copies.T @ copies + 1e-6 * torch.eye(len(steps)).double(), copies.T @ error).solution
    change = (wanted_T3HW[inner] - wanted_T3HW[reach - 1 : -reach - 1]).square().sum().clamp_min(1e-6)
    return float((copies @ shares).square().sum() / change)


def wide_photograph(name: str, height: int = 288, width: int = 512) -> Tensor:
    """The middle of a photograph in 16:9, resized to [3, height, width], in 0..1."""
    picture = getattr(data, name)()
    wide = min(picture.shape[1], picture.shape[0] * width // height)
    high = wide * height // width
    top, left = (picture.shape[0] - high) // 2, (picture.shape[1] - wide) // 2
    cut = resize(picture[top : top + high, left : left + wide], (height, width), anti_aliasing=True)
    return torch.from_numpy(cut.astype(np.float32)).permute(2, 0, 1)


def film_of(path: Path, first: int, frames: int, height: int = 288, width: int = 512) -> Tensor:
    """Frames of a film from its frame `first` on, the middle in 16:9, [T, 3, height, width] in 0..1."""
    pictures = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= first:
                picture = frame.to_ndarray(format="rgb24")
                wide = min(picture.shape[1], picture.shape[0] * width // height)
                high = wide * height // width
                top, left = (picture.shape[0] - high) // 2, (picture.shape[1] - wide) // 2
                cut = picture[top : top + high, left : left + wide]
                pictures.append(resize(cut, (height, width), anti_aliasing=True).astype(np.float32))
            if len(pictures) == frames:
                break
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@torch.inference_mode()
def fidelity(successor: Path | None, films: Sequence[Path]) -> None:
    """Print PSNR and ghost index of the codecs: the shipped one with an empty prompt at the lowest strength."""

    player = open_player()

    def shipped(video: Tensor) -> Tensor:
        return player.play(video / 2 + 0.5, "", 0.05, 1) * 2 - 1

    def components(video: Tensor) -> Tensor:
        assert successor is not None
        codec = FrameCodec(LOOK)
        codec.load_state_dict(torch.load(successor, weights_only=True)["averages"]["codec"])
        return codec.linear_frames(codec.encode_frames(video) / codec.scale[:, None, None])

    clips = {
        f"photographs, {speed} pixels a frame": [moving(wide_photograph(name), FRAMES, (speed, 0)) for name in NAMES]
        for speed in (0, 16, 32)
    }
    clips |= {film.name: [film_of(film, first, FRAMES) for first in (0, 40, 80)] for film in films}
    print("\nthe codec alone: PSNR in dB, ghost index")
    for name, made_by in (("shipped", shipped), ("successor's components", components)):
        if made_by is components and successor is None:
            continue
        for content, videos in clips.items():
            made = [made_by(video * 2 - 1).clamp(-1, 1) / 2 + 0.5 for video in videos]
            pairs = list(zip(made, videos, strict=True))
            decibels = float(np.mean([float(psnr(a * 2 - 1, b * 2 - 1)) for a, b in pairs]))
            ghost = float(np.mean([ghosts(a, b) for a, b in pairs]))
            print(f"  {name:<24}{content:<36}{decibels:>6.1f} {ghost:>8.4f}", flush=True)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description="Evaluate Ember.")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--folder", type=Path, default=CACHE)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=2, help="photographs, and as many procedural clips")
    parser.add_argument("--quick", action="store_true", help="every fourth word only")
    parser.add_argument("--codec", action="store_true", help="only what the codecs keep")
    parser.add_argument("--successor", type=Path, default=None, help="checkpoint of the successor's decoder")
    parser.add_argument("--film", type=Path, action="append", default=[], help="a film; may be given several times")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.codec:
        fidelity(args.successor, args.film)
        return
    words = WORDS[::4] if args.quick else WORDS
    clips = content(args.size, args.count, args.folder)
    player = open_player(args.weights)
    distances(player, clips, words)
    consistency(WORDS[::4], args.weights, args.size)
    monotony(player, clips[0], WORDS[::4])
    blocks(player, clips)


if __name__ == "__main__":
    main()
