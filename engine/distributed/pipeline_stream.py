"""The stream on several GPUs: it computes what `engine.stream.stream.LocalStream` computes, with more delay.

The ranks of a ring share the blocks of the network. To keep all of them busy, there are as many calls in flight as
ranks. A call runs the chunks of one slot, and the slots take turns, so a chunk waits a whole turn between two steps.
Each step is planned in the call in which the single process would have executed it: every chunk has a plan with its
timesteps, its noise and the prompt of every step. So the results are the same, and finished chunks are returned in the
order in which they entered.

Shape letters: as in `engine.stream.stream`.
"""

from __future__ import annotations

import math
import time
from collections import deque

import torch
from torch import Tensor

from engine.distributed.block_shard import BlockShard, to_device
from engine.distributed.chunk_plan import ChunkPlan, InterleaveSlot, finished, plan_steps, text_versions
from engine.distributed.lora.rank_loras import RankLoras
from engine.distributed.lora.ring_loras import RingLoras
from engine.distributed.message import Message, Op, RowOrder
from engine.distributed.ring import Ring
from engine.distributed.split import Split, better_split
from engine.errors import ModelError
from engine.models.spec import Codec, ModelSpec
from engine.network.protocol import StreamingNetwork
from engine.runtime.metrics import StageTimers
from engine.stream.ends import NoiseSource, VideoEnds
from engine.stream.kv_cache import Rule
from engine.stream.noise import NoiseRule
from engine.stream.protocol import Saved
from engine.stream.state import InFlight, Ticket, new_cache, wrap_position
from engine.stream.timesteps import Sigmas, Steps, network_timesteps
from engine.stream.unbatched import all_steps

REBALANCE_CALLS = 128
"""Calls between two runs of `PipelineStream.rebalance`."""


class PipelineStream:
    """A `Stream` (see `engine.stream.protocol`) whose blocks are divided among the ranks of a ring.

    Args:
        ring: the connection to the other ranks, started with the same picture size and rules.
        spec: the model's row.
        network: the network with this rank's blocks only.
        codec, height, width, noise, rule, noise_rule, max_steps: as in `LocalStream`.
        batch: must be true.

    Raises:
        ModelError: if `batch` is false.
    """

    def __init__(
        self,
        ring: Ring,
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
        if not batch:
            raise ModelError("Several GPUs need the stream batch.", "Leave batch on, or use one GPU.")
        self.spec, self.network, self.noise, self.max_steps = spec, network, noise, max_steps
        network.fuse()
        self.device = network.device
        self.ends = VideoEnds(spec, codec, noise, noise_rule, height, width, self.device)
        self.sigmas = Sigmas(spec.schedule, self.device)
        self.cache = new_cache(
            spec,
            rule,
            height=height,
            width=width,
            layers=len(network.blocks),
            rows=max_steps,
            device=self.device,
            dtype=self.dtype,
        )
        self._number = self._position = 0
        self.ring = ring
        versions = text_versions(self.max_steps, ring.world)
        h, w = height // spec.stride, width // spec.stride
        tables = network.tables(h, w, network_timesteps(spec.schedule))
        self.shard = BlockShard(network, self.cache, tables, versions)
        self.loras = RingLoras(ring, RankLoras(self.shard, spec.schedule, 0), spec)
        latent = (max_steps, spec.network.latent_channels, spec.frames_per_block, h, w)
        self._slots = [InterleaveSlot(torch.zeros(latent, device=self.device)) for _ in range(ring.world)]
        self._plans: deque[ChunkPlan] = deque()
        self._decoded: deque[Tensor] = deque()
        self._version = 0
        self._calls = 0
        self.split = ring.job.split
        self.depth = ring.world
        self.timers = StageTimers(self.device)
        self._began: tuple[float, int] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the network's arithmetic."""
        return self.network.dtype

    @property
    def begun(self) -> bool:
        """Whether the stream has its first block."""
        return self._number > 0

    @property
    def noise_share(self) -> Tensor:
        """See `Stream`."""
        return self.ends.controller.previous

    def save(self) -> Saved:
        """Not supported: the KV caches and the chunks in flight of the other ranks would be missing.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"A stream on {self.ring.world} devices cannot be saved: the caches of the other ranks would be missing.",
            "Open the model on one device (devices = []) to save, or continue without saving.",
        )

    def restore(self, saved: Saved) -> None:
        """Not supported, like `save`: it always raises a `ModelError`."""
        raise ModelError(f"A saved stream cannot be resumed on {self.ring.world} devices.", "Open it on one device.")

    def reset(self) -> None:
        """See `Stream`."""
        self._drain()
        self.cache.reset()
        self.ends.reset()
        self._number = self._position = 0
        for slot in self._slots:
            slot.clear()
        self._plans.clear()
        self._decoded.clear()
        self._calls = 0
        self.ring.tell(Message(Op.RESET))

    def flush(self) -> list[tuple[Ticket, Tensor]]:
        """Return the chunks in flight, oldest first, each with the steps that the single process would have executed.

        Call `reset` afterwards.
        """
        self._run_planned(self._calls)
        done = finished(self._plans)
        begun = [(s.flight.ticket, s.clean) for s in self._plans if s.clean is not None]
        self._plans.clear()
        self._decode_remotely(begun)
        return done + begun

    @property
    def in_flight(self) -> int:
        """Number of chunks that are not finished."""
        return sum(plan.index >= 0 for plan in self._plans)

    def rank_losses(self) -> tuple[tuple[int, ...], list[Ticket]]:
        """Ranks that ended unexpectedly, and the tickets of the chunks in flight, oldest first."""
        return self.ring.lost(), [s.flight.ticket for s in self._plans if s.index >= 0]

    def close(self) -> None:
        """Stop the other ranks."""
        self.ring.close()

    def resplit(self, split: Split) -> None:
        """Divide the blocks in another way, between two calls; the stream's history is kept."""
        self._drain()
        self.ring.tell(Message(Op.SPLIT, parts=[torch.tensor(split, dtype=torch.int64)]))
        self.loras.own.leave()
        self.shard.resplit(self.ring.link, self.split, split)
        self.loras.own.arrive(split[0][0])
        self.split = split

    def set_depth(self, depth: int) -> None:
        """Set the number of calls in flight, 1 to the number of ranks: more use more ranks, fewer have less delay."""
        self._run_planned(self._calls)
        waiting = sorted(
            ((plan, slot.x_SCFhw[plan.taken].clone()) for slot in self._slots for plan in slot.plans),
            key=lambda item: item[0].taken,
        )
        for slot in self._slots:
            slot.plans = []
        self.depth = min(max(depth, 1), self.ring.world)
        slot = self._slots[self._calls % self.depth]
        for plan, x_CFhw in waiting:
            slot.plans.append(plan)
            slot.x_SCFhw[plan.taken].copy_(x_CFhw)

    def rebalance(self) -> bool:
        """Adapt the number of calls in flight and the split of the blocks to the times measured since the last call.

        Only as many calls are kept in flight as are needed to keep up with the input. Blocks are moved to ranks with
        time to spare if that gains enough (`split.worthwhile`). `denoise` calls this every `REBALANCE_CALLS` calls.

        Returns:
            Whether blocks were moved.
        """
        self._drain()
        world = self.ring.world
        times = torch.zeros(world, 2, dtype=torch.float32)
        own = self.timers.read()
        encode_s, decode_s = (own[stage] / 1e3 / REBALANCE_CALLS for stage in ("encode", "decode"))
        times[0] = torch.tensor([self.shard.seconds(), decode_s])
        self.ring.tell(Message(Op.TIMES, parts=[times]))
        dit_s, decodes_s = self.ring.receive().parts[0].double().T.tolist()
        decoder = world - 1 if self.ring.decodes else 0
        now = [s + (rank == 0) * encode_s + (rank == decoder) * decodes_s[rank] for rank, s in enumerate(dit_s)]
        self._adapt_depth(sum(now))
        best = better_split(self.split, dit_s, encode_s, decodes_s, decoder, max(now))
        if best is None:
            return False
        self.resplit(best)
        return True

    def _adapt_depth(self, round_trip_s: float) -> None:
        """Set the depth to the chunks that arrive while one call passes all ranks, `round_trip_s` seconds."""
        began, self._began = self._began, (time.perf_counter(), self._calls)
        if began is None or self._calls <= began[1]:
            return
        chunk_s = (self._began[0] - began[0]) / (self._calls - began[1])
        depth = math.ceil(round_trip_s / chunk_s + 0.1)
        if depth != self.depth:
            self.set_depth(depth)

    @torch.inference_mode()
    def set_prompt(self, embedding_XE: Tensor) -> None:
        """Use this prompt [X, E] from the next call on; steps planned before keep theirs."""
        needed = {text for s in self._plans for text in s.texts[s.taken :]}
        self._version = next(v for v in range(self.shard.versions) if v not in needed)
        embedding_XE = embedding_XE.to(self.device)
        self.shard.read(self._version, embedding_XE)
        self.ring.tell(Message(Op.TEXT, text=self._version, parts=[embedding_XE]))

    @torch.inference_mode()
    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Ticket, anchor: bool = False
    ) -> list[tuple[Ticket, Tensor]]:
        """As `Stream.denoise`, but each step can delay the result by up to (ranks - 1) more calls."""
        frames = x_1CFhw.shape[2]
        opening = not self.begun
        flight = InFlight(ticket, timesteps, self._number, self._position, anchor)
        self._number += frames
        self._position = wrap_position(self._position + frames, self.spec.cache, self.cache.rule)
        if opening:
            done = [(ticket, self._first_block(x_1CFhw, first, flight))]
            self._warm_rows(timesteps)
            self._decode_remotely(done)
        else:
            done = self._one_step_each(x_1CFhw, first, flight)
        if self._calls and self._calls % REBALANCE_CALLS == 0:
            self.rebalance()
        return done

    @torch.inference_mode()
    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """As `Stream.encode`; its time is measured for `rebalance`."""
        with self.timers.stage("encode"):
            return self.ends.encode(video_3THW, steps, motion, begun=self.begun)

    @torch.inference_mode()
    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """Pixels of the next finished chunk, in the order in which `denoise` and `flush` return them."""
        if self.ring.decodes:
            return self._decoded.popleft()
        with self.timers.stage("decode"):
            return self.ends.decode(clean_1CFhw)

    def _first_block(self, x_1CFhw: Tensor, first: Tensor, flight: InFlight) -> Tensor:
        """Execute all steps of the stream's first block on row 0; no other call is in flight."""

        def forward(x: Tensor, t_S: Tensor, again: bool) -> Tensor:
            self._send([RowOrder(flight.number, flight.position, flight.anchor, self._version)], x, t_S, again=again)
            return self.ring.receive().parts[0]

        return all_steps(forward, x_1CFhw, first, flight.timesteps, self.sigmas, self.noise)

    def _warm_rows(self, timesteps: tuple[int, ...]) -> None:
        """With the reference's adaptive sinks, run rows that no chunk has reached yet on zero latents, as it does."""
        if not self.cache.warms_rows:
            return
        empty = InFlight(None, timesteps, self._number, self._position, False)
        for row in range(1, len(timesteps)):
            self.cache.copy_row(0, row)
            self.ring.tell(Message(Op.COPY, copy=(0, row)))
            zeros = self._slots[0].x_SCFhw[:1]
            plan = ChunkPlan(empty, -row, timesteps, [self._version] * row, [zeros] * row, taken=row)
            self._slots[0].plans.append(plan)
            self._plans.appendleft(plan)

    def _one_step_each(self, x_1CFhw: Tensor, first: Tensor, newest: InFlight) -> list[tuple[Ticket, Tensor]]:
        slot = self._slots[self._calls % self.depth]
        self._collect(slot)
        plan = ChunkPlan(newest, self._calls, newest.timesteps)
        self._calls += 1
        self._plans.append(plan)
        unfinished = plan_steps(self._plans, plan, self._version)
        if unfinished:
            noise = self.noise.draw(1, len(unfinished), self.spec.frames_per_block)
            for other, own in zip(unfinished, noise.split(1), strict=True):
                other.noises.append(own)
        slot.plans.insert(0, plan)
        slot.x_SCFhw[:1].copy_(x_1CFhw)
        for row, other in reversed(list(enumerate(slot.plans))):
            if other.taken in other.opens_row or other.taken > row:
                self._run_planned(other.index + (other.taken > row))
        self._call(slot, slot.plans, first)
        return finished(self._plans)

    def _run_planned(self, index: int) -> None:
        """Execute every planned step of the chunks with a lower `index`, oldest first, each in a call of its own.

        This is needed when a cache row is about to be overwritten that these chunks still use, or when the rows of a
        slot are no longer consecutive. Both happen only for a few calls after the number of steps was lowered.
        """
        self._drain()
        for plan in [s for s in self._plans if s.index < index]:
            slot = next((slot for slot in self._slots if plan in slot.plans), None)
            while slot is not None and not plan.done and plan.taken < len(plan.texts):
                self._call(slot, [plan])
                self._collect(slot)

    def _call(self, slot: InterleaveSlot, plans: list[ChunkPlan], first: Tensor | None = None) -> None:
        """Start the next step of these chunks of a slot; their rows are consecutive."""
        row = plans[0].taken
        t_S = to_device([s.timesteps[s.taken] for s in plans], self.device)
        if first is not None:
            t_S[:1].copy_(first)
        rows = [RowOrder(s.flight.number, s.flight.position, s.flight.anchor, s.texts[s.taken]) for s in plans]
        last = plans[-1]
        self._send(
            rows,
            slot.x_SCFhw[row : row + len(plans)],
            t_S,
            row=row,
            copy=(last.taken, last.taken + 1) if last.taken in last.opens_row else None,
            finished=sum(1 << i for i, s in enumerate(plans) if s.index >= 0 and s.taken + 1 == len(s.timesteps)),
        )
        slot.running = list(plans)

    def _send(
        self,
        rows: list[RowOrder],
        x_SCFhw: Tensor,
        t_S: Tensor,
        *,
        again: bool = False,
        row: int = 0,
        copy: tuple[int, int] | None = None,
        finished: int = 0,
    ) -> None:
        """Run rows through this rank's blocks and send the result to the next rank."""
        frames, slots = x_SCFhw.shape[2], self.spec.cache.slots
        written = [min(row_order.number + frames, slots) for row_order in rows]
        message = Message(
            Op.FORWARD,
            tuple(rows),
            frames,
            max(written),
            min(written) == max(written),
            again,
            copy,
            finished=finished,
            first=row,
        )
        x_SLD = self.shard.run(message, self.network.embed(x_SCFhw), t_S)
        message.parts = [x_SLD, t_S, x_SCFhw.contiguous()]
        self.ring.tell(message)

    def _collect(self, slot: InterleaveSlot) -> None:
        """Wait for the slot's call, if one is in flight, and prepare the next steps of its chunks."""
        if not slot.running:
            return
        clean, *video = self.ring.receive().parts
        if video:
            self._decoded.extend(video[0].split(self.spec.frames_per_latent * self.spec.frames_per_block, dim=1))
        slot.advance(clean, self.sigmas)

    def _drain(self) -> None:
        """Wait for every call in flight, oldest first."""
        turn = self._calls % self.depth
        for slot in self._slots[turn : self.depth] + self._slots[:turn]:
            self._collect(slot)

    def _decode_remotely(self, done: list[tuple[Ticket, Tensor]]) -> None:
        """Let the last rank decode these chunks, if it decodes; no other call is in flight."""
        if self.ring.decodes:
            for _, clean in done:
                self.ring.tell(Message(Op.DECODE, parts=[clean.contiguous()]))
                self._decoded.append(self.ring.receive().parts[0])
