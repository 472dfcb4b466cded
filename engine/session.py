"""The public face of the engine: open a model by name, feed frames, step, get restyled frames back.

    >>> import numpy as np
    >>> from engine.config import Config
    >>> from engine.controls import Controls
    >>> from engine.frame import Frame
    >>> from engine.session import Session
    >>>
    >>> config = Config(model="wan21-tiny", width=64, height=64, device="cpu")
    >>> controls = Controls(prompt_1="a forest in autumn", strength=0.8, steps=2)
    >>> rng = np.random.default_rng(0)
    >>> restyled = []
    >>> with Session.open(config) as session:
    ...     for n in range(21):
    ...         pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ...         session.feed(Frame(pixels, pts_ns=n * 33_333_333, seq=n))
    ...         if session.ready:
    ...             restyled += session.step(controls)
    ...     restyled += session.flush()
    >>> [frame.seq for frame in restyled] == list(range(21))
    True

Every frame that is fed comes out once, in order, restyled, with the times and number that it came with. Any
control may change between two steps; none but `reset` forgets the history. A `Session` belongs to one thread
(only `encode_prompt` may be called from another). It has no clock: time is what the frames say.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engine.chunker import Chunk, Chunker
from engine.config import Config
from engine.controls import Controls
from engine.distributed.launch import open_pipeline
from engine.distributed.link import RankLostError
from engine.errors import ModelError, OutOfMemoryError
from engine.frame import Frame, PixelFormat
from engine.models import registry, weights
from engine.models.spec import Conditioning, ModelSpec
from engine.runtime import graph_capture, quantise
from engine.runtime.device import device_for, dtype_for, keep_memory
from engine.runtime.metrics import Health, StageTimers, memory_gib
from engine.runtime.transfers import Parcel, lanes, staging
from engine.schedule import Plan
from engine.stream import saved_state
from engine.stream.kv_cache import Rule
from engine.stream.noise import RULES, Gaussian
from engine.stream.prompts import BLENDS, Prompts
from engine.stream.stream import Flight, Stream
from engine.stream.timesteps import steps_for

FULLY_WET = 0.3
"""Strength from which the output is the model's alone; below it the input shows through, at 0 it is the output."""

Progress = Callable[[str], None]


Finished = list[tuple[Chunk, Parcel | None]]
"""Chunks on their way out, oldest first, with their pixels [T, H, W, 3], uint8; None: frames leave as they came."""


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """What `Session.begin` has set going and `Session.collect` waits for.

    Attributes:
        finished: what comes out.
        health: of the chunk that was taken, None if there was none; its noise and stages are still to come.
        noise: the share of noise; it leaves last.
        timers: of its stages.
    """

    finished: Finished
    health: Health | None
    noise: Parcel
    timers: StageTimers


class Session:
    """A model at work on one stream. Made by `Session.open`."""

    def __init__(
        self,
        spec: ModelSpec,
        stream: Stream,
        noise: Gaussian,
        prompts: Prompts,
        config: Config,
        build: Callable[[Sequence[str]], tuple[Stream, str]],
        trouble: str = "",
    ) -> None:
        self.spec, self.config, self._build = spec, config, build
        self._devices = tuple(config.devices)
        self._trouble = trouble
        self._stream, self._noise, self._prompts = stream, noise, prompts
        self._chunker = Chunker(spec.first_frames, spec.frames_per_latent * spec.frames_per_block)
        self._timers = StageTimers(stream.device)
        self._up, self._down = lanes(stream.device)
        self._begun: deque[Begun] = deque()
        self._counters: tuple[int, int] | None = None
        self._chunks = 0
        self.health = Health()

    @classmethod
    def open(
        cls,
        config: Config,
        *,
        progress: Progress | None = None,
        defer_prompts: bool = False,
        files: registry.Files | None = None,
    ) -> Session:
        """Open the model that `config` names.

        Args:
            config: model, size, device, ...
            progress: told in words what is being done.
            defer_prompts: let `step` go on with the old prompt while a new one is not encoded yet, and list it in
                `health.missing_prompts`; the caller encodes it with `encode_prompt` on a thread of its own.
            files: local files by role instead of the row's own; {} for random weights (timings).

        Raises:
            ModelError: if there is no such model, or it cannot be opened with this configuration;
                `WeightsMissingError` if its files are not here, `OutOfMemoryError` if it does not fit.
        """
        say = progress or (lambda _: None)
        spec = registry.get(config.model)
        device = device_for(config.devices[0] if config.devices else config.device)
        if device.type == "cpu" and config.device == "auto" and not config.devices and spec.needs_gpu:
            raise ModelError(
                f"{spec.title} needs a GPU with {spec.vram_gib:g} GiB, and torch can use none here.",
                'tidecast doctor tells why. device = "cpu" runs it all the same, far too slowly for a stage.',
            )
        dtype = dtype_for(config.dtype, device)
        graph_capture.choose(config.compile, device, devices=len(config.devices), warmup=config.warmup)
        if config.weights_dtype == "float8":
            quantise.check(device, dtype, devices=len(config.devices))
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # streams, events and graphs are the current device's
        if config.threads:
            torch.set_num_threads(config.threads)
        if device.type == "cpu":
            keep_memory()
        parts = registry.builder(spec)
        which = spec.default_vae if config.vae == "auto" else config.vae
        if files is None:
            files = weights.locate(spec, weights.folder(config.weights_dir), vae=which)
        max_steps = min(config.max_steps, len(spec.schedule.steps))
        noise = Gaussian(
            (spec.dit.latent_channels, config.height // spec.stride, config.width // spec.stride),
            device,
            steps=max_steps,
            fixed=spec.schedule.fixed_noise,
        )
        settings: dict[str, Any] = dict(
            height=config.height,
            width=config.width,
            noise=noise,
            rule=Rule(spec.cache.rule if config.cache == "auto" else config.cache),
            noise_rule=RULES[config.noise],
            batch=config.batch,
            max_steps=max_steps,
        )

        def build(devices: Sequence[str]) -> tuple[Stream, str]:
            trouble = ""
            if len(devices) > 1:
                say(f"loading {spec.title} on {len(devices)} devices")
                stream: Stream = open_pipeline(spec, devices, dtype, files, which, settings, threads=config.threads)
            else:
                say(f"loading {spec.title}")
                dit = parts.build_dit(spec, device, dtype, files)
                if config.weights_dtype == "float8":
                    say("rounding weights to 8 bits")
                    quantise.quantise(dit)
                say("loading the video autoencoder")
                stream = Stream(spec, dit, parts.build_codec(spec, which, device, dtype, files), **settings)
            mode = graph_capture.choose(config.compile, device, devices=len(devices), warmup=config.warmup)
            if config.warmup and (mode != "off" or device.type != "cpu"):  # else a CPU has nothing to tune
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
            raise _too_big(spec, config, error) from None
        prompts = Prompts(text, BLENDS[config.travel], device=device, defer=defer_prompts)
        return cls(spec, stream, noise, prompts, config, build, trouble)

    @property
    def device(self) -> torch.device:
        """Where the network's first blocks are."""
        return self._stream.device

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the network."""
        return self._stream.dit.patch_embedding.weight.dtype

    @property
    def ready(self) -> bool:
        """Whether enough frames were fed for a chunk."""
        return self._chunker.needed == 0

    @property
    def frames_needed(self) -> int:
        """How many more frames make the next chunk."""
        return self._chunker.needed

    @property
    def arrived(self) -> bool:
        """Whether `collect` would not wait: what was begun first is finished, or nothing was begun."""
        return not self._begun or self._begun[0].noise.arrived

    def feed(self, frame: Frame) -> None:
        """Take one more frame; another size than the model's is scaled and cropped to it."""
        rgb = frame.rgb()
        width, height = self.config.width, self.config.height
        if (frame.width, frame.height) != (width, height):
            rgb = np.asarray(ImageOps.fit(Image.fromarray(np.ascontiguousarray(rgb)), (width, height)))
        self._chunker.feed(replace(frame, pixels=rgb, format=PixelFormat.RGB))

    def step(self, controls: Controls, plan: Plan | None = None) -> list[Frame]:
        """Take one chunk if there is one, and give back the frames of all chunks that are finished.

        Args:
            controls: the live controls in force for this chunk.
            plan: from the schedule; may lower the steps.

        Returns:
            RGB frames of the model's size, oldest first, with the times and numbers of the frames that went in.
            Empty while nothing is finished.

        Raises:
            OutOfMemoryError: if the device's memory does not suffice.
            ModelError: if the prompt cannot be encoded.
        """
        self.begin(controls, plan)
        return self._collect_all()

    def begin(self, controls: Controls, plan: Plan | None = None) -> None:
        """The first half of `step`: take one chunk if there is one, and set its work going.

        On a GPU the host does not wait for that work. So a chunk can be begun while the one before it is computed: its
        frames go up meanwhile, the device goes on without a pause, and the finished frames come down beside it.

        Raises:
            OutOfMemoryError, ModelError: as `step`.
        """
        try:
            self._begin(controls, plan)
        except torch.OutOfMemoryError as error:
            raise _too_big(self.spec, self.config, error) from None

    def collect(self) -> list[Frame]:
        """The second half of `step`: wait for the oldest `begin` that was not collected, and give back its frames.

        Raises:
            OutOfMemoryError: as `step`.
        """
        try:
            return self._collect() if self._begun else []
        except torch.OutOfMemoryError as error:
            raise _too_big(self.spec, self.config, error) from None

    def flush(self) -> list[Frame]:
        """Give back what is still inside, at the end of a stream: chunks in flight with as many steps as they
        have had, and frames that make no whole chunk as they came. The next frame begins a new stream."""
        self._begin_with(self._land(), None)
        done = self._collect_all() + list(self._chunker.waiting)
        self._chunker.clear()
        return done

    def reset(self) -> None:
        """New stream: forget the history, what is in flight and what was begun. Waiting frames and prompts stay."""
        self._begun.clear()
        self._restart()

    def _restart(self) -> None:
        self._stream.reset()
        self._noise.reset()
        self._chunker.restart()

    def save(self, path: Path) -> None:
        """Write everything that outlives a chunk to one file, frames inside included. First `collect` all."""
        state, travel = self._stream.state, self._prompts.travel
        tensors = {
            **{f"stream.{n}": t for n, t in state.tensors()},
            **{f"noise.{n}": t for n, t in self._noise.tensors().items()},
            **{f"travel.{n}": t for n, t in travel.tensors().items()},
        }
        tensors["waiting"], waiting = saved_state.pack_frames(self._chunker.waiting)
        flights = []
        for row, flight in enumerate(state.flights):
            chunk = None
            if flight.ticket is not None:
                tensors[f"flight.{row}"], chunk = saved_state.pack_chunk(flight.ticket)
            flights.append(
                {
                    "timesteps": flight.timesteps,
                    "number": flight.number,
                    "position": flight.position,
                    "anchor": flight.anchor,
                    "chunk": chunk,
                }
            )
        saved_state.write(
            path,
            tensors,
            {
                "model": self.spec.name,
                "number": state.number,
                "position": state.position,
                "flights": flights,
                "waiting": waiting,
                "travel": travel.facts(),
                "aim": self._prompts.aim,
                "unknown": self._prompts.unknown,
                "counters": self._counters,
                "chunks": self._chunks,
                "seed": self._noise.seed,
            },
        )

    def resume(self, path: Path) -> None:
        """Go on where the session that wrote the file was: the same frames in give the same frames out.

        Raises:
            ModelError: if the file holds no stream, or one of another model, size, batch or cache.
        """
        tensors, facts = saved_state.read(path)
        if facts["model"] != self.spec.name:
            raise ModelError(f"{path} is a stream of {facts['model']}.", f"Open {facts['model']} to go on with it.")
        state = self._stream.state
        held = {
            **{f"stream.{n}": t for n, t in state.tensors()},
            **{f"noise.{n}": t for n, t in self._noise.tensors().items()},
        }
        saved_state.fill(held.items(), tensors)
        self._noise.resume(facts["seed"], tensors["noise.generator"])
        state.number, state.position = facts["number"], facts["position"]
        state.flights = [
            Flight(
                None if f["chunk"] is None else saved_state.unpack_chunk(tensors[f"flight.{row}"], f["chunk"]),
                tuple(f["timesteps"]),
                f["number"],
                f["position"],
                f["anchor"],
            )
            for row, f in enumerate(facts["flights"])
        ]
        self._chunker.restart(begun=state.number > 0)
        self._chunker.clear()
        for frame in saved_state.unpack_frames(tensors["waiting"], facts["waiting"]):
            self._chunker.feed(frame)
        travel = {n.removeprefix("travel."): t for n, t in tensors.items() if n.startswith("travel.")}
        self._prompts.travel.restore(travel, facts["travel"])
        embedding = self._prompts.travel.here()
        if embedding is not None:
            self._stream.read(embedding)
        self._prompts.aim = tuple((text, share) for text, share in facts["aim"])
        self._prompts.unknown = tuple(facts["unknown"])
        self._counters = tuple(facts["counters"]) if facts["counters"] else None
        self._chunks = facts["chunks"]

    def encode_prompt(self, text: str) -> Conditioning:
        """Encode a prompt and remember the result. Slow; may be called from another thread.

        Raises:
            ModelError: if the text encoder is missing or fails.
        """
        return self._prompts.encode(text)

    def close(self) -> None:
        """Give the memory back. The session cannot be used afterwards."""
        if "_stream" in self.__dict__:
            self._stream.close()
        for name in ("_stream", "_noise", "_prompts"):
            self.__dict__.pop(name, None)
        if torch.cuda.is_available():
            gc.collect()  # compiled blocks refer to themselves
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, controls: Controls, plan: Plan | None) -> None:
        done: Finished = []
        resets, anchors = self._counters or (controls.resets, controls.anchors)
        anchor = controls.anchors != anchors
        self._counters = (controls.resets, controls.anchors)
        if controls.resets != resets:
            done += self._land()
        if not self.ready:
            self._begin_with(done, None)
            return

        # The prompt comes first: when it cannot be encoded, no frame has been taken yet.
        now = self._chunker.newest.pts_ns / 1e9
        embedding = self._prompts.listen(controls.prompts(), controls.prompt_seconds, now)
        chunk = self._chunker.cut(controls)
        count = min(controls.steps, plan.steps if plan else controls.steps, self._stream.max_steps)
        steps = steps_for(self.spec.schedule, controls.strength, count)
        self._noise.sow(controls.seed)
        self._timers = StageTimers(self._stream.device)
        with self._timers.stage("upload"):
            video = self._upload(chunk.frames)
        try:
            if embedding is not None:
                self._stream.read(embedding)
            with self._timers.stage("encode"):
                noisy, first = self._stream.encode(video, steps, controls.motion)
            with self._timers.stage("dit"):
                finished = self._stream.denoise(noisy, first, steps.timesteps, chunk, anchor)
            done += self._decode(finished)
        except RankLostError as lost:
            done += self._survive(lost, chunk)
        self._chunks += 1
        health = Health(
            strength=controls.strength,
            steps=count,
            in_flight=self._stream.in_flight,
            chunks=self._chunks,
            prompt=self._prompts.in_words(),
            unknown_words=self._prompts.unknown,
            missing_prompts=self._prompts.missing,
            vram=memory_gib(self._stream.device),
            devices=max(1, len(self._devices)),
            trouble=self._trouble,
        )
        self._trouble = ""
        self._begin_with(done, health)

    def _begin_with(self, finished: Finished, health: Health | None) -> None:
        noise = self._down.send(self._stream.state.controller.previous.clone())
        self._begun.append(Begun(finished, health, noise, self._timers))

    def _collect(self) -> list[Frame]:
        begun = self._begun.popleft()
        done: list[Frame] = []
        for chunk, pixels in begun.finished:
            done += chunk.frames if pixels is None else _restyled(chunk, pixels.here().numpy())
        if begun.health is not None:
            self.health = replace(begun.health, noise=float(begun.noise.here()), stages=begun.timers.read())
        return done

    def _collect_all(self) -> list[Frame]:
        done: list[Frame] = []
        while self._begun:
            done += self.collect()
        return done

    def _upload(self, frames: Sequence[Frame]) -> Tensor:
        """RGB frames to pixels in [-1, 1] on the device, [3, T, H, W]."""
        pixels = [frame.pixels for frame in frames]
        video_THWC = staging((len(pixels), *pixels[0].shape), self._stream.device)
        np.stack(pixels, out=video_THWC.numpy())
        return self._up.send(video_THWC).here().permute(3, 0, 1, 2).float().div_(127.5).sub_(1.0)

    def _decode(self, finished: Sequence[tuple[Chunk, Tensor]]) -> Finished:
        """Clean latents back to pixels, on their way to the host."""
        done: Finished = []
        for chunk, clean in finished:
            with self._timers.stage("decode"):
                video_3THW = self._stream.decode(clean)
            with self._timers.stage("download"):
                video_THW3 = video_3THW.permute(1, 2, 3, 0).float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
                done.append((chunk, self._down.send(video_THW3.to(torch.uint8).contiguous())))
        return done

    def _land(self) -> Finished:
        """End the stream: the chunks in flight, as far as they are."""
        try:
            done = self._decode(self._stream.flush())
        except RankLostError as lost:
            return self._survive(lost, None)
        self._restart()
        return done

    def _survive(self, lost: RankLostError, chunk: Chunk | None) -> Finished:
        """Begin a new stream on the devices that are left.

        Returns:
            The chunks that were in flight (`chunk` the newest), as they came.
        """
        gone, chunks = self._stream.abandon()
        if chunk is not None and chunk not in chunks:
            chunks.append(chunk)
        left = [device for rank, device in enumerate(self._devices) if rank not in gone] if gone else self._devices[:1]
        names = ", ".join(f"{self._devices[rank]} (rank {rank})" for rank in gone) or lost.message
        self._trouble = f"Lost {names}: the stream began anew on {len(left)} of {len(self._devices)} devices."
        self._stream.close()
        self._devices = tuple(left)
        self._stream, trouble = self._build(left)
        self._up, self._down = lanes(self._stream.device)
        self._trouble = f"{self._trouble} {trouble}".strip()
        self._noise.reset()
        self._chunker.restart()
        embedding = self._prompts.travel.here()
        if embedding is not None:
            self._stream.read(embedding)
        return [(held, None) for held in chunks]


def _restyled(chunk: Chunk, pixels_THW3: np.ndarray) -> list[Frame]:
    """A chunk's pixels as frames, with what each frame came with; as far as its strength says, mixed with the input."""
    if len(pixels_THW3) != len(chunk.frames):
        raise ModelError(f"{len(chunk.frames)} frames went in, {len(pixels_THW3)} came out.")
    wet = _wet(chunk.controls.strength)
    return [
        replace(frame, pixels=_blend(frame.pixels, restyled, wet))
        for frame, restyled in zip(chunk.frames, pixels_THW3, strict=True)
    ]


def _wet(strength: float) -> float:
    """Share of the restyled picture in the output: 0 at strength 0, 1 from `FULLY_WET`, smooth between."""
    x = min(strength / FULLY_WET, 1.0)
    return x * x * (3 - 2 * x)


def _blend(dry: np.ndarray, wet: np.ndarray, share: float) -> np.ndarray:
    if share >= 1.0:
        return wet
    if share <= 0.0:
        return np.ascontiguousarray(dry)
    mixed = dry.astype(np.float32) + (wet.astype(np.float32) - dry) * np.float32(share)
    return np.rint(mixed).astype(np.uint8)


def _too_big(spec: ModelSpec, config: Config, error: BaseException) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{spec.title} at {config.width}x{config.height} does not fit into the memory: {error}",
        'Choose a smaller size, vae = "tiny", or a smaller model.',
    )
