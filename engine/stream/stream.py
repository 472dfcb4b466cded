"""Streaming video diffusion in one process. Start reading here.

The method is that of StreamDiffusionV2 (arXiv 2511.07399, section 4). Video arrives in chunks of a few frames. Each
chunk goes through three stages:

1. `encode`: the video autoencoder (VAE) turns T pixel frames into F latent frames, and noise is mixed into them. More
   noise lets the result depart further from the input; motion in the input lowers it (modules `ends` and `noise`).
2. `denoise`: in each denoising step the network predicts clean latents from noisy ones at a timestep. Before the next
   step, new noise is mixed in at the sigma of the next, lower timestep (`timesteps`). The network is causal: a frame
   attends to its own block of frames and to earlier frames. The keys and values of earlier frames are in a rolling KV
   cache (`kv_cache`), so they are not computed again.
3. `decode`: the autoencoder turns the clean latents into pixels (`ends`).

With the *stream batch*, the denoising steps of successive chunks share one forward: each call of `denoise` runs S rows,
and row r performs step r of its chunk. The rows hold the chunks in flight, newest first. So a chunk with n steps is
finished by the n-th call, and once all rows are in use, every call finishes one chunk. Without the stream batch, and
for the first chunk of a stream, all steps of a chunk run one after the other in row 0 and write the same cache slots.

Encode, forward and decode are run by `LocalStream.run` with a `WorkKey`. By default that is a plain function call;
`engine.runtime.graph_capture` sets a runner that replays captured work.

Shape letters: S rows of the stream batch, C latent channels, F latent frames of a chunk, h w latent size, T pixel
frames, H W pixels, E width and X tokens of a text embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from engine.models.spec import Codec, ModelSpec
from engine.network.lora.branch import Branches
from engine.network.lora.live import LiveLoras
from engine.network.lora.merge import Derived, LiveMerge
from engine.network.lora.stopwatch import stopwatch_for
from engine.network.protocol import StreamingNetwork, forward
from engine.stream import clean_pass, saved_state
from engine.stream.ends import NoiseSource, VideoEnds
from engine.stream.kv_cache import Rule
from engine.stream.noise import NoiseRule
from engine.stream.protocol import Saved
from engine.stream.state import (
    InFlight,
    Runner,
    StreamState,
    Ticket,
    WorkKey,
    empty_text,
    new_cache,
    wrap_position,
)
from engine.stream.timesteps import Sigmas, Steps, mix, network_timesteps
from engine.stream.unbatched import all_steps


class LocalStream:
    """A `Stream` (see `protocol`) in one process.

    Args:
        spec: the model's row.
        network, codec: its network and its video autoencoder, on the device and in the type in which they run.
        height, width: size of the frames in pixels.
        noise: source of noise.
        rule: how the cache treats sink frames.
        noise_rule: how motion lowers the noise.
        batch: whether the denoising steps of successive chunks share one forward (stream batch), where the model
            permits it (`ModelSpec.batches`).
        max_steps: largest number of denoising steps of a chunk.
        branches: the LoRAs beside the network's layers, if its weights are in 8 bits.

    Attributes:
        ends: encoder, noise and decoder.
        tables: the network's tables for this size.
        sigmas: the sigma of every timestep.
        state: everything that is kept from chunk to chunk.
        whole_text: whether prompts are attended at full length, so that all prompts give tensors of the same shapes.
        loras: the LoRAs that change the network's weights.
        fused: whether a chunk's clean pass shares a forward with the next chunk's first step (`clean_pass`).
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
        branches: Branches | None = None,
    ) -> None:
        self.spec, self.network, self.codec, self.noise = spec, network, codec, noise
        network.fuse()
        self.batch, self.max_steps = batch and spec.batches and not network.source_channels, max_steps
        self.device, dtype = network.device, network.dtype
        source = network.source_channels
        self.ends = VideoEnds(spec, codec, noise, noise_rule, height, width, self.device, source=source > 0)
        self.whole_text = self.device.type != "cpu"
        self.fused = spec.schedule.clean_pass and network.takes_turns
        h, w = height // spec.stride, width // spec.stride
        self.tables = network.tables(h, w, network_timesteps(spec.schedule))
        self.sigmas = Sigmas(spec.schedule, self.device)
        depth = max_steps if self.batch else 1
        latent = (depth, spec.network.latent_channels, spec.frames_per_block, h, w)
        kept = (depth, latent[1] + source, max(spec.first_latents if spec.extra_forwards else 0, latent[2]), h, w)
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
            clean_SCFhw=torch.zeros(kept, device=self.device),
            text=empty_text(network, 1),
            controller=self.ends.controller,
            encoder=self.ends.encoder,
            decoder=self.ends.decoder,
        )
        self._text: list[tuple[Tensor, ...]] = list(self.state.text)
        self._text_bias: Tensor | None = None
        self._embedding_XE: Tensor | None = None
        weights = dict(cast(nn.Module, network).named_parameters())
        derived = Derived(
            layers=range(len(network.blocks)),
            read_text=lambda layer: self._read_text([layer]),
            renew_time=lambda: network.renew_tables(self.tables, network_timesteps(spec.schedule)),
            folded=not self.whole_text,
        )
        self.loras = LiveLoras(LiveMerge(weights, derived, stopwatch_for(self.device), branches), self.device)

    @property
    def dtype(self) -> torch.dtype:
        """See `Stream`."""
        return self.network.dtype

    @property
    def run(self) -> Runner:
        """Runs encode, forward and decode."""
        return self.ends.run

    @run.setter
    def run(self, runner: Runner) -> None:
        self.ends.run = runner

    @property
    def noise_share(self) -> Tensor:
        """See `Stream`."""
        return self.state.controller.previous

    def reset(self) -> None:
        """See `Stream`."""
        self.state.reset()

    def flush(self) -> list[tuple[Ticket, Tensor]]:
        """See `Stream`."""
        flights, clean = self.state.flights, self.state.clean_SCFhw
        self.state.flights = []
        return [(f.ticket, clean[r : r + 1]) for r, f in reversed(list(enumerate(flights))) if f.ticket is not None]

    @property
    def in_flight(self) -> int:
        """See `Stream`."""
        return sum(flight.ticket is not None for flight in self.state.flights)

    def rank_losses(self) -> tuple[tuple[int, ...], list[Ticket]]:
        """See `Stream`. A stream in one process loses no rank."""
        return (), [flight.ticket for flight in reversed(self.state.flights) if flight.ticket is not None]

    def close(self) -> None:
        """See `Stream`. There is no other process."""

    @torch.inference_mode()
    def set_prompt(self, embedding_XE: Tensor) -> None:
        """See `Stream`. The prompt's keys and values are copied into the tensors of the state.

        Unless `whole_text` is set, only the first part of these is used: see `StreamingNetwork.read_text`.
        """
        self._embedding_XE = embedding_XE
        self._read_text(range(len(self.network.blocks)))

    def _read_text(self, layers: Sequence[int]) -> None:
        """Compute the prompt's keys and values of these blocks; without a prompt there is nothing to compute."""
        if self._embedding_XE is None:
            return
        keys, self._text_bias = self.network.read_text(self._embedding_XE, whole=self.whole_text, layers=layers)
        for layer, new in zip(layers, keys, strict=True):
            held = self.state.text[layer]
            places = [tensor[tuple(map(slice, part.shape))] for tensor, part in zip(held, new, strict=True)]
            for place, part in zip(places, new, strict=True):
                place.copy_(part)
            used = tuple(places)
            self._text[layer] = used if self.whole_text else tuple(self.network.fold_text([used], [layer])[0])

    @property
    def begun(self) -> bool:
        """See `Stream`."""
        return self.state.number > 0

    @torch.inference_mode()
    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `Stream`."""
        return self.ends.encode(video_3THW, steps, motion, begun=self.begun)

    @torch.inference_mode()
    def mean(self, video_3THW: Tensor) -> Tensor:
        """Encode the next chunk's pixels in [-1, 1] to latents [1, C, F, h, w] without mixing in noise."""
        return self.ends.mean(video_3THW)

    @torch.inference_mode()
    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Ticket, anchor: bool = False
    ) -> list[tuple[Ticket, Tensor]]:
        """See `Stream`."""
        state, frames = self.state, x_1CFhw.shape[2]
        flight = InFlight(ticket, timesteps, state.number, state.position, anchor)
        opening = not self.begun
        due = clean_pass.due_with(state.flights, frames, self.fused)
        if due is None:
            self.settle()
        state.number += frames
        state.position = wrap_position(state.position + frames, self.spec.cache, state.cache.rule)
        if opening or not self.batch:
            clean = self._all_steps(x_1CFhw, first, flight, due)
            if opening and self.batch:
                self._warm_rows(timesteps)
            if self.spec.schedule.clean_pass:
                source_1CFhw = x_1CFhw[:, clean.shape[1] :]
                state.clean_SCFhw[:, :, :frames].copy_(torch.cat((clean, source_1CFhw), dim=1))
                state.flights = [replace(flight, ticket=None, timesteps=(0,) * frames)]
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

    @torch.inference_mode()
    def settle(self) -> None:
        """Run the clean pass of the last chunk by itself, if it is due (`clean_pass`).

        Until then, the state has the latents in `clean_SCFhw` and an empty chunk in `flights`, which has a timestep for
        each latent frame.
        """
        state = self.state
        if not self.spec.schedule.clean_pass or not state.flights:
            return
        (due,), state.flights = state.flights, []
        frames = len(due.timesteps)
        self._forward(state.clean_SCFhw[:1, :, :frames], self._to_device([0]), [due], again=True)

    def _all_steps(self, x_1CFhw: Tensor, first: Tensor, flight: InFlight, due: InFlight | None) -> Tensor:
        """All denoising steps of one chunk in row 0; the first chooses the cache slots, the others overwrite them.

        If the clean pass of the chunk `due` shares the first step's forward, it is the row before.
        """
        channels, frames = self.spec.network.latent_channels, x_1CFhw.shape[2]
        x_1CFhw, source = x_1CFhw[:, :channels], x_1CFhw[:, channels:]

        def forward(x: Tensor, t_S: Tensor, again: bool) -> Tensor:
            x = torch.cat((x, source), dim=1) if source.numel() else x
            if due is None or again:
                return self._forward(x, t_S, [flight], again)
            both = torch.cat((self.state.clean_SCFhw[:1, :, :frames], x))
            return self._forward(both, torch.cat((torch.zeros_like(t_S), t_S)), [due, flight], turns=True)[1:]

        return all_steps(forward, x_1CFhw, first, flight.timesteps, self.sigmas, self.noise)

    def _one_step_each(self, x_1CFhw: Tensor, first: Tensor, newest: InFlight) -> list[tuple[Ticket, Tensor]]:
        """One forward of the stream batch: the newest chunk enters row 0, the others perform their next step.

        A chunk with more steps than the newest one ends with as many as that, or with this step if it has had more. So
        a lower number of steps lowers the latency at once, and chunks stay in order.
        """
        state = self.state
        most = len(newest.timesteps)
        flights = [
            newest,
            *(replace(f, timesteps=f.timesteps[: max(most, row + 1)]) for row, f in enumerate(state.flights, start=1)),
        ]
        rows = len(flights)
        if len(flights[-1].timesteps) > rows:
            state.cache.copy_row(rows - 1, rows)  # the next call uses one row more; it starts with this row's cache
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

    def _forward(
        self, x_SCFhw: Tensor, t_S: Tensor, flights: list[InFlight], again: bool = False, turns: bool = False
    ) -> Tensor:
        """Run one forward of the rows: the predicted clean latents, fp32. With `turns`, row 0 is a clean pass."""
        frames, slots = x_SCFhw.shape[2], self.spec.cache.slots
        orders_S3 = self._to_device([[f.number, f.position, f.anchor] for f in flights])
        held = [min(f.number + frames, slots) for f in flights]
        even = min(held) == max(held)
        steady = even and max(held) == slots and frames == self.spec.frames_per_block
        key = WorkKey("forward", frames, steady, len(flights), max(held), even, again, earlier=held[0] if turns else 0)
        return self.run(key, partial(self._predict, key), x_SCFhw, t_S, orders_S3)

    def _predict(self, key: WorkKey, x_SCFhw: Tensor, t_S: Tensor, orders_S3: Tensor) -> Tensor:
        """The device's part of a forward. All that varies is in tensors, so that it can be captured.

        Args:
            key: what does not vary.
            x_SCFhw: noisy latents, followed by the channels of the source, if the network takes them.
            t_S: each row's timestep.
            orders_S3: number, position and anchor of each row's chunk, int64.
        """
        number_S, position_S, anchor_S = orders_S3.unbind(1)
        memory = clean_pass.begun(self.state.cache, key, number_S, anchor_S > 0)
        positions_SF = position_S[:, None] + torch.arange(key.frames, device=self.device)
        context = self.tables.at(t_S, positions_SF)
        predicted = forward(self.network, x_SCFhw, context, self._text, memory, self._text_bias)
        noisy = x_SCFhw[:, : predicted.shape[1]]
        return self.sigmas.clean(noisy, predicted, self.sigmas.at(t_S)[:, None, None, None, None])

    def _to_device(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Integers as an int64 tensor on the device; the host does not wait for the device."""
        held = torch.tensor(numbers, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        return held.to(self.device, non_blocking=True)

    def _warm_rows(self, timesteps: tuple[int, ...]) -> None:
        """After the first chunk: copy row 0 of the cache to all rows, and fill these with empty chunks.

        Only where the reference implementation does so (`KVCache.warms_rows`).
        """
        state = self.state
        if not state.cache.warms_rows:
            return
        empty = InFlight(None, timesteps, state.number, state.position, False)
        state.flights = [empty] * (len(timesteps) - 1)
        for row in range(1, len(timesteps)):
            state.cache.copy_row(0, row)
