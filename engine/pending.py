"""The results of a session's step between `Session.begin`, which starts the work, and `Session.collect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from engine.chunker import Chunk, chunk_of
from engine.models.spec import ModelSpec
from engine.pixels import restyled, to_pixels
from engine.runtime.metrics import Health, StageTimers
from engine.runtime.transfers import PendingCopy, Transfer
from engine.stream.protocol import Stream
from engine.stream.state import Ticket

Finished = list[tuple[Chunk, PendingCopy | None]]
"""Finished chunks, oldest first, with their pixels (uint8 [T, H, W, 3]), or None if the input frames are returned."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """The work that a `Session.begin` has started.

    Attributes:
        finished: the finished chunks.
        health: health of the chunk that was started, without noise and stage times; None if no chunk was started.
        noise: the share of noise of this chunk; the last download of the step.
        spec: the model's row.
        timers: timers of its stages.
    """

    finished: Finished
    health: Health | None
    noise: PendingCopy
    spec: ModelSpec
    timers: StageTimers

    def chunks(self) -> list[Chunk]:
        """Wait for the pixels: the finished chunks with their restyled frames, oldest first.

        A chunk whose input frames are returned has no prompt.
        """
        return [
            replace(chunk, prompt="")
            if pixels is None
            else restyled(chunk, pixels.wait().numpy(), self.spec.strength_of(chunk.controls.strength))
            for chunk, pixels in self.finished
        ]

    def measured(self) -> Health | None:
        """The health with noise and stage times. Call it after `chunks`."""
        if self.health is None:
            return None
        return replace(self.health, noise=self.spec.control_of(float(self.noise.wait())), stages=self.timers.read())


def chunks_of(tickets: Sequence[Ticket], newest: Chunk | None) -> list[Chunk]:
    """The chunks of these tickets, and the newest one, which may have none yet."""
    chunks = [chunk_of(ticket) for ticket in tickets]
    return chunks if newest is None or newest in chunks else [*chunks, newest]


def decoded(stream: Stream, done: Sequence[tuple[Ticket, Tensor]], timers: StageTimers, down: Transfer) -> Finished:
    """Decode clean latents and start to download the pixels. The tickets are chunks."""
    finished: Finished = []
    for ticket, clean in done:
        with timers.stage("decode"):
            video_3THW = stream.decode(clean)
        with timers.stage("download"):
            finished.append((chunk_of(ticket), down.send(to_pixels(video_3THW))))
    return finished
