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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from engine.chunker import Chunk, Chunker
from engine.config import Config
from engine.controls import Controls
from engine.distributed.link import RankLostError
from engine.errors import ModelError
from engine.frame import Frame
from engine.models import registry
from engine.models.spec import Conditioning
from engine.opening import Opened, Progress, opened, out_of_memory
from engine.pending import Finished, Pending, decoded
from engine.pixels import fitted, stacked, to_video
from engine.runtime.metrics import Health, StageTimers, memory_gib
from engine.runtime.transfers import transfers
from engine.schedule import Plan
from engine.stream import saved_state
from engine.stream.timesteps import steps_for


class Session:
    """A model at work on one stream. Made by `Session.open`."""

    def __init__(self, model: Opened, config: Config) -> None:
        self.spec, self.config, self._build = model.spec, config, model.build
        self._devices = tuple(config.devices)
        self._trouble = model.trouble
        self._stream, self._noise, self._prompts = model.stream, model.noise, model.prompts
        self._chunker = Chunker(self.spec.first_frames, self.spec.frames_per_latent * self.spec.frames_per_block)
        self._timers = StageTimers(self._stream.device)
        self._up, self._down = transfers(self._stream.device)
        self._begun: deque[Pending] = deque()
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
        return cls(opened(config, say=say, defer_prompts=defer_prompts, files=files), config)

    @property
    def device(self) -> torch.device:
        """Where the network's first blocks are."""
        return self._stream.device

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the network."""
        return self._stream.dtype

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
        self._chunker.feed(fitted(frame, self.config.width, self.config.height))

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
            raise out_of_memory(self.spec, self.config, error) from None

    def collect(self) -> list[Frame]:
        """The second half of `step`: wait for the oldest `begin` that was not collected, and give back its frames.

        Raises:
            OutOfMemoryError: as `step`.
        """
        try:
            return self._collect() if self._begun else []
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self.spec, self.config, error) from None

    def flush(self) -> list[Frame]:
        """Give back what is still inside, at the end of a stream: chunks in flight with as many steps as they
        have had, and frames that make no whole chunk as they came. The next frame begins a new stream."""
        self._begin_with(self._end_stream(), None)
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
        """Write everything that outlives a chunk to one file, frames inside included. First `collect` all.

        Raises:
            ModelError: if the stream cannot be saved (one over several devices); nothing is written then.
        """
        saved_state.write_session(
            path,
            saved_state.Session(
                model=self.spec.name,
                stream=self._stream.save(),
                noise=self._noise.tensors(),
                seed=self._noise.seed,
                waiting=self._chunker.waiting,
                prompts=self._prompts.save(),
                counters=self._counters,
                chunks=self._chunks,
            ),
        )

    def resume(self, path: Path) -> None:
        """Go on where the session that wrote the file was: the same frames in give the same frames out.

        Raises:
            ModelError: if the file holds no stream, or one of another model, size, batch or cache, or if this stream
                cannot be resumed (one over several devices).
        """
        saved = saved_state.read_session(path)
        if saved.model != self.spec.name:
            raise ModelError(f"{path} is a stream of {saved.model}.", f"Open {saved.model} to go on with it.")
        noise = self._noise.tensors()
        saved_state.check(noise.items(), saved.noise)
        self._stream.restore(saved.stream)
        saved_state.fill(noise.items(), saved.noise)
        self._noise.resume(saved.seed, saved.noise["generator"])
        self._chunker.restart(begun=self._stream.begun)
        self._chunker.clear()
        for frame in saved.waiting:
            self._chunker.feed(frame)
        self._prompts.restore(saved.prompts)
        self._read_prompt()
        self._counters, self._chunks = saved.counters, saved.chunks

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
            done += self._end_stream()
        if not self.ready:
            self._begin_with(done, None)
            return

        # The prompt comes first: when it cannot be encoded, no frame has been taken yet.
        now = self._chunker.newest.pts_ns / 1e9
        embedding = self._prompts.update(controls.prompts(), controls.prompt_seconds, now)
        chunk = self._chunker.cut(controls)
        count = min(controls.steps, plan.steps if plan else controls.steps, self._stream.max_steps)
        steps = steps_for(self.spec.schedule, controls.strength, count)
        self._noise.set_seed(controls.seed)
        self._timers = StageTimers(self._stream.device)
        with self._timers.stage("upload"):
            video = to_video(self._up.send(stacked(chunk.frames, self._stream.device)).wait())
        try:
            if embedding is not None:
                self._stream.set_prompt(embedding)
            with self._timers.stage("encode"):
                noisy, first = self._stream.encode(video, steps, controls.motion)
            with self._timers.stage("dit"):
                finished = self._stream.denoise(noisy, first, steps.timesteps, chunk, anchor)
            done += self._decode(finished)
        except RankLostError as lost:
            done += self._restart_without(lost, chunk)
        self._chunks += 1
        health = Health(
            strength=controls.strength,
            steps=count,
            in_flight=self._stream.in_flight,
            chunks=self._chunks,
            prompt=self._prompts.describe(),
            unknown_words=self._prompts.unknown,
            missing_prompts=self._prompts.missing,
            vram=memory_gib(self._stream.device),
            devices=max(1, len(self._devices)),
            trouble=self._trouble,
        )
        self._trouble = ""
        self._begin_with(done, health)

    def _begin_with(self, finished: Finished, health: Health | None) -> None:
        noise = self._down.send(self._stream.noise_share.clone())
        self._begun.append(Pending(finished, health, noise, self._timers))

    def _collect(self) -> list[Frame]:
        pending = self._begun.popleft()
        done = pending.frames()
        self.health = pending.measured() or self.health
        return done

    def _collect_all(self) -> list[Frame]:
        done: list[Frame] = []
        while self._begun:
            done += self.collect()
        return done

    def _decode(self, finished: Sequence[tuple[Chunk, Tensor]]) -> Finished:
        return decoded(self._stream, finished, self._timers, self._down)

    def _end_stream(self) -> Finished:
        """End the stream: the chunks in flight, as far as they are."""
        try:
            done = self._decode(self._stream.flush())
        except RankLostError as lost:
            return self._restart_without(lost, None)
        self._restart()
        return done

    def _restart_without(self, lost: RankLostError, chunk: Chunk | None) -> Finished:
        """Begin a new stream on the devices that are left.

        Returns:
            The chunks that were in flight (`chunk` the newest), as they came.
        """
        gone, chunks = self._stream.rank_losses()
        if chunk is not None and chunk not in chunks:
            chunks.append(chunk)
        left = [device for rank, device in enumerate(self._devices) if rank not in gone] if gone else self._devices[:1]
        names = ", ".join(f"{self._devices[rank]} (rank {rank})" for rank in gone) or lost.message
        self._trouble = f"Lost {names}: the stream began anew on {len(left)} of {len(self._devices)} devices."
        self._stream.close()
        self._devices = tuple(left)
        self._stream, trouble = self._build(left)
        self._up, self._down = transfers(self._stream.device)
        self._trouble = f"{self._trouble} {trouble}".strip()
        self._noise.reset()
        self._chunker.restart()
        self._read_prompt()
        return [(held, None) for held in chunks]

    def _read_prompt(self) -> None:
        """Have a new or resumed stream read the prompt in force."""
        embedding = self._prompts.travel.current()
        if embedding is not None:
            self._stream.set_prompt(embedding)
