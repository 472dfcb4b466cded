"""Contact sheets: all words on one picture, and some words at several strengths and numbers of steps.

    python -m engine.models.ember.training.sheet --out sheets
    python -m engine.models.ember.training.sheet --tiles     # the pictures of the words, for the page: one file

Uses the weights in the package unless `--weights` names others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from engine.models.ember.codec import EmberCodec
from engine.models.ember.specs import EMBER
from engine.models.ember.training.footage.photographs import moving, photograph
from engine.models.ember.training.footage.styles import apply
from engine.models.ember.training.player import Player
from engine.models.ember.training.pool import CACHE, UNSEEN
from engine.models.ember.vocabulary import PICTURES, WORDS
from engine.models.ember.weights import WEIGHTS, read
from engine.models.ember.word_table import WordTable
from engine.network.dit import CausalDiT

FRAMES = 9
"""Length of the clips; the sheets show the last frame."""

TILE = 96
"""Side of a word's picture for the page, in pixels; it is drawn at twice the size."""

COLUMNS = 8


def open_player(path: Path = WEIGHTS, *, cached: bool = True) -> Player:
    """A player with the weights in this file."""
    dit, words = CausalDiT(EMBER.network), WordTable(EMBER.network.text_len, EMBER.network.text_dim)
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    for name, module in (("dit", dit), ("words", words), ("codec", codec)):
        read(module, name, path)
    return Player(dit, words, codec, cached=cached)


def tile(picture_3HW: Tensor, label: str) -> np.ndarray:
    """A picture [3, H, W] in 0..1 as [H, W, 3] uint8, with a label in its corner."""
    image = Image.fromarray((picture_3HW.permute(1, 2, 0).numpy() * 255).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 7 + 6 * len(label), 12), fill=(0, 0, 0))
    draw.text((3, 1), label, fill=(255, 255, 255))
    return np.asarray(image)


def assemble(tiles: Sequence[np.ndarray], columns: int) -> Image.Image:
    """Tiles in rows of `columns`; the last row is filled up with black."""
    filled = list(tiles) + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(filled[n : n + columns], axis=1) for n in range(0, len(filled), columns)]
    return Image.fromarray(np.concatenate(rows))


def words_sheet(
    player: Player, video_T3HW: Tensor, prompts: Sequence[str], strength: float, steps: int, columns: int = 8
) -> Image.Image:
    """The input, then the result of each prompt."""
    tiles = [tile(video_T3HW[-1], "input")]
    for prompt in prompts:
        tiles.append(tile(player.play(video_T3HW, prompt, strength, steps)[-1], prompt))
    return assemble(tiles, columns)


def write_tiles(player: Player, video_T3HW: Tensor, path: Path) -> None:
    """Write the pictures of all words, without labels, as one JPEG, and beside it what is where (`path`, JSON).

    Strength 0.7, one step. `engine.models.vocabulary.Vocabulary.pictures` names the JSON file.
    """
    tiles = []
    for word in WORDS:
        picture_3HW = player.play(video_T3HW, word, 0.7, 1)[-1]
        pixels = (picture_3HW.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        tiles.append(np.asarray(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)))
    assemble(tiles, COLUMNS).save(path.with_suffix(".jpg"), quality=80, optimize=True)
    content = {"tile": TILE, "columns": COLUMNS, "words": WORDS}
    path.write_text(json.dumps(content) + "\n", "utf-8")


def settings_sheet(player: Player, video_T3HW: Tensor, prompts: Sequence[str]) -> Image.Image:
    """For each prompt its target, then four strengths with two steps, then strength 0.7 with one and four steps."""
    settings = [(0.3, 2), (0.5, 2), (0.7, 2), (0.9, 2), (0.7, 1), (0.7, 4)]
    tiles = []
    for prompt in prompts:
        tiles.append(tile(apply(video_T3HW[-1:], prompt.split())[0], f"{prompt}: target"))
        for strength, steps in settings:
            tiles.append(tile(player.play(video_T3HW, prompt, strength, steps)[-1], f"{strength} x{steps}"))
    return assemble(tiles, 1 + len(settings))


def main() -> None:
    """Draw the sheets."""
    parser = argparse.ArgumentParser(description="Draw contact sheets of Ember.")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--tiles", action="store_true", help="the pictures of the words beside the weights instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    player = open_player(args.weights)
    if args.tiles:
        write_tiles(player, moving(photograph("astronaut", 2 * TILE), FRAMES), PICTURES)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    photo = moving(photograph("astronaut", args.size), FRAMES)
    scene = torch.from_numpy(UNSEEN.make(CACHE)[4, :FRAMES].astype(np.float32) / 255).permute(0, 3, 1, 2)
    words_sheet(player, photo, WORDS, 0.7, 2).save(args.out / "words.jpg", quality=85)
    words_sheet(player, scene, WORDS, 0.7, 2).save(args.out / "scene.jpg", quality=85)
    mixed = ("neon", "ink", "hatch", "watercolor", "blue neon sketch", "pink mosaic", "gold comic")
    settings_sheet(player, photo, mixed).save(args.out / "settings.jpg", quality=85)


if __name__ == "__main__":
    main()
