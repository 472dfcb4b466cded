"""`tidecast models lora FILE`: what a file is, and which models it fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bridge.cli import models
from engine.errors import CheckpointError


def written(path: Path, width: int, extra: str = "") -> Path:
    module = "diffusion_model.blocks.3.self_attn.q"
    file = {f"{module}.lora_A.weight": torch.ones(2, width), f"{module}.lora_B.weight": torch.ones(width, 2)}
    if extra:
        file[extra] = torch.ones(1)
    save_file(file, path, {"modelspec.title": "Film noir", "modelspec.trigger_phrase": "noir style"})
    return path


def test_it_tells_title_trigger_words_and_the_models_that_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.lora(written(tmp_path / "a.safetensors", 1536, "diffusion_model.blocks.0.cross_attn.k_img.diff_b"))
    told = capsys.readouterr().out
    assert "Film noir" in told and "trigger words: noir style" in told
    assert "changes: 1 weights and biases, rank 2, 1 image-to-video keys ignored" in told
    assert "wan21-1.3b" in told and "liveedit-1.3b" in told and "wan21-14b" not in told and "ember" not in told


def test_a_file_for_no_model_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"fits no model.*3072 \(Wan2\.2 5B\)"):
        models.lora(written(tmp_path / "b.safetensors", 3072))
    with pytest.raises(CheckpointError, match="There is no LoRA file"):
        models.lora(tmp_path / "absent.safetensors")
