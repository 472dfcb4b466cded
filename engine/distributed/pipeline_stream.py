"""The stream over several GPUs: the same numbers as `engine.stream.stream.Stream`, later.

The ranks of a ring share the blocks of the network. To keep all of them busy, as many calls are under way as there are
ranks; a call takes the rows of one lane, and lanes take turns. So a chunk's next step comes not one call later but a
whole turn later. What is done to it is settled when the single process would have done it: each chunk carries a
script of its levels, its noise and the text of every step. Only the time of execution differs, and finished chunks
leave in the order in which they came.

Shape letters: as in `engine.stream.stream`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.distributed.block_shard import Part
from engine.distributed.link import Message, Op, RowOrder
from engine.distributed.ring import Ring
from engine.distributed.split import Split, place, worthwhile
from engine.errors import ModelError
from engine.runtime.metrics import StageTimers
from engine.stream.stream import Flight, Stream
from engine.stream.timesteps import Steps, mix

REBALANCE_CALLS = 128
"""Calls between two looks at the measured times."""


@dataclass(slots=True, eq=False)
class Script:
    """One chunk on its way, and what the single process would have done to it.

    Attributes:
        flight: the chunk as it came.
        index: number of the chunk since the stream began; negative for the empty chunks of a warm start.
        timesteps: its levels; shortened when the steps are lowered.
        texts: version of the text of each step that is settled.
        noises: noise [1, C, F, h, w] toward the step after each settled one.
        joins: steps with which a further cache row begins, as a copy of the step's own.
        taken: steps that were taken; the next one is taken in the row of this number.
        clean: the last thought of its picture.
    """

    flight: Flight
    index: int
    timesteps: tuple[int, ...]
    texts: list[int] = field(default_factory=list)
    noises: list[Tensor] = field(default_factory=list)
    joins: set[int] = field(default_factory=set)
    taken: int = 0
    clean: Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether it has taken all its steps."""
        return self.taken == len(self.timesteps)


@dataclass(slots=True, eq=False)
class Lane:
    """Chunks of every so-many-th call, newest first.

    `x_SCFhw` is what enters the next call, by rows; `called` the chunks whose call is under way.
    """

    x_SCFhw: Tensor
    scripts: list[Script] = field(default_factory=list)
    called: list[Script] = field(default_factory=list)


class PipelineStream(Stream):
    """A `Stream` whose blocks lie on the ranks of a ring; takes the settings of `Stream`, of this rank's blocks.

    Args:
        ring: the other ranks, set up for the same picture size and rules.

    Raises:
        ModelError: if the stream is not batched.
    """

    def __init__(self, ring: Ring, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if not self.batch:
            raise ModelError("Several GPUs need the stream batch.", "Leave batch on, or use one GPU.")
        self.ring = ring
        versions = text_versions(self.max_steps, ring.world)
        self.part = Part(self.dit, self.state.cache, self.rope, self.time_N, versions)
        self._lanes = [Lane(torch.zeros_like(self.state.x_SCFhw)) for _ in range(ring.world)]
        self._scripts: deque[Script] = deque()
        self._decoded: deque[Tensor] = deque()
        self._version = 0
        self._calls = 0
        self.split = ring.job.split
        self.depth = ring.world
        self.timers = StageTimers(self.device)
        self._began: tuple[float, int] | None = None

    def reset(self) -> None:
        """Forget the history and whatever is in flight."""
        self._drain()
        super().reset()
        for lane in self._lanes:
            lane.scripts = []
            lane.x_SCFhw.zero_()
        self._scripts.clear()
        self._decoded.clear()
        self._calls = 0
        self.ring.tell(Message(Op.RESET))

    def flush(self) -> list[tuple[Any, Tensor]]:
        """End the chunks in flight as far as the single process would be, oldest first. Then `reset` the stream."""
        self._run_out(self._calls)
        finished = self._finished()
        begun = [(s.flight.ticket, s.clean) for s in self._scripts if s.clean is not None]
        self._scripts.clear()
        self._decode_there(begun)
        return finished + begun

    @property
    def in_flight(self) -> int:
        """Chunks that were begun and are not finished."""
        return sum(script.index >= 0 for script in self._scripts)

    def abandon(self) -> tuple[tuple[int, ...], list[Any]]:
        """Ranks that died, and tickets of the chunks in flight, oldest first."""
        return self.ring.lost(), [s.flight.ticket for s in self._scripts if s.index >= 0]

    def close(self) -> None:
        """End the ranks."""
        self.ring.close()

    def resplit(self, split: Split) -> None:
        """Give every rank another share of the blocks, between two calls; no history is lost."""
        self._drain()
        self.ring.tell(Message(Op.SPLIT, parts=[torch.tensor(split, dtype=torch.int64, device=self.device)]))
        self.part.resplit(self.ring.link, self.split, split)
        self.split = split

    def deepen(self, depth: int) -> None:
        """Keep this many calls under way (1 to the number of ranks): more keep more ranks busy, fewer lag less."""
        self._run_out(self._calls)
        waiting = sorted(
            ((script, lane.x_SCFhw[script.taken].clone()) for lane in self._lanes for script in lane.scripts),
            key=lambda item: item[0].taken,
        )
        for lane in self._lanes:
            lane.scripts = []
        self.depth = min(max(depth, 1), self.ring.world)
        lane = self._lanes[self._calls % self.depth]
        for script, x_CFhw in waiting:
            lane.scripts.append(script)
            lane.x_SCFhw[script.taken].copy_(x_CFhw)

    def rebalance(self) -> bool:
        """Adapt to what was measured since the last time: calls under way, and the split of the blocks.

        As few calls are kept under way as fill the time between two chunks; blocks move toward ranks that have time
        to spare, where that gains enough. `denoise` does so every `REBALANCE_CALLS` calls.

        Returns:
            Whether blocks were moved.
        """
        self._drain()
        world = self.ring.world
        times = torch.zeros(world, 2, dtype=torch.float32, device=self.device)
        own = self.timers.read()
        encode_s, decode_s = (own[stage] / 1e3 / REBALANCE_CALLS for stage in ("encode", "decode"))
        times[0] = torch.tensor([self.part.seconds(), decode_s])
        self.ring.tell(Message(Op.TIMES, parts=[times]))
        dit_s, decodes_s = self.ring.receive().parts[0].double().T.tolist()
        counts = [end - start for start, end in self.split]
        decoder = world - 1 if self.ring.decodes else 0
        now = [s + (rank == 0) * encode_s + (rank == decoder) * decodes_s[rank] for rank, s in enumerate(dit_s)]
        self._adapt_depth(sum(now))
        block_s = [max(s / n, 1e-9) for s, n in zip(dit_s, counts, strict=True)]
        best = place(
            sum(counts),
            block_s,
            [encode_s if rank == 0 else math.inf for rank in range(world)],
            [decodes_s[rank] if rank == decoder else math.inf for rank in range(world)],
        )
        if best.split == self.split or not worthwhile(max(now), best.period_s):
            return False
        self.resplit(best.split)
        return True

    def _adapt_depth(self, around_s: float) -> None:
        """Enough calls under way to fill the time between two chunks with once around all ranks, and no more."""
        began, self._began = self._began, (time.perf_counter(), self._calls)
        if began is None or self._calls <= began[1]:
            return
        chunk_s = (self._began[0] - began[0]) / (self._calls - began[1])
        depth = math.ceil(around_s / chunk_s + 0.1)
        if depth != self.depth:
            self.deepen(depth)

    @torch.inference_mode()
    def read(self, embedding_LE: Tensor) -> None:
        """Make this prompt the one in force from the next call on; steps settled before keep theirs."""
        needed = {text for s in self._scripts for text in s.texts[s.taken :]}
        self._version = next(v for v in range(len(self.part.texts[0][0])) if v not in needed)
        embedding_LE = embedding_LE.to(self.device)
        self.part.read(self._version, embedding_LE)
        self.ring.tell(Message(Op.TEXT, text=self._version, parts=[embedding_LE]))

    @torch.inference_mode()
    def denoise(
        self, x_1CFhw: Tensor, first: Tensor, timesteps: tuple[int, ...], ticket: Any, anchor: bool = False
    ) -> list[tuple[Any, Tensor]]:
        """As `Stream.denoise`; results come up to (ranks - 1) calls later for every step."""
        opening = not self.begun
        finished = super().denoise(x_1CFhw, first, timesteps, ticket, anchor)
        if opening:
            self._decode_there(finished)
        if self._calls and self._calls % REBALANCE_CALLS == 0:
            self.rebalance()
        return finished

    @torch.inference_mode()
    def encode(self, video_3THW: Tensor, steps: Steps, motion: float = 1.0) -> tuple[Tensor, Tensor]:
        """As `Stream.encode`, timed for `rebalance`."""
        with self.timers.stage("encode"):
            return super().encode(video_3THW, steps, motion)

    @torch.inference_mode()
    def decode(self, clean_1CFhw: Tensor) -> Tensor:
        """Pixels of the next finished chunk, in the order in which `denoise` and `flush` gave them."""
        if self.ring.decodes:
            return self._decoded.popleft()
        with self.timers.stage("decode"):
            return super().decode(clean_1CFhw)

    def _forward(self, x_SCFhw: Tensor, t_S: Tensor, flights: list[Flight], again: bool = False) -> Tensor:
        """A forward of the first block: nothing else is under way."""
        rows = [RowOrder(f.number, f.position, f.anchor, self._version) for f in flights]
        self._send(rows, x_SCFhw, t_S, again=again)
        return self.ring.receive().parts[0]

    def _warm_rows(self, timesteps: tuple[int, ...]) -> None:
        super()._warm_rows(timesteps)
        for row, empty in enumerate(self.state.flights, start=1):
            self.ring.tell(Message(Op.COPY, copy=(0, row)))
            nothing = self._lanes[0].x_SCFhw[:1]
            script = Script(empty, -row, timesteps, [self._version] * row, [nothing] * row, taken=row)
            self._lanes[0].scripts.append(script)
            self._scripts.appendleft(script)
        self.state.flights = []

    def _one_step_each(self, x_1CFhw: Tensor, first: Tensor, newest: Flight) -> list[tuple[Any, Tensor]]:
        lane = self._lanes[self._calls % self.depth]
        self._collect(lane)
        script = Script(newest, self._calls, newest.timesteps)
        self._calls += 1
        self._scripts.append(script)
        self._settle(script)
        lane.scripts.insert(0, script)
        lane.x_SCFhw[:1].copy_(x_1CFhw)
        for row, other in reversed(list(enumerate(lane.scripts))):
            if other.taken in other.joins or other.taken > row:
                self._run_out(other.index + (other.taken > row))
        self._call(lane, lane.scripts, first)
        return self._finished()

    def _settle(self, newest: Script) -> None:
        """Decide for every chunk that the single process would have in flight what it would do to it in this call."""
        flying = [s for s in reversed(self._scripts) if newest.index - s.index < len(s.timesteps)]
        going = []
        for step, script in enumerate(flying):
            script.timesteps = script.timesteps[: max(len(newest.timesteps), step + 1)]
            script.texts.append(self._version)
            if len(script.timesteps) > step + 1:
                going.append(script)
        if len(going) == len(flying):
            flying[-1].joins.add(len(flying) - 1)
        if going:
            noise = self.noise.draw(1, len(going), self.state.x_SCFhw.shape[2])
            for row, script in enumerate(going):
                script.noises.append(noise[row : row + 1])

    def _run_out(self, index: int) -> None:
        """Take every settled step of the chunks before this one, oldest first, in calls that nothing else shares.

        Needed when a cache row begins anew and they still use the old one, or when they lie in rows that no longer
        follow each other: both for a moment after the steps were lowered.
        """
        self._drain()
        for script in [s for s in self._scripts if s.index < index]:
            lane = next((lane for lane in self._lanes if script in lane.scripts), None)
            while lane is not None and not script.done and script.taken < len(script.texts):
                self._call(lane, [script])
                self._collect(lane)

    def _call(self, lane: Lane, scripts: list[Script], first: Tensor | None = None) -> None:
        """Send the next step of these chunks of a lane on its way; they lie in successive rows."""
        row = scripts[0].taken
        t_S = torch.tensor([s.timesteps[s.taken] for s in scripts], device=self.device)
        if first is not None:
            t_S[0] = first
        rows = [RowOrder(s.flight.number, s.flight.position, s.flight.anchor, s.texts[s.taken]) for s in scripts]
        last = scripts[-1]
        self._send(
            rows,
            lane.x_SCFhw[row : row + len(scripts)],
            t_S,
            row=row,
            copy=(last.taken, last.taken + 1) if last.taken in last.joins else None,
            finished=sum(1 << i for i, s in enumerate(scripts) if s.index >= 0 and s.taken + 1 == len(s.timesteps)),
        )
        lane.called = list(scripts)

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
        """Take rows through this rank's blocks and send them to the next."""
        frames, slots = x_SCFhw.shape[2], self.spec.cache.slots
        held = [min(order.number + frames, slots) for order in rows]
        message = Message(
            Op.FORWARD,
            tuple(rows),
            frames,
            max(held),
            min(held) == max(held),
            again,
            copy,
            finished=finished,
            first=row,
        )
        x_SLD = self.part.run(message, self.dit.embed_patches(x_SCFhw), t_S)
        message.parts = [x_SLD, t_S, x_SCFhw.contiguous()]
        self.ring.tell(message)

    def _collect(self, lane: Lane) -> None:
        """Wait for the lane's call, if one is under way, and prepare the next steps of its chunks."""
        if not lane.called:
            return
        clean, *video = self.ring.receive().parts
        if video:
            self._decoded.extend(video[0].split(self.spec.frames_per_latent * self.spec.frames_per_block, dim=1))
        for row, script in enumerate(lane.called):
            script.clean, step = clean[row : row + 1], script.taken
            script.taken = step + 1
            if not script.done:
                sigma = self.sigmas.by_timestep[script.timesteps[step + 1]]
                lane.x_SCFhw[step + 1 : step + 2] = mix(script.clean, script.noises[step], sigma)
        lane.called = []
        lane.scripts = [s for s in lane.scripts if not s.done]

    def _drain(self) -> None:
        """Wait for every call that is under way, oldest first."""
        turn = self._calls % self.depth
        for lane in self._lanes[turn : self.depth] + self._lanes[:turn]:
            self._collect(lane)

    def _finished(self) -> list[tuple[Any, Tensor]]:
        """Chunks that have taken all their steps, as long as none before them is still under way."""
        finished = []
        while self._scripts and self._scripts[0].done:
            script = self._scripts.popleft()
            if script.index >= 0 and script.clean is not None:
                finished.append((script.flight.ticket, script.clean))
        return finished

    def _decode_there(self, finished: list[tuple[Any, Tensor]]) -> None:
        """Have chunks decoded by the rank that does so, while nothing else is under way."""
        if self.ring.decodes:
            for _, clean in finished:
                self.ring.tell(Message(Op.DECODE, parts=[clean.contiguous()]))
                self._decoded.append(self.ring.receive().parts[0])


def text_versions(steps: int, ranks: int) -> int:
    """How many texts can be needed at once when every call has another: those of the steps that are not taken yet."""
    return (steps - 1) * (ranks - 1) + 1
