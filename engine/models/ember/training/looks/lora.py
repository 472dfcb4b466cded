"""Trains a LoRA for Ember: a look that its vocabulary lacks, on a fader. The shipped model itself stays as it is.

    python -m engine.models.ember.training.train network --lora xray --minutes 15
    python -m engine.models.ember.training.train export --lora xray --out xray.safetensors

Looks are those of `looks.table` that are no words of Ember's, and any gradient, as `palette:000000,c82800,ffffff`.

The task is that of the network (`denoise`), with pairs of narrow matrices beside the layers of the blocks. In half of
the examples the prompt is empty; in the others the look comes on top of the prompt's, so that fader and words combine.

Shape letters: O outputs, I inputs, R rank.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from engine.errors import ConfigError
from engine.models.ember.codec import GROUP, EmberCodec
from engine.models.ember.specs import EMBER
from engine.models.ember.training.denoise import DenoiseTask
from engine.models.ember.training.footage.data import Batch, Lesson, Prompt, crop, random_prompt
from engine.models.ember.training.footage.styles import STYLES, apply
from engine.models.ember.training.looks.grade import Operator, palette
from engine.models.ember.training.looks.table import LOOKS
from engine.models.ember.training.player import Player
from engine.models.ember.training.pool import Pool
from engine.models.ember.weights import read
from engine.models.ember.word_table import WordTable
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape

CLIPS = Pool("lora", count=160, frames=9, size=128, seed=21)
"""A small pool: it is rendered in half a minute, and a look is learnt long before its clips are."""

UNSEEN = Pool("lora-unseen", count=6, frames=9, size=128, seed=902)
"""Clips for `distances`."""

STRENGTH = 0.55
"""The strength at which a look is compared: the lowest at which its target has no share of the input."""

ADAPTED = re.compile(r"^(blocks\.\d+\.(self_attn\.o|cross_attn\.[vo]|ffn\.[02])|head\.head)$")
"""The layers that get a pair."""

RANK = 2
RATE = 4e-3
SIZE = 64
NO_PROMPT_SHARE = 0.5
SECOND_STEP_SHARE = 0.3


class Pair(nn.Module):
    """What is added to a weight: up down. It begins with 0."""

    def __init__(self, weight_OI: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight_OI.shape
        self.down_RI = nn.Parameter(torch.randn(rank, inputs, generator=generator) * inputs**-0.5)
        self.up_OR = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight_OI: Tensor) -> Tensor:
        """The weight with the pair added."""
        return weight_OI + self.up_OR @ self.down_RI


def look_of(name: str) -> Operator:
    """The operator of a look.

    Raises:
        ConfigError: if there is no such look, or Ember has it as a word.
    """
    if name.startswith("palette:"):
        colours = [part.strip().lstrip("#").lower() for part in name.removeprefix("palette:").split(",")]
        if len(colours) < 2 or not all(re.fullmatch(r"[0-9a-f]{6}", colour) for colour in colours):
            raise ConfigError(f"{name!r} is no palette.", "Write palette:000000,c82800,ffffff, from dark to bright.")
        return palette(*colours)
    new = [word for word in LOOKS if word not in STYLES]
    if name not in new:
        known = f"{name} is a word of Ember's already." if name in STYLES else f"There is no look {name!r}."
        raise ConfigError(known, f"Choose one of {', '.join(new)}, or palette:000000,c82800,ffffff.")
    return LOOKS[name].operator


class LookLessons:
    """The lessons of one look; see `engine.models.ember.training.footage.data.Lessons`.

    Args:
        clips: uint8 [clips, frames, height, width, 3].
        look: the operator.
        seed: seed of the sequence.
        batch: clips in a lesson.
    """

    def __init__(self, clips: np.ndarray, look: Operator, seed: int, batch: int = 8) -> None:
        self._clips, self._look, self._seed, self._batch = clips, look, seed, batch

    def at(self, number: int) -> Lesson:
        """See `Lessons`."""
        rng = random.Random(f"{self._seed}/{number}/look")
        contents, styleds, prompts = [], [], []
        for _ in range(self._batch):
            content = crop(self._clips, rng, GROUP + 1, SIZE)
            prompt: Prompt = [] if rng.random() < NO_PROMPT_SHARE else random_prompt(rng)
            contents.append(content)
            still = bool((content == content[:1]).all())
            styled = self._look(apply(content[:1] if still else content, prompt))
            styleds.append(styled.expand_as(content))
            prompts.append(prompt)
        steps = 2 if rng.random() < SECOND_STEP_SHARE else 1
        return Lesson(Batch(torch.stack(contents) * 2 - 1, torch.stack(styleds) * 2 - 1, prompts), 1, steps)


class LoraTask(DenoiseTask):
    """The training task of a LoRA: only its pairs learn.

    Args:
        lessons: the lessons of its look.
        rank: R.
        seed: seed of the pairs.
    """

    def __init__(self, lessons: LookLessons, rank: int, seed: int) -> None:
        dit = CausalDiT(dit_shape(EMBER.network))
        words = WordTable(EMBER.network.text_len, EMBER.network.text_dim)
        codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
        for name, module in (("dit", dit), ("words", words), ("codec", codec)):
            read(module, name)
        super().__init__(dit, words, codec, EMBER.schedule, lessons, rate=RATE)
        generator = torch.Generator().manual_seed(seed)
        self.pairs = nn.ModuleDict()
        for name, module in list(dit.named_modules()):
            if ADAPTED.match(name) and isinstance(module, nn.Linear):
                pair = Pair(module.weight, rank, generator)
                parametrize.register_parametrization(module, "weight", pair)
                self.pairs[name.replace(".", "/")] = pair
        self.modules = {"lora": self.pairs}

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All pairs at one rate."""
        return [(list(self.pairs.parameters()), self.rate)]


def distances(tensors: Mapping[str, Tensor], look: Operator, clips: np.ndarray) -> tuple[float, float, float]:
    """Mean absolute distance of pixels (0..1) from the look, without a prompt, at one step, on clips.

    Args:
        tensors: the state of `LoraTask.pairs`.
        look: the operator.
        clips: uint8 [clips, frames, height, width, 3].

    Returns:
        That of the input, of Ember without the LoRA, and of Ember with it at strength 1.
    """
    dit = CausalDiT(dit_shape(EMBER.network))
    words = WordTable(EMBER.network.text_len, EMBER.network.text_dim)
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    for name, module in (("dit", dit), ("words", words), ("codec", codec)):
        read(module, name)
    base = dit.state_dict()
    merged = {name: tensor.clone() for name, tensor in base.items()}
    for key, down_RI in tensors.items():
        if key.endswith(".down_RI"):
            module_name = key.removesuffix(".down_RI")
            merged[f"{module_name.replace('/', '.')}.weight"] += tensors[f"{module_name}.up_OR"] @ down_RI
    found = [0.0, 0.0, 0.0]
    for clip in clips:
        frames = torch.from_numpy(np.array(clip)).permute(0, 3, 1, 2) / 255
        wanted = look(frames)
        made = [frames]
        for state in (base, merged):
            dit.load_state_dict(state)
            made.append(Player(dit, words, codec).play(frames, "", STRENGTH, 1))
        for number, pictures in enumerate(made):
            found[number] += (pictures - wanted).abs().mean().item() / len(clips)
    return found[0], found[1], found[2]


def write(path: Path, tensors: Mapping[str, Tensor], look: str) -> None:
    """Write the pairs as a LoRA file, in fp16, with a title.

    Args:
        path: the file.
        tensors: the state of `LoraTask.pairs`.
        look: the name of the look.
    """
    halves = {"down_RI": "lora_A", "up_OR": "lora_B"}
    file = {}
    for key, tensor in tensors.items():
        module, _, half = key.rpartition(".")
        file[f"diffusion_model.{module.replace('/', '.')}.{halves[half]}.weight"] = tensor.half().contiguous()
    title = "X-ray" if look == "xray" else look.partition(":")[0].capitalize()
    save_file(file, path, {"modelspec.title": title, "modelspec.architecture": "tidecast/ember"})
    path.chmod(0o644)
