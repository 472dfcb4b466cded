"""The public interface of the engine: open a model by name, feed frames, step, and get restyled frames.

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

Every frame that is fed is returned once, in order, restyled, with its own timestamps and number. Any control may change
between two steps; only a reset starts a new stream. Use a `Session` in one thread; only `encode_prompt` may be called
from another. Time is taken from the frames' timestamps.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
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
from engine.pending import Finished, Pending, chunks_of, decoded
from engine.pixels import fitted, stacked, to_video
from engine.runtime.gpu_memory import SpillWatch, memory_gib
from engine.runtime.metrics import Health, StageTimers
from engine.runtime.transfers import transfers
from engine.schedule import Plan
from engine.stream import saved_state
from engine.stream.state import Ticket
from engine.stream.timesteps import steps_for


class Session:
    """A model that processes one stream. Create it with `Session.open`.

    Attributes:
        spec: the model's row.
        config: the configuration.
        health: settings and measurements of the newest collected chunk.
    """

    def __init__(self, model: Opened, config: Config) -> None:
        self.spec, self.config, self._build = model.spec, config, model.build
        self._devices = tuple(config.devices)
        self._settings, self._trouble = model.settings, model.trouble
        self._stream, self._noise, self._prompts, self._loras = model.stream, model.noise, model.prompts, model.loras
        self._chunker = Chunker(self.spec.first_frames, self.spec.frames_per_latent * self.spec.frames_per_block)
        self._timers = StageTimers(self._stream.device)
        self._up, self._down = transfers(self._stream.device)
        self._begun: deque[Pending] = deque()
        self._counters: tuple[int, int] | None = None
        self._chunks = 0
        self._spills = SpillWatch()
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
            progress: called with a short text for the user at every step of opening.
            defer_prompts: do not encode new prompts in `step`. It continues with the old prompt and lists the new one
                in `health.missing_prompts`; the caller encodes it with `encode_prompt` in another thread.
            files: local files by role, instead of those in the model's row; {} for random weights, to measure times.

        Raises:
            ModelError: if there is no such model, or it cannot be opened with this configuration;
                `WeightsMissingError` if its files are missing, `OutOfMemoryError` if memory is not sufficient.
        """
        say = progress or (lambda _: None)
        return cls(opened(config, say=say, defer_prompts=defer_prompts, files=files), config)

    @property
    def device(self) -> torch.device:
        """Device of the network; if it is split, of its first blocks."""
        return self._stream.device

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the network computes."""
        return self._stream.dtype

    @property
    def ready(self) -> bool:
        """Whether enough frames have been fed for a chunk."""
        return self._chunker.needed == 0

    @property
    def frames_needed(self) -> int:
        """Number of frames that are missing for the next chunk."""
        return self._chunker.needed

    @property
    def arrived(self) -> bool:
        """Whether `collect` would return without waiting: the oldest `begin` is finished, or there is none."""
        return not self._begun or self._begun[0].noise.arrived

    def feed(self, frame: Frame) -> None:
        """Add a frame. It is scaled and cropped to the model's size if it has another."""
        self._chunker.feed(fitted(frame, self.config.width, self.config.height))

    def step(self, controls: Controls, plan: Plan | None = None) -> list[Frame]:
        """Process the next chunk if enough frames have been fed, and return the frames of all finished chunks.

        Args:
            controls: the live controls for this chunk.
            plan: from the schedule; may lower the number of denoising steps.

        Returns:
            RGB frames of the model's size, oldest first, with the timestamps and numbers of the input frames. Empty if
            no chunk is finished.

        Raises:
            OutOfMemoryError: if the device's memory is not sufficient.
            ModelError: if the prompt cannot be encoded.
        """
        self.begin(controls, plan)
        return self._collect_all()

    def begin(self, controls: Controls, plan: Plan | None = None) -> None:
        """The first half of `step`: start the work on the next chunk.

        On a GPU the host does not wait for this work. So a chunk can be started while the previous one is computed: the
        device has no pause between them, and uploads and downloads run concurrently.

        Raises:
            OutOfMemoryError, ModelError: as `step`.
        """
        try:
            self._begin(controls, plan)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self.spec, self.config, error) from None

    def collect(self) -> list[Frame]:
        """The second half of `step`: wait for the oldest `begin` that has not been collected, and return its frames.

        Raises:
            OutOfMemoryError: as `step`.
        """
        return [frame for chunk in self.collect_chunks() for frame in chunk.frames]

    def collect_chunks(self) -> list[Chunk]:
        """As `collect`, but the frames are in their chunks, which tell with which controls and prompt each was begun.

        With the stream batch, these are not those of the newest `begin`: a chunk is finished some calls later.
        """
        try:
            return self._collect() if self._begun else []
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self.spec, self.config, error) from None

    def flush(self) -> list[Frame]:
        """End the stream and return the remaining frames; the next frame starts a new stream.

        Chunks in flight are returned with the denoising steps that they have had. Frames that do not fill a chunk are
        returned unchanged.
        """
        self._enqueue(self._end_stream(), None)
        done = self._collect_all() + list(self._chunker.waiting)
        self._chunker.clear()
        return done

    def reset(self) -> None:
        """Start a new stream and drop all chunks in flight or not collected. Waiting frames and prompts are kept."""
        self._begun.clear()
        self._restart()

    def _restart(self) -> None:
        self._stream.reset()
        self._noise.reset()
        self._chunker.restart()

    def save(self, path: Path) -> None:
        """Write the state of the session to a file, including the frames that it holds.

        Raises:
            ModelError: if a `begin` has not been collected, or if the stream cannot be saved (over several devices);
                then nothing is written.
        """
        if self._begun:
            raise ModelError(
                "Not every begun step has been collected; the saved stream would lack frames.",
                "Call collect once for each begin, then save.",
            )
        saved_state.write_session(
            path,
            saved_state.Session(
                model=self.spec.name,
                settings={k: v for k, v in self._settings.items() if k != "travel" or self._prompts.blended},
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
        """Continue the stream of a saved session: the same input frames give the same output frames.

        The settings on which the state depends must be the same (`engine.opening.state_settings`).
        The session's own stream ends as with `reset`: chunks in flight or not collected are dropped, and so are waiting
        frames.

        Raises:
            ModelError: if the file is not a saved session or one of another model, if such a setting differs, or if
                this stream cannot be resumed (over several devices). Then the session's own stream goes on.
        """
        saved = saved_state.read_session(path)
        if saved.model != self.spec.name:
            raise ModelError(f"{path} is a stream of {saved.model}.", f"Open {saved.model} to continue it.")
        saved_state.compare(self._settings, saved.settings)
        noise = self._noise.tensors()
        saved_state.check(noise.items(), saved.noise)
        self._stream.restore(saved.stream)
        self._begun.clear()
        saved_state.fill(noise.items(), saved.noise)
        self._noise.resume(saved.seed, saved.noise["generator"])
        self._chunker.restart(begun=self._stream.begun)
        self._chunker.clear()
        for frame in saved.waiting:
            self._chunker.feed(frame)
        self._prompts.restore(saved.prompts)
        self._restore_prompt()
        self._counters, self._chunks = saved.counters, saved.chunks

    def encode_prompt(self, text: str) -> Conditioning:
        """Encode a prompt and cache the result. Slow; may be called from another thread.

        Raises:
            ModelError: if the text encoder is missing or fails.
        """
        return self._prompts.encode(text)

    def close(self) -> None:
        """Free the memory. The session cannot be used afterwards."""
        if "_stream" in self.__dict__:
            self._stream.close()
            self._loras.close()
        for name in ("_stream", "_noise", "_prompts", "_loras"):
            self.__dict__.pop(name, None)
        if torch.cuda.is_available():
            gc.collect()  # compiled blocks are reference cycles
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
            self._enqueue(done, None)
            return

        # The prompt comes first: if it cannot be encoded, no frame has been taken yet.
        now = self._chunker.newest.pts_ns / 1e9
        embedding = self._prompts.update(controls.prompts(), controls.prompt_seconds, now)
        count = min(controls.steps, plan.steps if plan else controls.steps, self._stream.max_steps)
        prompt = self._prompts.describe()
        strength = self.spec.strength_of(controls.strength)
        steps = steps_for(self.spec.schedule, strength, count, opening=not self._stream.begun)
        chunk = self._chunker.cut(replace(controls, steps=len(steps.timesteps)), prompt)
        self._noise.set_seed(controls.seed)
        self._loras.follow(controls.lora_files(), controls.lora_strengths(), self.health.stages)
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
            steps=chunk.controls.steps,
            in_flight=self._stream.in_flight,
            chunks=self._chunks,
            prompt=prompt,
            unknown_words=self._prompts.unknown,
            missing_prompts=self._prompts.missing,
            vram=memory_gib(self._stream.device),
            devices=max(1, len(self._devices)),
            loras=self._loras.told,
            trouble=self._trouble or self._loras.take_trouble() or self._spills.trouble(self._stream.device),
        )
        self._trouble = ""
        self._enqueue(done, health)

    def _enqueue(self, finished: Finished, health: Health | None) -> None:
        noise = self._down.send(self._stream.noise_share.clone())
        self._begun.append(Pending(finished, health, noise, self.spec, self._timers))

    def _collect(self) -> list[Chunk]:
        pending = self._begun.popleft()
        done = pending.chunks()
        self.health = pending.measured() or self.health
        return done

    def _collect_all(self) -> list[Frame]:
        done: list[Frame] = []
        while self._begun:
            done += self.collect()
        return done

    def _decode(self, finished: Sequence[tuple[Ticket, Tensor]]) -> Finished:
        return decoded(self._stream, finished, self._timers, self._down)

    def _end_stream(self) -> Finished:
        """End the stream: the chunks in flight, with the denoising steps that they have had."""
        try:
            done = self._decode(self._stream.flush())
        except RankLostError as lost:
            return self._restart_without(lost, None)
        self._restart()
        return done

    def _restart_without(self, lost: RankLostError, chunk: Chunk | None) -> Finished:
        """Start a new stream on the remaining devices.

        Args:
            lost: the error that reported the loss.
            chunk: the chunk that was being started, if any.

        Returns:
            The chunks that were in flight; their frames are returned unchanged.
        """
        gone, tickets = self._stream.rank_losses()
        chunks = chunks_of(tickets, chunk)
        left = [device for rank, device in enumerate(self._devices) if rank not in gone] if gone else self._devices[:1]
        names = ", ".join(f"{self._devices[rank]} (rank {rank})" for rank in gone) or lost.message
        self._trouble = f"Lost {names}: a new stream was started on {len(left)} of {len(self._devices)} devices."
        self._stream.close()
        self._devices = tuple(left)
        self._stream, trouble = self._build(left)
        self._up, self._down = transfers(self._stream.device)
        self._trouble = f"{self._trouble} {trouble}".strip()
        self._loras.move_to(self._stream.loras)
        self._restart()
        self._restore_prompt()
        return [(held, None) for held in chunks]

    def _restore_prompt(self) -> None:
        """Set the current prompt in a new or resumed stream."""
        embedding = self._prompts.travel.current()
        if embedding is not None:
            self._stream.set_prompt(embedding)
