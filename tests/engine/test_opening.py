"""What a configuration needs is compared with what is free on every GPU before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from engine import opening
from engine.config import Config
from engine.errors import OutOfMemoryError
from engine.models import registry, vram

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


def test_every_gpu_is_asked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    give(monkeypatch, 24.0, 3.0)
    config = Config(model="wan21-14b", width=832, height=480, max_steps=1, vae="light", devices=("cuda:0", "cuda:1"))
    with pytest.raises(OutOfMemoryError, match=r"3\.0 of 24\.0 GiB are free on cuda:1"):
        opening.opened(config, say=lambda _: None, defer_prompts=False, files={})
