"""A compiled network gives the results of the plain one, and live changes do not compile anything again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from engine.runtime.graph_capture import prepare
from tests.engine.runtime.test_graph_capture import show
from tests.engine.stream.test_stream import SIDE, SPEC, network, stream


@pytest.mark.skipif(
    os.environ.get("TIDECAST_COMPILE") != "1", reason="compiles for a minute: TIDECAST_COMPILE=1 runs it"
)
@pytest.mark.timeout(600)
def test_compiled_streams_equal_plain_ones_and_live_changes_compile_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    plain, fast = stream(dit=network()), stream(dit=network())
    assert prepare(SPEC, fast, "full", SIDE, SIDE, lambda _: None) == ""
    fast.noise.reset()
    compiled = dict(counters["stats"])
    assert compiled["unique_graphs"] >= 3
    wanted, found = show(plain), show(fast)
    assert dict(counters["stats"]) == compiled
    assert [t for t, _, _ in wanted] == [t for t, _, _ in found]
    for (_, x, video), (_, y, other) in zip(wanted, found, strict=True):
        torch.testing.assert_close(x, y, atol=2e-5, rtol=0)
        torch.testing.assert_close(video, other, atol=1e-4, rtol=0)
    assert any(tmp_path.rglob("*.so")), "compiled code is kept on disk"
