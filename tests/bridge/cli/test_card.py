"""The preset for the GPUs of a machine, chosen by the memory that was computed for it."""

from __future__ import annotations

import pytest

from bridge.cli import card
from bridge.cli.card import Card, choose, gpu_presets
from bridge.config_file import load
from engine.models import registry, vram
from engine.planning.vram import GIB

NEEDS = {}
for _name in gpu_presets():
    _engine = load(_name).engine
    _need = vram.need_of(registry.get(_engine.model), _engine)
    assert _need is not None
    NEEDS[_name] = _need.total


def cards(*gib: float, used: float = 0.4) -> list[Card]:
    return [Card(f"RTX {size:g}", (size - used) * GIB, size * GIB) for size in gib]


@pytest.mark.parametrize("name", gpu_presets())
def test_every_preset_fits_the_cards_that_it_is_named_after(name: str) -> None:
    _, gib = gpu_presets()[name]
    assert NEEDS[name] <= (1 - card.SPARE) * gib * GIB, f"{name} needs {NEEDS[name] / GIB:.1f} GiB"


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ((7.99,), "gpu-8"),
        ((11.99,), "gpu-12"),
        ((15.99,), "gpu-16"),
        ((23.99,), "gpu-24"),
        ((31.8,), "gpu-32"),
        ((47.5,), "gpu-48"),
        ((79.2,), "gpu-80"),
        ((139.8,), "gpu-80"),
        ((23.99, 23.99), "gpu-2x24"),
        ((47.5, 47.5), "gpu-2x48"),
        ((23.99, 7.99), "gpu-24"),
    ],
)
def test_a_machine_gets_the_largest_that_fits(sizes: tuple[float, ...], wanted: str) -> None:
    choice = choose(cards(*sizes), NEEDS, [])
    assert choice.preset == wanted, choice.said
    assert wanted in choice.said and "GiB free" in choice.said


def test_on_windows_one_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card.sys, "platform", "win32")
    assert choose(cards(23.99, 23.99), NEEDS, []).preset == "gpu-24"


def test_memory_that_other_programs_use_counts() -> None:
    assert choose(cards(23.99, used=9.0), NEEDS, []).preset == "gpu-16"


def test_without_the_files_of_the_model_ember_runs_and_the_command_is_named() -> None:
    choice = choose(cards(23.99), NEEDS, list(NEEDS))
    assert choice.preset is None
    assert "gpu-24 fits" in choice.said and "tidecast models pull wan21-1.3b" in choice.said


def test_a_small_card_and_one_that_torch_cannot_use_are_told() -> None:
    assert "no preset" in choose(cards(3.9), NEEDS, []).said
    assert "tidecast doctor" in choose([], NEEDS, []).said


def test_without_a_driver_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card.shutil, "which", lambda _: None)
    assert card.for_this_machine() == card.Choice(None, "")


def test_the_program_that_is_asked_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert "tidecast doctor" in card.for_this_machine().said  # no GPU here, or one without a driver
