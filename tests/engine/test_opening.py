"""Before anything is loaded, what cannot run or does not fit is refused, and the GPU is prepared for the video."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine import opening
from engine.config import Config
from engine.errors import ModelError, OutOfMemoryError
from engine.models import registry, vram
from engine.runtime import device, gpu_memory
from tests.support.fake_cuda import FakeCuda

GIB = 2**30
SPEC = registry.get("wan21-1.3b")


def give(patch: pytest.MonkeyPatch, *free: float) -> None:
    """Let there be GPUs of 24 GiB with this much free memory, in GiB."""
    patch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index or 0] * GIB, 24 * GIB))


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model=SPEC.name, width=832, height=480)
    needed = vram.need_of(SPEC, config)
    assert needed is not None
    said: list[str] = []
    give(monkeypatch, 12.0)
    with pytest.raises(OutOfMemoryError) as caught:
        opening.check_free_memory(SPEC, config, needed, torch.device("cuda"), said.append)
    assert f"needs {needed}, but 12.0 of 24.0 GiB are free on cuda" in caught.value.message
    assert caught.value.remedy.startswith('It fits at 832x480 with vae = "light", max_steps = 2: 9.')
    assert said == [f"{SPEC.title} needs {needed}; 12.0 of 24.0 GiB are free on cuda"]
    give(monkeypatch, 2.0)
    with pytest.raises(OutOfMemoryError) as caught:
        opening.check_free_memory(SPEC, config, needed, torch.device("cuda"), said.append)
    assert caught.value.remedy.startswith("Choose a smaller model")
    give(monkeypatch, needed.gib)
    opening.check_free_memory(SPEC, config, needed, torch.device("cuda"), said.append)


class Loading(Exception):
    """What a model is made of would be loaded now."""


def prepared(patch: pytest.MonkeyPatch, *, spills: bool = False, **settings: Any) -> FakeCuda:
    """Open a model on a GPU of 24 GiB, up to where something is loaded; `spills` as on Windows."""

    def load(*_: object, **__: object) -> None:
        raise Loading

    device._video_stream.cache_clear()
    cuda = FakeCuda(patch)
    give(patch, 24.0)
    patch.setattr(gpu_memory, "SPILLS", spills)
    patch.setattr(opening, "Gaussian", load)
    config = Config(model="wan21-tiny", width=32, height=32, **{"device": "cuda:0"} | settings)
    try:
        with pytest.raises(Loading):
            opening.opened(config, say=lambda _: None, defer_prompts=False, files={})
    finally:
        device._video_stream.cache_clear()
    return cuda


def test_what_is_loaded_onto_a_gpu_is_made_in_the_videos_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = prepared(monkeypatch)
    assert (cuda.current.device, cuda.current.priority) == (torch.device("cuda:0"), -1)
    assert cuda.log == ["device cuda:0"]


def test_memory_is_limited_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *of: allowed.append(of))
    prepared(monkeypatch, spills=True)
    assert allowed == [(1.0, torch.device("cuda:0"))]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"compile": "full"}, "needs Triton"),
        ({"compile": "graphs", "warmup": False}, "warm-up"),
        ({"weights_dtype": "float8"}, r"capability 8\.6"),
    ],
)
def test_what_cannot_run_here_is_refused_before_anything_is_loaded(
    settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.compile_blocks.triton_installed", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 3090")
    with pytest.raises(ModelError, match=said):
        prepared(monkeypatch, **settings)


def test_every_gpu_is_asked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    give(monkeypatch, 24.0, 3.0)
    config = Config(model="wan21-14b", width=832, height=480, max_steps=1, vae="light", devices=("cuda:0", "cuda:1"))
    with pytest.raises(OutOfMemoryError, match=r"3\.0 of 24\.0 GiB are free on cuda:1"):
        opening.opened(config, say=lambda _: None, defer_prompts=False, files={})
