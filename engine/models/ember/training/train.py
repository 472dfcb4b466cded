"""The command that trains Ember, from the beginning or from a checkpoint.

    python -m engine.models.ember.training.train codec --minutes 15      # the autoencoder first
    python -m engine.models.ember.training.train network --minutes 60    # then network, words and decoder
    python -m engine.models.ember.training.train export                  # averaged weights to the package

The successor begins with a stage of its own:

    python -m engine.models.ember.training.train drawing --minutes 600     # the decoder, with every word
    python -m engine.models.ember.training.train successor --minutes 600   # then network, words and decoder

A LoRA teaches the shipped model a look that it lacks, on a fader (`looks.lora`):

    python -m engine.models.ember.training.train network --lora xray --minutes 15
    python -m engine.models.ember.training.train export --lora xray --out xray.safetensors

Training can be divided into any number of runs; a checkpoint resumes exactly. With `--fall N` the learning rate decays
to zero over the next N steps, and training ends there. The first run renders the pools of clips (about eight minutes on
one core). One CPU core is enough; `--threads` uses more, `--device cuda` a GPU.
"""

from __future__ import annotations

import argparse
import re
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from engine.models.ember.codec import EmberCodec
from engine.models.ember.frame_codec import FrameCodec
from engine.models.ember.specs import EMBER
from engine.models.ember.training.autoencode import AutoencodeTask, standardise
from engine.models.ember.training.denoise import DenoiseTask
from engine.models.ember.training.drawing import Draft, Drawings, DrawTask
from engine.models.ember.training.footage.data import Ahead, Lessons
from engine.models.ember.training.looks.lora import CLIPS, RANK, UNSEEN, LookLessons, LoraTask, distances, look_of
from engine.models.ember.training.looks.lora import write as write_lora
from engine.models.ember.training.loop import Pace, Trainer
from engine.models.ember.training.pool import CACHE, FILMS, TRAINING
from engine.models.ember.training.start import begin
from engine.models.ember.training.successor import LOOK, SuccessorTask, successor
from engine.models.ember.training.successor import begin as begin_successor
from engine.models.ember.vocabulary import EMBER_2
from engine.models.ember.weights import WEIGHTS, read, write
from engine.models.ember.word_table import WordTable
from engine.network.dit import CausalDiT
from engine.network.dit_shape import dit_shape

SEED = 1

SHIPPED = 14280
"""Number of training steps of the weights in the package."""


def codec_trainer(folder: Path, seed: int, device: torch.device, half: bool) -> Trainer:
    """A trainer for the autoencoder, new or resumed."""
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    codec.init_weights(torch.Generator().manual_seed(seed))
    path = folder / "codec.pt"
    task = AutoencodeTask(codec, TRAINING.make(folder), seed)
    if not path.exists():
        print(f"principal components alone: {task.start():.2f} dB")
    codec.to(device)
    return Trainer(task, path, seed, device, half=half)


def network_trainer(
    folder: Path, seed: int, device: torch.device, half: bool, lessons: Lessons, shipped: bool = False
) -> Trainer:
    """A trainer for network, words and decoder: resumed, or new.

    A new one starts with the codec's averaged weights, or with `shipped` from the weights in the package.
    """
    codec = EmberCodec(EMBER.network.latent_channels, **EMBER.vae)
    dit, words = CausalDiT(EMBER.network), WordTable(EMBER.network.text_len, EMBER.network.text_dim)
    path = folder / "network.pt"
    if shipped and not path.exists():
        for name, module in (("dit", dit), ("words", words), ("codec", codec)):
            read(module, name)
            module.train().requires_grad_(True)
    elif not path.exists():
        codec_run = torch.load(folder / "codec.pt", weights_only=True)
        codec.load_state_dict(codec_run["averages"]["codec"])
        standardise(codec, torch.cat(AutoencodeTask(codec, TRAINING.make(folder), seed, batch=32).groups_of(-1)))
        generator = torch.Generator().manual_seed(seed)
        begin(dit, codec.picture, generator)
        words.init_weights(generator)
    for module in (dit, words, codec):
        module.to(device)
    task = DenoiseTask(dit, words, codec, EMBER.schedule, lessons)
    trainer = Trainer(task, path, seed, device, half=half)
    if shipped and not trainer.number:
        trainer.number, trainer.pace = SHIPPED, Pace(first=SHIPPED, warmup=100)
    return trainer


def drawing_trainer(folder: Path, seed: int, device: torch.device, half: bool) -> Trainer:
    """A trainer for the successor's decoder, new or resumed."""
    films = FILMS.make(folder)
    generator = torch.Generator().manual_seed(seed)
    codec, draft = FrameCodec(LOOK), Draft(EMBER_2, LOOK)
    codec.init_weights(generator)
    draft.init_weights(generator)
    path = folder / "drawing.pt"
    task = DrawTask(codec, draft, Drawings(films, seed))
    if not path.exists():
        print(f"principal components alone: {task.start(films):.2f} dB", flush=True)
    codec.to(device)
    draft.to(device)
    return Trainer(task, path, seed, device, half=half, average=0.999)


def successor_trainer(folder: Path, seed: int, device: torch.device, half: bool) -> Trainer:
    """A trainer for the successor's network, words and decoder: resumed, or begun from the drawing's averages."""
    drawing = torch.load(folder / "drawing.pt", weights_only=True)["averages"]
    codec, draft = FrameCodec(LOOK), Draft(EMBER_2, LOOK)
    codec.load_state_dict(drawing["codec"])
    draft.load_state_dict(drawing["draft"])
    spec = successor(codec.scale)
    dit, words = CausalDiT(dit_shape(spec.network)), WordTable(spec.network.text_len, spec.network.text_dim, EMBER_2)
    generator = torch.Generator().manual_seed(seed)
    begin_successor(dit, spec.schedule.signal, generator)
    words.init_weights(generator)
    for module in (dit, words, codec, draft):
        module.to(device)
    task = SuccessorTask(spec, dit, words, codec, draft, FILMS.make(folder), seed)
    return Trainer(task, folder / "successor.pt", seed, device, half=half, average=0.999)


def lora_trainer(folder: Path, seed: int, device: torch.device, half: bool, look: str, rank: int) -> Trainer:
    """A trainer for a LoRA of the shipped model, new or resumed.

    Raises:
        ConfigError: if there is no such look.
    """
    operator = look_of(look)
    task = LoraTask(LookLessons(CLIPS.make(folder), operator, seed), rank, seed)
    for module in (task.dit, task.words, task.codec):
        module.to(device)
    name = re.sub(r"\W+", "-", look)
    return Trainer(task, folder / f"lora-{name}-{rank}.pt", seed, device, half=half, average=0.98)


def run(trainer: Trainer, minutes: float, fall: int | None) -> None:
    """Train for some minutes; Ctrl+C ends it early and saves the checkpoint."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: trainer.stop())
    if fall is not None:
        trainer.pace = replace(trainer.pace, fall_from=trainer.number, fall_to=trainer.number + fall)
    trainer.run(seconds=minutes * 60, report=lambda line: print(line, flush=True))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train Ember, or write its trained weights into the package.")
    parser.add_argument("what", choices=("codec", "network", "drawing", "successor", "export"))
    parser.add_argument("--minutes", type=float, default=10.0, help="length of this run (default 10)")
    parser.add_argument(
        "--fall", type=int, default=None, help="let the learning rate decay to zero over this many steps"
    )
    parser.add_argument("--folder", type=Path, default=CACHE, help="folder of pools and checkpoints")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="matmuls in bfloat16 (fast on GPUs and on CPUs with AMX)")
    parser.add_argument("--shipped", action="store_true", help="start from the weights in the package")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lora", default="", help="a look: train or export a LoRA for it instead of the network")
    parser.add_argument("--rank", type=int, default=RANK, help=f"rank of the LoRA (default {RANK})")
    parser.add_argument("--out", type=Path, default=None, help="file of the exported LoRA (default LOOK.safetensors)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.lora:
        if args.what not in ("network", "export"):
            parser.error("--lora goes with network or export")
        trainer = lora_trainer(args.folder, args.seed, device, args.half, args.lora, args.rank)
        if args.what == "network":
            run(trainer, args.minutes, args.fall)
        else:
            out = args.out or Path(f"{args.lora.partition(':')[0]}.safetensors")
            write_lora(out, trainer.averages["lora"], args.lora)
            print(f"step {trainer.number}, {trainer.seconds / 60:.1f} min -> {out}")
            found = distances(trainer.averages["lora"], look_of(args.lora), UNSEEN.make(args.folder))
            print("distance from the look: input {:.3f}, Ember {:.3f}, with the LoRA {:.3f}".format(*found))
        return
    if args.what == "drawing":
        run(drawing_trainer(args.folder, args.seed, device, args.half), args.minutes, args.fall)
        return
    if args.what == "successor":
        run(successor_trainer(args.folder, args.seed, device, args.half), args.minutes, args.fall)
        return
    if args.what == "codec":
        run(codec_trainer(args.folder, args.seed, device, args.half), args.minutes, args.fall)
        return
    with closing(Ahead(args.folder, args.seed)) as lessons:
        trainer = network_trainer(args.folder, args.seed, device, args.half, lessons, args.shipped)
        if args.what == "network":
            run(trainer, args.minutes, args.fall)
        else:
            write(trainer.averages, WEIGHTS)
            print(f"step {trainer.number}, {trainer.seconds / 3600:.2f} h -> {WEIGHTS}")


if __name__ == "__main__":
    main()
