"""What a restart brings back: values in a small file, checked when they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.control.store import ControlStore
from bridge.control.stored.session import CONTROLS, MAX_BYTES, Session
from bridge.control.tempo.controls import KEPT
from bridge.table import TABLE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "session.json"


def test_values_come_back_and_what_the_configuration_sets_does_not(path: Path) -> None:
    store = ControlStore(TABLE)
    session = Session(path, pytest.fail).start()
    session.keep(store, KEPT)
    store.set_many({"snap": "bar", "tempo_bpm": 99.5, "tempo_bend": 2.0, "mix": 0.1})
    session.put("cue", {"number": 3})
    session.stop()
    assert set(json.loads(path.read_bytes())[CONTROLS]) == set(KEPT)
    again, fresh = ControlStore(TABLE), Session(path, pytest.fail).start()
    fresh.keep(again, KEPT, chosen={"snap"})
    fresh.stop()
    expected = ControlStore(TABLE).values() | {"tempo_bpm": 99.5}
    assert again.values() == expected and fresh.get("cue") == {"number": 3}


def test_nothing_changed_writes_nothing(path: Path) -> None:
    session = Session(path, pytest.fail).start()
    session.keep(ControlStore(TABLE), KEPT)
    session.stop()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"3", b"[" * 50_000, b" " * (MAX_BYTES + 1)])
def test_a_damaged_file_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    said: list[tuple[str, str]] = []
    session = Session(path, lambda *error: said.append(error)).start()
    session.put("a", 1)
    session.stop()
    assert len(said) == 1 and "session.damaged-1.json" in said[0][1]
    assert json.loads(path.read_bytes()) == {"a": 1}


def test_values_that_are_not_valid_are_said_and_left_out(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({CONTROLS: {"snap": "moon", "tempo_bpm": "x", "tempo_quantum": 99, "mix": 0.1}}))
    said: list[tuple[str, str]] = []
    store = ControlStore(TABLE)
    session = Session(path, lambda *error: said.append(error)).start()
    session.keep(store, KEPT)
    session.stop()
    assert [topic for topic, _ in said] == ["session", "session"] and "'moon'" in said[1][1]
    assert store.values() == ControlStore(TABLE).values() | {"tempo_quantum": 8}


@pytest.mark.parametrize("content", [{CONTROLS: 3}, {CONTROLS: [1]}, {}])
def test_a_file_of_another_shape_brings_back_nothing(path: Path, content: object) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    session = Session(path, pytest.fail).start()
    session.keep(ControlStore(TABLE), KEPT)
    session.stop()
