"""The thread of the engine process that finds people in the input frames.

It has nothing to do with the model's chunks: it takes the newest input frame, computes its mask on one CPU core and
sends it back, so that the mask of this moment is there although the style lags. When it fails, the bridge gets no masks
and shows the whole restyled picture; the model goes on.

Torch and the network are loaded with the first frame, which comes when a person mask is chosen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from bridge.process.engine.mask_rings import MASK_SIZE, MaskEnds, packed
from bridge.process.faults import MASK_FAILS
from bridge.process.messages import Complaint
from bridge.service import Service

WAIT_S = 0.5
"""Longest wait for a frame, in s."""

REST = 1.0
"""After every mask the thread rests for this many times as long as it took, so that it never takes more than half of a
core from the model. An input at 60 frames a second gives a mask 17 ms."""

FAILED = "The person mask failed ({}). The whole picture is restyled until it works again."


class MaskThread:
    """Masks of the frames of a ring, one after the other, the newest first.

    Args:
        ends: where frames come from and masks go to.
        complain: called when it fails, not with the same text twice in a row.
    """

    def __init__(self, ends: MaskEnds, complain: Callable[[Complaint], None]) -> None:
        self._ends = ends
        Service("mask", self._run, lambda topic, text: complain(Complaint(topic, FAILED.format(text)))).start()

    def _run(self) -> None:
        inbox, outbox = self._ends.inbox, self._ends.outbox
        frame = None
        while frame is None:
            frame = inbox.get(WAIT_S, newest=True)
        # Imported here: an engine process without a mask never loads them.
        from engine.models.selfie.masker import Masker
        from engine.runtime.device import one_thread_here

        one_thread_here()
        masker = Masker()
        if (masker.spec.width, masker.spec.height) != MASK_SIZE:
            raise ValueError(f"the network takes pictures of {masker.spec.width}x{masker.spec.height}")
        while True:
            if frame is not None:
                if MASK_FAILS.is_set():
                    raise RuntimeError("drill")
                began = time.perf_counter()
                mask = masker.mask(frame.pixels)
                took_s = time.perf_counter() - began
                outbox.put(dataclasses.replace(frame, pixels=packed(mask)))
                time.sleep(REST * took_s)
            frame = inbox.get(WAIT_S, newest=True)
