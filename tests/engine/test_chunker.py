"""Chunks have exactly the model's size, and no frame is lost between them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.chunker import Chunker
from engine.controls import Controls
from engine.frame import Frame


def frame(n: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), seq=n)


def test_the_first_chunk_is_longer() -> None:
    chunker, sizes, order = Chunker(5, 4), [], []
    for n in range(21):
        chunker.feed(frame(n))
        if not chunker.needed:
            chunk = chunker.cut(Controls(steps=3))
            assert chunk.controls.steps == 3
            sizes.append(len(chunk.frames))
            order += [f.seq for f in chunk.frames]
    assert sizes == [5, 4, 4, 4, 4]
    assert order == list(range(21))


def test_a_restart_keeps_what_waits() -> None:
    chunker = Chunker(5, 4)
    for n in range(8):
        chunker.feed(frame(n))
    chunker.cut(Controls())
    assert chunker.needed == 1
    chunker.restart()
    assert chunker.needed == 2
    assert [f.seq for f in chunker.waiting] == [5, 6, 7]
    with pytest.raises(ValueError, match="2 frames are missing"):
        chunker.cut(Controls())
