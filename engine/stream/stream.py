"""The stream in one process: one chunk of video in, and whatever chunks are finished out. Read this one first.

Streaming diffusion in one page (StreamDiffusionV2, arXiv 2511.07399, section 4):

1. `encode`: the autoencoder turns T pixel frames into F latent frames, and noise is mixed into them: the more, the
   further the picture may depart from the input; the less, the faster the input moves (`ends`, `noise`).
2. `denoise`: the network predicts the clean latents from noisy ones at a timestep; noise of the next, lower level is
   mixed in, and so on for each denoising step (`timesteps`). It is causal: a frame attends only to itself and to frames
   before it, whose keys and values are in a rolling cache (`kv_cache`), so nothing is computed twice.
3. `decode`: the autoencoder turns clean latents back into pixels (`ends`).

In the *stream batch* each call runs one forward over S rows: row r takes its chunk's step r. So a chunk needs as many
calls as it has steps, each call finishes one, and the chunks in flight, newest first, are the rows. Unbatched, all
steps of a chunk run at once on row 0 and write the same slot of the cache; the first chunk of a stream always does.

Encode, forward and decode go through `LocalStream.run`, each with its `WorkKey`: everything about it that is not in a
tensor. Run at once they are plain calls; `engine.runtime.graph_capture` replays them instead.

Shape letters: S rows of the stream batch, C latent channels, F latent frames of a chunk, h w latent size, T pixel
frames, H W pixels, E width and X tokens of a text embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.models.spec import CacheShape, Codec, ModelSpec
from engine.network.protocol import StreamingNetwork, TextKeys, forward
from engine.stream import saved_state
from engine.stream.ends import NoiseSource, VideoEnds
from engine.stream.kv_cache import NewFrames, Rule
from engine.stream.noise import NoiseRule
from engine.stream.protocol import Saved
from engine.stream.state import InFlight, Runner, StreamState, WorkKey, empty_text, new_cache
from engine.stream.timesteps import Sigmas, Steps, mix


class LocalStream:
    """A `Stream` (see `protocol`) in one process.

    Args:
        spec: the model's row.
        network, codec: its network and its video autoencoder, on their device and in their type.
        height, width: pixels.
        noise: where noise comes from.
        rule: what happens to the sinks.
        noise_rule: how motion lowers the noise.
        batch: whether the steps of successive chunks share one forward.
        max_steps: most steps that a chunk can have.

    Attributes:
        ends: what happens before and after the network.
        whole_text: whether every prompt is attended at its full length, so that forwards differ in numbers only.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: StreamingNetwork,
        codec: Codec,
        *,
        height: int,
        width: int,
        noise: NoiseSource,
        rule: Rule,
        noise_rule: NoiseRule,
        batch: bool,
        max_steps: int,
    ) -> None:
        self.spec, self.network, self.codec, self.noise = spec, network, codec, noise
        network.fuse()
        self.batch, self.max_steps = batch, max_steps
        self.device, dtype = network.device, network.dtype
        self.ends = VideoEnds(spec, codec, noise, noise_rule, height, width, self.device)
        self.whole_text = self.device.type != "cpu"
        h, w = height // spec.stride, width // spec.stride
        self.tables = network.tables(h, w)
        self.sigmas = Sigmas(spec.schedule, self.device)
        depth = max_steps if batch else 1
        latent = (depth, spec.network.latent_channels, spec.frames_per_block, h, w)
        self.state = StreamState(
            cache=new_cache(
                spec,
                rule,
                height=height,
                width=width,
                layers=len(network.blocks),
                rows=depth,
                device=self.device,
                dtype=dtype,
            ),
            x_SCFhw=torch.zeros(latent, device=self.device),
            clean_SCFhw=torch.zeros(latent, device=self.device),
            text=empty_text(network, 1),
            controller=self.ends.controller,
            encoder=self.ends.encoder,
            decoder=self.ends.decoder,
        )
        self._text: TextKeys = self.state.text
        self._text_bias: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the network."""
        return self.network.dtype

    @property
    def run(self) -> Runner:
        """What gets the heavy work done."""
        return self.ends.run

    @run.setter
    def run(self, runner: Runner) -> None:
        self.ends.run = runner

    @property
    def noise_share(self) -> Tensor:
        """See `Stream`."""
        return self.state.controller.previous

    def reset(self) -> None:
        """Forget the history and whatever is in flight."""
        self.state.reset()

    def flush(self) -> list[tuple[Any, Tensor]]:
        """See `Stream`."""
        flights, clean = self.state.flights, self.state.clean_SCFhw
        self.state.flights = []
        return [(f.ticket, clean[r : r + 1]) for r, f in reversed(list(enumerate(flights))) if f.ticket is not None]

    @property
    def in_flight(self) -> int:
        """Chunks that were begun and are not finished."""
        return sum(flight.ticket is not None for flight in self.state.flights)

    def rank_losses(self) -> tuple[tuple[int, ...], list[Any]]:
        """Ranks that were lost, and tickets of the chunks in flight, oldest first. One process loses no rank."""
        return (), [flight.ticket for flight in reversed(self.state.flights) if flight.ticket is not None]

    def close(self) -> None:
        """End what runs beside this process: nothing here."""

    @torch.inference_mode()
    def set_prompt(self, embedding_XE: Tensor) -> None:
        """Make this prompt the one in force: for all rows, from the next forward on; the history stays.

        Keys and values go to the state's own tensors; fewer than the text's length are used where the rest is alike.
        """
        keys, bias = self.network.read_text(embedding_XE, whole=self.whole_text)
        used = []
        for held, new in zip(self.state.text, keys, strict=True):
            places = [tensor[tuple(map(slice, part.shape))] for tensor, part in zip(held, new, strict=True)]
            for place, part in zip(places, new, strict=True):
                place.copy_(part)
            used.append(tuple(places))
        self._text = used if self.whole_text else self.network.fold_text(used)
        self._text_bias = bias

    @property
    def begun(self) -> bool:
        """Whether the first block has been seen."""
        return self.state.number > 0

    @torch.inference_mode()
    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `Stream`."""
        return self.ends.encode(video_3THW, steps, motion, begun=self.begun)

    @torch.inference_mode()
    def mean(self, video_3THW: Tensor) -> Tensor:
        """The next chunk's pixels in [-1, 1] as latents [1, C, F, h, w], without noise; a part of `encode`."""
        return self.ends.mean(video_3THW)

    @torch.inference_mode()
    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Any, anchor: bool = False
    ) -> list[tuple[Any, Tensor]]:
        """See `Stream`."""
        state, frames = self.state, x_1CFhw.shape[2]
        flight = InFlight(ticket, timesteps, state.number, state.position, anchor)
        opening = not self.begun
        state.number += frames
        state.position = wrap_position(state.position + frames, self.spec.cache, state.cache.rule)
        if opening or not self.batch:
            clean = self._all_steps(x_1CFhw, first, flight)
            if opening and self.batch:
                self._warm_rows(timesteps)
            return [(ticket, clean)]
        return self._one_step_each(x_1CFhw, first, flight)

    @torch.inference_mode()
    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """See `Stream`."""
        return self.ends.decode(clean_1CFhw)

    def save(self) -> Saved:
        """See `Stream`."""
        state = self.state
        flights = [
            {"timesteps": f.timesteps, "number": f.number, "position": f.position, "anchor": f.anchor}
            for f in state.flights
        ]
        facts = {"number": state.number, "position": state.position, "flights": flights}
        return Saved(dict(state.tensors()), facts, [f.ticket for f in state.flights])

    def restore(self, saved: Saved) -> None:
        """See `Stream`."""
        state, facts = self.state, saved.facts
        saved_state.fill(state.tensors(), saved.tensors)
        state.number, state.position = facts["number"], facts["position"]
        state.flights = [
            InFlight(ticket, tuple(f["timesteps"]), f["number"], f["position"], f["anchor"])
            for ticket, f in zip(saved.tickets, facts["flights"], strict=True)
        ]

    def _all_steps(self, x_1CFhw: Tensor, first: Tensor, flight: InFlight) -> Tensor:
        """All steps of one chunk on row 0; the first one chooses the slots, the others write the same ones."""

        def forward(x: Tensor, t_S: Tensor, again: bool) -> Tensor:
            return self._forward(x, t_S, [flight], again)

        return all_steps(forward, x_1CFhw, first, flight.timesteps, self.sigmas, self.noise)

    def _one_step_each(self, x_1CFhw: Tensor, first: Tensor, newest: InFlight) -> list[tuple[Any, Tensor]]:
        """One forward: the newest chunk enters row 0, every chunk in flight takes its next step."""
        state = self.state
        most = len(newest.timesteps)
        flights = [
            newest,
            *(replace(f, timesteps=f.timesteps[: max(most, row + 1)]) for row, f in enumerate(state.flights, start=1)),
        ]
        rows = len(flights)
        if len(flights[-1].timesteps) > rows:
            state.cache.copy_row(rows - 1, rows)  # a row joins with the history of its neighbour
        state.x_SCFhw[:1].copy_(x_1CFhw)
        x_SCFhw = state.x_SCFhw[:rows]
        t_S = self._to_device([f.timesteps[row] for row, f in enumerate(flights)])
        t_S[:1].copy_(first)
        clean = self._forward(x_SCFhw, t_S, flights)
        state.clean_SCFhw[:rows] = clean

        going = sum(len(f.timesteps) > row + 1 for row, f in enumerate(flights))
        if going:
            next_S = self._to_device([f.timesteps[row + 1] for row, f in enumerate(flights[:going])])
            sigma = self.sigmas.at(next_S)[:, None, None, None, None]
            noise = self.noise.draw(1, going, x_1CFhw.shape[2])
            state.x_SCFhw[1 : going + 1] = mix(clean[:going], noise, sigma)
        state.flights = flights[:going]
        done = reversed(range(going, rows))
        return [(flights[r].ticket, clean[r : r + 1]) for r in done if flights[r].ticket is not None]

    def _forward(self, x_SCFhw: Tensor, t_S: Tensor, flights: list[InFlight], again: bool = False) -> Tensor:
        """One forward of the rows and the clean latents that it predicts, fp32."""
        frames, slots = x_SCFhw.shape[2], self.spec.cache.slots
        orders_S3 = self._to_device([[f.number, f.position, f.anchor] for f in flights])
        held = [min(f.number + frames, slots) for f in flights]
        even = min(held) == max(held)
        steady = even and max(held) == slots and frames == self.spec.frames_per_block
        key = WorkKey("forward", frames, steady, len(flights), visible=max(held), even=even, again=again)
        return self.run(key, partial(self._predict, key), x_SCFhw, t_S, orders_S3)

    def _predict(self, key: WorkKey, x_SCFhw: Tensor, t_S: Tensor, orders_S3: Tensor) -> Tensor:
        """A forward on the device alone: each row's timestep, and its number, position and anchor, are tensors."""
        number_S, position_S, anchor_S = orders_S3.unbind(1)
        arrival = NewFrames(number_S, anchor_S > 0, key.visible, even=key.even, again=key.again)
        self.state.cache.begin(arrival, key.frames)
        positions_SF = position_S[:, None] + torch.arange(key.frames, device=self.device)
        context = self.tables.at(t_S, positions_SF)
        predicted = forward(self.network, x_SCFhw, context, self._text, self.state.cache, self._text_bias)
        return self.sigmas.clean(x_SCFhw, predicted, self.sigmas.at(t_S)[:, None, None, None, None])

    def _to_device(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Whole numbers of the host on the device, int64; the host does not wait for what the device is doing."""
        held = torch.tensor(numbers, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        return held.to(self.device, non_blocking=True)

    def _warm_rows(self, timesteps: tuple[int, ...]) -> None:
        """Where sinks adapt as in the reference, rows that no chunk has reached yet run on empty latents."""
        state = self.state
        if not state.cache.warms_rows:
            return
        empty = InFlight(None, timesteps, state.number, state.position, False)
        state.flights = [empty] * (len(timesteps) - 1)
        for row in range(1, len(timesteps)):
            state.cache.copy_row(0, row)


def all_steps(
    forward: Callable[[Tensor, Tensor, bool], Tensor],
    x_1CFhw: Tensor,
    first: Tensor,
    timesteps: tuple[int, ...],
    sigmas: Sigmas,
    noise: NoiseSource,
) -> Tensor:
    """Take one chunk through all its steps, one after the other: clean latents [1, C, F, h, w].

    Args:
        forward: (noisy latents, timesteps [1], whether this is a further step) to clean latents.
        first: replaces the first of `timesteps`; int64 scalar on the device.
    """
    clean = x_1CFhw
    for step, t in enumerate(timesteps):
        t_S = first[None] if step == 0 else torch.full((1,), t, dtype=torch.int64, device=x_1CFhw.device)
        clean = forward(x_1CFhw, t_S, step > 0)
        if step + 1 < len(timesteps):
            sigma = sigmas.by_timestep[timesteps[step + 1]]
            x_1CFhw = mix(clean, noise.draw(step + 1, 1, x_1CFhw.shape[2]), sigma)
    return clean


def wrap_position(position: int, cache: CacheShape, rule: Rule) -> int:
    """A rotary position, or where it starts again when it leaves the range that the model was trained on."""
    if position < cache.wrap_at:
        return position
    return 0 if rule is Rule.ADAPTIVE else cache.slots - 1
