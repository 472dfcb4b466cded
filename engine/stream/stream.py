"""The stream: one chunk of video in, and whatever chunks are finished out.

`StreamState` is every tensor that outlives a chunk; `Stream` is the arithmetic. A chunk is encoded, mixed with
noise, taken through its denoising steps and decoded. In the stream batch each call runs one forward over S rows:
row r takes its chunk's step r, so a chunk needs as many calls as it has steps, and the chunks in flight, newest
first, are the rows. Unbatched, all steps of a chunk run at once on row 0 and write the same slot of the cache.
It must not know frames, prompts as text, controls by name, clocks or threads.

The three pieces of heavy work (encode, forward, decode) go through `Stream.run`, each with its `Form`: everything about
it that is not in a tensor. Run at once they are plain calls; `engine.runtime.graph_capture` replays them instead.

Shape letters: S rows of the stream batch, C latent channels, F latent frames of a chunk, h w latent size, T pixel
frames, H W pixels, E width and L length of a text embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.models.spec import Codec, CodecState, ModelSpec
from engine.network.dit import CausalDiT, Time
from engine.network.rope import rope_for
from engine.stream.kv_cache import Arrival, KVCache, Rule
from engine.stream.noise import NoiseController, NoiseRule
from engine.stream.timesteps import TIMESTEPS, Sigmas, Steps, mix


class NoiseSource(Protocol):
    """Where Gaussian noise comes from."""

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        """Noise [count, C, frames, h, w] to arrive at steps `step`, `step` + 1, ... (0 is the encoded picture)."""
        ...


@dataclass(frozen=True, slots=True)
class Flight:
    """A chunk in flight.

    Attributes:
        ticket: whatever the caller wants back with the result; None for the empty chunks of a warm start.
        timesteps: its levels; the first is only known on the device where motion moves it.
        number: latent frames of the stream before it; decides cache slots, never wraps.
        position: its place on the time axis of the rotary positions; wraps.
        anchor: whether its frames replace the sinks.
    """

    ticket: Any
    timesteps: tuple[int, ...]
    number: int
    position: int
    anchor: bool


@dataclass(frozen=True, slots=True)
class Form:
    """What a piece of work is apart from its tensors: two of equal form do the same to other numbers.

    Attributes:
        stage: "encode", "forward" or "decode".
        frames: latent frames of each row; of "encode" pixel frames.
        steady: whether it is what every chunk of a running stream brings, once the cache is full.
        rows: rows of the stream batch.
        visible, even, again: as in `Arrival`.
    """

    stage: str
    frames: int
    steady: bool
    rows: int = 1
    visible: int = 0
    even: bool = True
    again: bool = False


class Runner(Protocol):
    """Gets the heavy work done."""

    def __call__(self, form: Form, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`work(*inputs)`, or the same by other means. The result belongs to the caller."""
        ...


def at_once(form: Form, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Just do it."""
    return work(*inputs)


@dataclass(slots=True, eq=False)
class StreamState:
    """Every tensor that outlives a chunk, at a fixed address, and the few counts that the host keeps.

    Attributes:
        cache: keys and values of the frames that were.
        x_SCFhw: noisy latents of the rows, as they enter the next forward.
        clean_SCFhw: what the last forward thought the rows' pictures are, row by row.
        text: per block the keys and values of the prompt in force.
        controller: memory of the motion-aware noise.
        encoder, decoder: memory of the video autoencoder at both ends.
        flights: chunks in flight, newest first: flight r is in row r.
        number, position: of the next latent frame.
    """

    cache: KVCache
    x_SCFhw: Tensor
    clean_SCFhw: Tensor
    text: list[tuple[Tensor, Tensor]]
    controller: NoiseController
    encoder: CodecState
    decoder: CodecState
    flights: list[Flight] = field(default_factory=list)
    number: int = 0
    position: int = 0

    def reset(self) -> None:
        """Make it equal to a new state (the prompt stays)."""
        for part in (self.cache, self.controller, self.encoder, self.decoder):
            part.reset()
        self.x_SCFhw.zero_()
        self.clean_SCFhw.zero_()
        self.flights = []
        self.number = self.position = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by name, for saving, resuming and counting bytes."""
        yield "x", self.x_SCFhw
        yield "clean", self.clean_SCFhw
        for layer, (k, v) in enumerate(self.text):
            yield f"text.{layer}.k", k
            yield f"text.{layer}.v", v
        for name in ("cache", "controller", "encoder", "decoder"):
            for key, tensor in getattr(self, name).tensors().items():
                yield f"{name}.{key}", tensor


class Stream:
    """The arithmetic of one stream of one picture size.

    Args:
        spec: the model's row.
        dit, codec: its network and its video autoencoder, on their device and in their type.
        height, width: pixels.
        noise: where noise comes from.
        rule: what happens to the sinks.
        noise_rule: how motion lowers the noise.
        batch: whether the steps of successive chunks share one forward.
        max_steps: most steps that a chunk can have.

    Attributes:
        run: gets the heavy work done.
        whole_text: whether every prompt is attended at its full length, so that forwards differ in numbers only.
    """

    def __init__(
        self,
        spec: ModelSpec,
        dit: CausalDiT,
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
        self.spec, self.dit, self.codec, self.noise = spec, dit, codec, noise
        dit.fuse()
        self.batch, self.max_steps = batch, max_steps
        weight = dit.patch_embedding.weight
        self.device, dtype = weight.device, weight.dtype
        self.run: Runner = at_once
        self.whole_text = self.device.type != "cpu"
        shape = spec.dit
        rows, columns = height // spec.stride // shape.patch[1], width // spec.stride // shape.patch[2]
        self.rope = rope_for(shape, rows, columns, self.device)
        self.sigmas = Sigmas(spec.schedule, self.device)
        self.time_N = time_table(dit, self.device)
        depth = max_steps if batch else 1
        latent = (depth, shape.latent_channels, spec.frames_per_block, height // spec.stride, width // spec.stride)
        keys = (1, shape.text_len, shape.heads, shape.head_dim)
        self.state = StreamState(
            cache=KVCache(
                spec.cache,
                rule,
                block=spec.frames_per_block,
                layers=shape.layers,
                rows=depth,
                tokens=rows * columns,
                heads=shape.heads,
                width=shape.head_dim,
                device=self.device,
                dtype=dtype,
            ),
            x_SCFhw=torch.zeros(latent, device=self.device),
            clean_SCFhw=torch.zeros(latent, device=self.device),
            text=[
                (torch.zeros(keys, device=self.device, dtype=dtype), torch.zeros(keys, device=self.device, dtype=dtype))
                for _ in range(shape.layers)
            ],
            controller=NoiseController(noise_rule, height, width, self.device),
            encoder=codec.encoder_state(1, height, width),
            decoder=codec.decoder_state(1, height, width),
        )
        self._text = self.state.text
        self._text_bias: Tensor | None = None

    def reset(self) -> None:
        """Forget the history and whatever is in flight."""
        self.state.reset()

    def flush(self) -> list[tuple[Any, Tensor]]:
        """End the chunks in flight as far as they are, oldest first: as from `denoise`. Then `reset` the stream."""
        flights, clean = self.state.flights, self.state.clean_SCFhw
        self.state.flights = []
        return [(f.ticket, clean[r : r + 1]) for r, f in reversed(list(enumerate(flights))) if f.ticket is not None]

    @property
    def in_flight(self) -> int:
        """Chunks that were begun and are not finished."""
        return sum(flight.ticket is not None for flight in self.state.flights)

    def abandon(self) -> tuple[tuple[int, ...], list[Any]]:
        """Ranks that were lost, and tickets of the chunks in flight, oldest first. One process loses no rank."""
        return (), [flight.ticket for flight in reversed(self.state.flights) if flight.ticket is not None]

    def close(self) -> None:
        """End what runs beside this process: nothing here."""

    @torch.inference_mode()
    def read(self, embedding_LE: Tensor) -> None:
        """Make this prompt the one in force: for all rows, from the next forward on; the history stays.

        Keys and values go to the state's own tensors; fewer than the text's length are used where the rest is alike.
        """
        keys, bias = read_text(self.dit, embedding_LE, whole=self.whole_text)
        tokens = keys[0][0].shape[1]
        for held, new in zip(self.state.text, keys, strict=True):
            held[0][:, :tokens].copy_(new[0])
            held[1][:, :tokens].copy_(new[1])
        self._text = [(k[:, :tokens], v[:, :tokens]) for k, v in self.state.text]
        if not self.whole_text:
            self._text = self.dit.fold_text(self._text)
        self._text_bias = bias

    @property
    def begun(self) -> bool:
        """Whether the first block has been seen."""
        return self.state.number > 0

    @torch.inference_mode()
    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """Encode the next chunk's pixels in [-1, 1] and mix noise into them.

        Returns:
            The noisy latents [1, C, F, h, w] and the first timestep (int64 scalar on the device).
        """
        mean_1CFhw, controller = self.mean(video_3THW), self.state.controller
        if self.begun:
            share, first = controller.follow(video_3THW, steps, motion)
        else:
            share, first = controller.begin(video_3THW, steps)
        noise_1CFhw = self.noise.draw(0, 1, mean_1CFhw.shape[2])
        return mix(mean_1CFhw.float(), noise_1CFhw, share.float()), first

    @torch.inference_mode()
    def mean(self, video_3THW: Tensor) -> Tensor:
        """The next chunk's pixels in [-1, 1] as latents [1, C, F, h, w], without noise; a part of `encode`."""
        encoder = self.state.encoder
        form = Form("encode", video_3THW.shape[1], steady=bool(encoder.started))
        return self.run(form, lambda video: self.codec.encode(video, encoder), video_3THW[None])

    @torch.inference_mode()
    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Any, anchor: bool = False
    ) -> list[tuple[Any, Tensor]]:
        """Send noisy latents on their way through `timesteps`, of which `first` replaces the first.

        Returns:
            (ticket, clean latents [1, C, F, h, w]) of every chunk that is finished, oldest first. A chunk with
            more steps than the newest one is finished with as many as that.
        """
        state, frames = self.state, x_1CFhw.shape[2]
        flight = Flight(ticket, timesteps, state.number, state.position, anchor)
        opening = not self.begun
        state.number += frames
        state.position = self._wrapped(state.position + frames)
        if opening or not self.batch:
            clean = self._all_steps(x_1CFhw, first, flight)
            if opening and self.batch:
                self._warm_rows(timesteps)
            return [(ticket, clean)]
        return self._one_step_each(x_1CFhw, first, flight)

    @torch.inference_mode()
    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """Clean latents of the next finished chunk to pixels in [-1, 1]: [3, T, H, W]."""
        decoder, frames = self.state.decoder, clean_1CFhw.shape[2]
        form = Form("decode", frames, steady=bool(decoder.started) and frames == self.spec.frames_per_block)
        return self.run(form, lambda clean: self.codec.decode(clean, decoder), clean_1CFhw)[0]

    def _all_steps(self, x_1CFhw: Tensor, first: Tensor, flight: Flight) -> Tensor:
        """All steps of one chunk on row 0; the first one chooses the slots, the others write the same ones."""
        clean = x_1CFhw
        for step, t in enumerate(flight.timesteps):
            t_S = first[None] if step == 0 else torch.full((1,), t, dtype=torch.int64, device=self.device)
            clean = self._forward(x_1CFhw, t_S, [flight], again=step > 0)
            if step + 1 < len(flight.timesteps):
                sigma = self.sigmas.by_timestep[flight.timesteps[step + 1]]
                x_1CFhw = mix(clean, self.noise.draw(step + 1, 1, x_1CFhw.shape[2]), sigma)
        return clean

    def _one_step_each(self, x_1CFhw: Tensor, first: Tensor, newest: Flight) -> list[tuple[Any, Tensor]]:
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
        t_S = self._sent([f.timesteps[row] for row, f in enumerate(flights)])
        t_S[:1].copy_(first)
        clean = self._forward(x_SCFhw, t_S, flights)
        state.clean_SCFhw[:rows] = clean

        going = sum(len(f.timesteps) > row + 1 for row, f in enumerate(flights))
        if going:
            next_S = self._sent([f.timesteps[row + 1] for row, f in enumerate(flights[:going])])
            sigma = self.sigmas.at(next_S)[:, None, None, None, None]
            noise = self.noise.draw(1, going, x_1CFhw.shape[2])
            state.x_SCFhw[1 : going + 1] = mix(clean[:going], noise, sigma)
        state.flights = flights[:going]
        done = reversed(range(going, rows))
        return [(flights[r].ticket, clean[r : r + 1]) for r in done if flights[r].ticket is not None]

    def _forward(self, x_SCFhw: Tensor, t_S: Tensor, flights: list[Flight], again: bool = False) -> Tensor:
        """One forward of the rows and the clean latents that it predicts, fp32."""
        frames, slots = x_SCFhw.shape[2], self.spec.cache.slots
        orders_S3 = self._sent([[f.number, f.position, f.anchor] for f in flights])
        held = [min(f.number + frames, slots) for f in flights]
        even = min(held) == max(held)
        steady = even and max(held) == slots and frames == self.spec.frames_per_block
        form = Form("forward", frames, steady, len(flights), visible=max(held), even=even, again=again)
        return self.run(form, partial(self._predict, form), x_SCFhw, t_S, orders_S3)

    def _predict(self, form: Form, x_SCFhw: Tensor, t_S: Tensor, orders_S3: Tensor) -> Tensor:
        """A forward on the device alone: each row's timestep, and its number, position and anchor, are tensors."""
        number_S, position_S, anchor_S = orders_S3.unbind(1)
        arrival = Arrival(number_S, anchor_S > 0, form.visible, even=form.even, again=form.again)
        self.state.cache.begin(arrival, form.frames)
        time = Time(
            self.time_N.e_BFD[0, t_S, None].expand(-1, form.frames, -1),
            self.time_N.e0_BF6D[0, t_S, None].expand(-1, form.frames, -1, -1),
        )
        places_SF = position_S[:, None] + torch.arange(form.frames, device=self.device)
        predicted = self.dit.forward_cached(
            x_SCFhw, time, self._text, places_SF, self.rope, self.state.cache, self._text_bias
        )
        return self.sigmas.clean(x_SCFhw, predicted, self.sigmas.at(t_S)[:, None, None, None, None])

    def _sent(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Whole numbers of the host on the device, int64; the host does not wait for what the device is doing."""
        held = torch.tensor(numbers, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        return held.to(self.device, non_blocking=True)

    def _warm_rows(self, timesteps: tuple[int, ...]) -> None:
        """Where sinks adapt as in the reference, rows that no chunk has reached yet run on empty latents."""
        state = self.state
        if not (state.cache.per_layer and state.cache.rule is Rule.REFERENCE):
            return
        empty = Flight(None, timesteps, state.number, state.position, False)
        state.flights = [empty] * (len(timesteps) - 1)
        for row in range(1, len(timesteps)):
            state.cache.copy_row(0, row)

    def _wrapped(self, position: int) -> int:
        """The position itself, or where it starts again when it leaves the range that the model knows."""
        cache = self.spec.cache
        if position < cache.wrap_at:
            return position
        return 0 if self.state.cache.rule is Rule.ADAPTIVE else cache.slots - 1


def read_text(
    dit: CausalDiT, embedding_LE: Tensor, *, whole: bool
) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
    """Keys and values of a prompt for the network's blocks, [1, T, H, K], and what is added to each token's likeness.

    The zero rows after a prompt all have the same keys and values. Attending one of them, with the logarithm of
    their number added to its likeness, is the same and cheaper. `whole` attends all of them and adds nothing: on
    accelerators, whose attention kernels are slower with an addition, and where every prompt must have one length.
    """
    weight, length = dit.patch_embedding.weight, embedding_LE.shape[0]
    tokens = length
    if not whole:
        used = embedding_LE.any(dim=1).nonzero()
        tokens = min(int(used.max()) + 2 if len(used) else 1, length)
    keys = dit.text_keys(dit.embed_text(embedding_LE[None, :tokens].to(weight.device)))
    if tokens == length:
        return keys, None
    bias_T = torch.zeros(tokens, device=weight.device, dtype=weight.dtype)
    bias_T[-1] = math.log(length - tokens + 1)
    return keys, bias_T


def time_table(dit: CausalDiT, device: torch.device) -> Time:
    """What the network makes of every whole timestep, [1, 1001, ...]: looked up instead of computed."""
    with torch.inference_mode():
        return dit.time(torch.arange(TIMESTEPS + 1, device=device)[None])
