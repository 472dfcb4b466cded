"""Chunks on their way out of a session: what was set going on the device, and is collected when it has arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from engine.chunker import Chunk
from engine.frame import Frame
from engine.pixels import restyled, to_pixels
from engine.runtime.metrics import Health, StageTimers
from engine.runtime.transfers import PendingCopy, Transfer
from engine.stream.protocol import Stream

Finished = list[tuple[Chunk, PendingCopy | None]]
"""Chunks on their way out, oldest first, with their pixels [T, H, W, 3], uint8; None: frames leave as they came."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """What `Session.begin` has set going and `Session.collect` waits for.

    Attributes:
        finished: what comes out.
        health: of the chunk that was taken, None if there was none; its noise and stages are still to come.
        noise: the share of noise; it leaves last.
        timers: of its stages.
    """

    finished: Finished
    health: Health | None
    noise: PendingCopy
    timers: StageTimers

    def frames(self) -> list[Frame]:
        """Wait for the pixels, and give back the frames, oldest first."""
        done: list[Frame] = []
        for chunk, pixels in self.finished:
            done += chunk.frames if pixels is None else restyled(chunk, pixels.wait().numpy())
        return done

    def measured(self) -> Health | None:
        """The health with its noise and stages; call it after `frames`."""
        if self.health is None:
            return None
        return replace(self.health, noise=float(self.noise.wait()), stages=self.timers.read())


def decoded(stream: Stream, done: Sequence[tuple[Chunk, Tensor]], timers: StageTimers, down: Transfer) -> Finished:
    """Clean latents back to pixels, on their way to the host."""
    finished: Finished = []
    for chunk, clean in done:
        with timers.stage("decode"):
            video_3THW = stream.decode(clean)
        with timers.stage("download"):
            finished.append((chunk, down.send(to_pixels(video_3THW))))
    return finished
