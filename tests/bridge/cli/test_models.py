"""The GPU memory that `tidecast models memory` computes is what the documents say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli import models
from bridge.cli.card import gpu_presets

PAGE = (Path(__file__).parents[3] / "docs/operators/presets.md").read_text(encoding="utf-8")


def test_the_documents_have_the_tables_as_they_are_computed(capsys: pytest.CaptureFixture[str]) -> None:
    models.memory(markdown=True)
    presets, by_model = capsys.readouterr().out.split("\n\n")
    assert presets in PAGE and by_model in PAGE, "write them anew: tidecast models memory --markdown"
    assert presets.count("\n") == 1 + len(gpu_presets())
    for row in models.preset_memory()[1:]:
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{row[0]}` |"))
        assert f"{row[-2]} GiB" in line, f"the list of presets says another memory than {row[-2]} GiB"


def test_a_terminal_of_80_columns_shows_every_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    models.memory(size="512x288")
    out = capsys.readouterr().out
    assert "…" not in out and "512x288" in out
    smaller = models.model_memory(512, 288)
    assert all(figure in out for row in smaller for figure in row if " " not in figure)
    assert max(map(len, out.splitlines())) <= 80
