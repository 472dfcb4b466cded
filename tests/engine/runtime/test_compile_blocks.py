"""A compiled network gives the results of the plain one, and live changes do not compile anything again."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from engine.models import conv
from engine.runtime.graph_capture import prepare
from tests.engine.models.wan21.test_vae import SIZE, clip, latents, random_codec
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


@pytest.mark.skipif(
    os.environ.get("TIDECAST_COMPILE") != "1", reason="compiles for a minute: TIDECAST_COMPILE=1 runs it"
)
@pytest.mark.timeout(600)
def test_a_compiled_autoencoder_equals_the_plain_one_and_compiles_once_for_each_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(conv, "on_cpu", lambda tensor: False)
    torch._dynamo.reset()
    before = counters["stats"]["unique_graphs"]
    plain, fast = random_codec(), random_codec()
    fast.compile(partial(torch.compile, fullgraph=True))
    with torch.inference_mode():
        x, y = (codec.encode(clip(9), codec.encoder_state(1, *SIZE)) for codec in (plain, fast))
        torch.testing.assert_close(x, y, atol=2e-5, rtol=0)
        x, y = (codec.decode(latents(3), codec.decoder_state(1, *SIZE)) for codec in (plain, fast))
        torch.testing.assert_close(x, y, atol=2e-5, rtol=0)
    assert counters["stats"]["unique_graphs"] - before == 3, "8, 16 and 32 channels"
