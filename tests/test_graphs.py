"""Warm-up leaves nothing behind, and what is not built is refused."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelError
from engine.graphs import check, warm_up
from tests.test_stream import SIDE, SPEC, stream


def test_warm_up_leaves_a_new_stream() -> None:
    made, said = stream(), []
    warm_up(SPEC, made, SIDE, SIDE, said.append)
    assert said
    new = dict(stream().state.tensors())
    assert all(torch.equal(t, new[n]) for n, t in made.state.tensors() if not n.startswith("text"))
    assert (made.state.number, made.state.position, made.state.flights) == (0, 0, [])


def test_compilation_that_is_not_built_is_refused() -> None:
    check("auto")
    with pytest.raises(ModelError, match="full"):
        check("full")
