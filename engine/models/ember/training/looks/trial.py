"""Evaluates the successor, or its decoder alone, on content that it was not trained on, in 16:9.

    python -m engine.models.ember.training.looks.trial drawing.pt                          # first stage: the decoder
    python -m engine.models.ember.training.looks.trial successor.pt --film street.mp4      # the whole, in the stream
    python -m engine.models.ember.training.looks.trial drawing.pt --sheet words.png        # pictures instead of figures

The content is photographs that slide, unseen procedural films, and films of yours. Prints, in this order:

distance      mean absolute difference (0..1) from the style target, per word and number of steps, at strength 0.7, and
              that of the unchanged input; the nearest other word if it was taken for that
recognition   share of clips whose nearest style target, among all words, is that of the right word; of natural ones
              too
warp          mean difference from the previous frame moved along, over that of the operators, for words whose texture
              moves; and the ghost index of a clip that slides by 16 pixels a frame, against the targets
strength      mean distance from the input at rising strengths, and which words ever fall by more than 0.005
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.models.ember.frame_codec import FrameCodec
from engine.models.ember.training.drawing import Draft, as_in_the_stream, style_share
from engine.models.ember.training.evaluate import film_of, ghosts, nearest_word, wide_photograph
from engine.models.ember.training.footage.photographs import NAMES, moving
from engine.models.ember.training.looks.table import LOOKS, apply
from engine.models.ember.training.player import Player
from engine.models.ember.training.pool import CACHE, UNSEEN_FILMS
from engine.models.ember.training.sheet import assemble, tile
from engine.models.ember.training.successor import LOOK, successor
from engine.models.ember.vocabulary import EMBER_2
from engine.models.ember.word_table import WordTable
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape

Restyle = Callable[[Tensor, str, float, int], Tensor]
"""Restyles a clip [T, 3, H, W] in 0..1 by a prompt, at a strength, in a number of denoising steps."""

FRAMES = 9
SPEED = (2, 1)
STRENGTH = 0.7


def open_restyle(path: Path, *, averages: bool = True) -> Restyle:
    """What a checkpoint of either stage makes of clips; with its averaged weights, or with those of its last step."""
    state: dict[str, Any] = torch.load(path, weights_only=True)["averages" if averages else "modules"]
    codec = FrameCodec(LOOK)
    codec.load_state_dict(state["codec"])
    codec.eval().requires_grad_(False)
    if "draft" in state:
        draft = Draft(EMBER_2, LOOK)
        draft.load_state_dict(state["draft"])
        return drawn_by(codec, draft.requires_grad_(False))
    spec = successor(codec.scale)
    dit, words = CausalDiT(dit_shape(spec.network)), WordTable(spec.network.text_len, spec.network.text_dim, EMBER_2)
    dit.load_state_dict(state["dit"])
    words.load_state_dict(state["words"])
    return Player(dit.eval().requires_grad_(False), words.eval().requires_grad_(False), codec, spec=spec).play


def drawn_by(codec: FrameCodec, draft: Draft) -> Restyle:
    """The decoder alone: looks come from the draft, the linear estimate removes noise. Steps make no difference."""

    def restyle(video_T3HW: Tensor, prompt: str, strength: float, steps: int) -> Tensor:
        clean = codec.encode_frames(video_T3HW * 2 - 1)
        noise = torch.randn(clean[:1].shape, generator=torch.Generator().manual_seed(0))
        picture = as_in_the_stream(codec, clean, noise, torch.tensor(strength))
        look = draft(EMBER_2.parse(prompt)[0], style_share(torch.tensor(strength)))
        made = codec.decode_frames(picture, look.view(1, -1, 1, 1).expand(1, -1, *clean.shape[-2:]))
        return (made / 2 + 0.5).clamp(0, 1)

    return restyle


def contents(folder: Path, films: Sequence[Path], height: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Natural clips and painted ones."""
    natural = [moving(wide_photograph(name, height, width), FRAMES, SPEED) for name in NAMES]
    natural += [film_of(film, 60, FRAMES, height, width) for film in films]
    painted = [
        torch.from_numpy(clip[:FRAMES, :height, :width].astype(np.float32) / 255).permute(0, 3, 1, 2)
        for clip in UNSEEN_FILMS.make(folder)[:4]
    ]
    return natural, painted


def target(picture_13HW: Tensor, word: str, strength: float) -> Tensor:
    """The style target of a word at a strength."""
    share = float(style_share(torch.tensor(strength)))
    return picture_13HW + (apply(picture_13HW, [word]) - picture_13HW) * share


def distances(restyle: Restyle, clips: Sequence[Tensor], natural: int, words: Sequence[str], steps: int) -> None:
    """Print distance and recognition; the first `natural` clips are natural ones."""
    print(f"\ndistance from the style target at strength {STRENGTH}, 1 to {steps} steps")
    targets: list[Mapping[str, Tensor]] = [{word: target(c[-1:], word, STRENGTH) for word in LOOKS} for c in clips]
    hits: dict[int, list[bool]] = defaultdict(list)
    natural_hits: dict[int, list[bool]] = defaultdict(list)
    better = 0
    for word in words:
        row, guesses = [], set()
        untouched = np.mean([float((c[-1:] - t[word]).abs().mean()) for c, t in zip(clips, targets, strict=True)])
        for count in range(1, steps + 1):
            found = []
            for number, (clip, by_word) in enumerate(zip(clips, targets, strict=True)):
                made = restyle(clip, word, STRENGTH, count)[-1:]
                found.append(float((made - by_word[word]).abs().mean()))
                guess = nearest_word(made, by_word)
                hits[count].append(guess == word)
                if number < natural:
                    natural_hits[count].append(guess == word)
                guesses |= {guess} - {word}
            row.append(float(np.mean(found)))
        better += row[-1] < row[0]
        figures = "".join(f"{value:>8.3f}" for value in row)
        print(f"{word:<14}{untouched:>8.3f} {figures}  {', '.join(sorted(guesses))}", flush=True)
    print("\nrecognition, top-1 among all words")
    for count, right in hits.items():
        print(f"  {count} step(s): {100 * np.mean(right):.1f} % of {len(right)}, natural", end=" ")
        print(f"{100 * np.mean(natural_hits[count]):.1f} % of {len(natural_hits[count])}")
    if steps > 1:
        print(f"  the last step lowers the distance for {better} of {len(words)} words")


def motion(restyle: Restyle, words: Sequence[str], height: int, width: int) -> None:
    """Print warp error and ghosts."""
    picture = wide_photograph(NAMES[0], height, width)
    slide, fast = moving(picture, FRAMES, SPEED), moving(picture, FRAMES, (16, 0))

    def warp(video: Tensor) -> float:
        dx, dy = SPEED
        return float((video[4:, :, :-dy, :-dx] - video[3:-1, :, dy:, dx:]).abs().mean())

    ratios, ghostly = {}, {}
    for word in words:
        if LOOKS[word].moves:
            drawn = torch.cat([target(frame[None], word, STRENGTH) for frame in slide])
            ratios[word] = warp(restyle(slide, word, STRENGTH, 1)) / max(warp(drawn), 1e-4)
            drawn = torch.cat([target(frame[None], word, STRENGTH) for frame in fast])
            ghostly[word] = ghosts(restyle(fast, word, STRENGTH, 1), drawn)
    print("\nwarp error over that of the operators, and ghost index at 16 pixels a frame")
    print(f"  mean {np.mean(list(ratios.values())):.2f}, {np.mean(list(ghostly.values())):.4f}")
    worst = sorted(ratios, key=lambda word: -ratios[word])[:6]
    print("  most: " + ", ".join(f"{word} {ratios[word]:.2f}" for word in worst))


def monotony(restyle: Restyle, clip: Tensor, words: Sequence[str]) -> None:
    """Print the distance from the input at rising strengths."""
    strengths = [round(0.1 * n, 1) for n in range(1, 11)]
    curves = {word: [float((restyle(clip, word, s, 1) - clip)[-1].abs().mean()) for s in strengths] for word in words}
    print("\nstrength: mean distance from the input, one step")
    print("  " + "".join(f"{s:>7}" for s in strengths))
    print("  " + "".join(f"{value:>7.3f}" for value in np.mean(list(curves.values()), axis=0)))
    falling = [word for word, curve in curves.items() if any(b < a - 0.005 for a, b in pairwise(curve))]
    print("  falls somewhere: " + (", ".join(falling) or "no word"))


def draw(restyle: Restyle, clips: Sequence[Tensor], words: Sequence[str], path: Path) -> None:
    """Write a sheet: for each word the target and the result, of each clip."""
    tiles = []
    for word in words:
        for clip in clips:
            tiles.append(tile(apply(clip[-1:], [word])[0], f"{word}: target"))
            tiles.append(tile(restyle(clip, word, STRENGTH, 1)[-1], word))
    assemble(tiles, 2 * len(clips)).save(path)


@torch.inference_mode()
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Evaluate the successor of Ember.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=CACHE, help="folder of the pools")
    parser.add_argument("--film", type=Path, action="append", default=[], help="a film; may be given several times")
    parser.add_argument("--words", default="", help="separated by commas; all by default")
    parser.add_argument("--size", default="256x144")
    parser.add_argument("--raw", action="store_true", help="the weights of the last step instead of the averages")
    parser.add_argument("--sheet", type=Path, default=None, help="write a picture instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    width, height = map(int, args.size.split("x"))
    words = args.words.split(",") if args.words else list(LOOKS)
    restyle = open_restyle(args.checkpoint, averages=not args.raw)
    natural, painted = contents(args.folder, args.film, height, width)
    if args.sheet:
        draw(restyle, [natural[0], natural[-1]], words, args.sheet)
        return
    distances(restyle, [*natural, *painted], len(natural), words, 1 if "drawing" in args.checkpoint.name else 2)
    motion(restyle, words, height, width)
    monotony(restyle, natural[0], words[::4])


if __name__ == "__main__":
    main()
