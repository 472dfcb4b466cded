"""The GPU memory that `tidecast models memory` computes is what the documents say."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bridge.cli import models, plan
from bridge.cli.card import gpu_presets
from engine.config import Config
from engine.models.registry import get
from engine.models.vram import need_of

PAGE = (Path(__file__).parents[3] / "docs/operators/presets.md").read_text(encoding="utf-8")


def test_the_documents_have_the_tables_as_they_are_computed(capsys: pytest.CaptureFixture[str]) -> None:
    models.memory(markdown=True)
    presets, by_model = capsys.readouterr().out.split("\n\n")
    assert presets in PAGE and by_model in PAGE, "write them anew: tidecast models memory --markdown"
    assert presets.count("\n") == 1 + len(gpu_presets())
    for row in models.preset_memory()[1:]:
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{row[0]}` |"))
        assert f"{row[-2]} GiB" in line, f"the list of presets says another memory than {row[-2]} GiB"


def test_the_list_of_models_says_what_each_needs_and_the_plan_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, said = get("wan21-1.3b"), StringIO()
    config = Config(model=spec.name, width=832, height=480, max_steps=plan.STEPS)
    needed = {vae: need_of(spec, config.model_copy(update={"vae": vae})) for vae in ("full", "light", "tiny")}
    full = needed["full"]
    assert full is not None
    assert models._memory(spec).splitlines() == [f"{need.gib:.1f} GiB ({vae})" for vae, need in needed.items() if need]
    plan._explain(Console(file=said, width=500), spec, plan.parse_gpus("RTX4080,RTX4090"), config, set())
    wanted = f"memory at {plan.STEPS} steps: {full} on each of 2; the smallest GPU has 16 GiB: does not fit. It fits at"
    assert wanted in said.getvalue()


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
