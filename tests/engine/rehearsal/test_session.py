"""A session at true sizes on the device `meta`: whatever is done live, the host neither reads nor waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame
from engine.session import Session
from tests.engine.rehearsal import meta_session
from tests.engine.rehearsal.meta_stream import META, Ledger

BESIDE_THE_GRAPHS = 60
"""Kernels of a chunk that the host launches one by one, at most: upload, noise, motion, prompt and pixels."""


def frames() -> Iterator[Frame]:
    pixels, number = np.zeros((480, 832, 3), np.uint8), 0
    while True:
        yield Frame(pixels, pts_ns=number * 33_000_000, seq=number)
        number += 1


class Show:
    """Feeds a session chunk by chunk."""

    def __init__(self, session: Session) -> None:
        self.session, self.source, self.fed, self.given = session, frames(), 0, 0

    def chunk(self, controls: Controls) -> None:
        while not self.session.ready:
            self.session.feed(next(self.source))
            self.fed += 1
        self.given += len(self.session.step(controls))


CALM = Controls(prompt_1="ink", steps=2)
LIVE = (
    replace(CALM, prompt_1="oil", prompt_seconds=0.2),
    replace(CALM, prompt_1="oil", prompt_2="snow", weight_2=0.5, strength=0.1, motion=0.3, seed=7),
    replace(CALM, steps=1),
    replace(CALM, anchors=1),
    replace(CALM, anchors=1, resets=1),
)
"""What is changed from one chunk to the next."""


@pytest.mark.parametrize(
    ("vae", "weights", "changes"), [("tiny", "float8", LIVE), ("full", "auto", ())], ids=["tiny, float8", "full"]
)
def test_nothing_that_is_done_live_makes_the_host_wait(
    vae: str, weights: str, changes: tuple[Controls, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(
        model="wan21-1.3b", width=832, height=480, max_steps=2, vae=vae, weights_dtype=weights, warmup=False
    )
    ledger = Ledger()
    with ledger:
        session, crossings = meta_session.opened(monkeypatch, config)
        ledger.sends.clear()
        meta_session.refuse_numbers(monkeypatch)
        show = Show(session)
        for _ in range(3):
            show.chunk(CALM)
        crossings.counts.clear()
        show.chunk(CALM)
        assert crossings.counts == {"up": 1, "down": 2, "numbers": 3}, "pixels; pixels and noise; timesteps and orders"
        for controls in changes:
            show.chunk(controls)
        given = len(session.flush())
    assert show.given + given == show.fed
    assert ledger.sends == {}, "copies from ordinary host memory, or operations on tensors of both devices"


def test_copies_from_the_host_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.empty(2, device=META)
    with Ledger() as ledger:
        assert not (x + torch.tensor(1.0)).sum().is_cpu
        assert ledger.sends == {}, "a kernel takes a number as an argument"
        torch.ones(2).to(META)
        x.copy_(torch.tensor(1.0))
    assert ledger.sends == {"_to_copy": 1, "copy_": 1}
    meta_session.refuse_numbers(monkeypatch)
    with pytest.raises(AssertionError, match="ordinary host memory"):
        torch.tensor([1, 2], device=META)
    with pytest.raises(AssertionError, match="ordinary host memory"):
        x.new_tensor([1, 2])
    assert torch.tensor([1, 2]).is_cpu


def test_few_kernels_are_launched_beside_the_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model="wan21-1.3b", width=832, height=480, max_steps=2, vae="tiny", warmup=False)
    session, _ = meta_session.opened(monkeypatch, config)
    show = Show(session)
    for _ in range(8):  # until the cache is full
        show.chunk(CALM)
    kernels = {
        stage: counts.kernels.total()
        for stage, counts in meta_session.counted(session, lambda: show.chunk(CALM)).items()
    }
    assert set(kernels) == {"", "encode", "forward", "decode"}
    assert kernels[""] <= BESIDE_THE_GRAPHS, kernels
