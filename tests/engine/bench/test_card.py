"""The run on a card survives parts that fail, die and hang, and judges each fault by what it measured."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from engine.bench import card
from engine.bench.card import Part
from engine.planning import card_verdicts

WRITES = "import sys; f = open(sys.argv[sys.argv.index('--lines') + 1], 'a'); "


def part(name: str, program: str, timeout_s: float = 60.0) -> Part:
    return Part(name, (), timeout_s, (sys.executable, "-c", WRITES + program))


def test_parts_that_fail_die_or_hang_are_written_down_and_the_next_one_runs(tmp_path) -> None:
    parts = [
        part(
            "dies", """f.write('{"part": "half'); f.flush(); import os, signal; os.kill(os.getpid(), signal.SIGTERM)"""
        ),
        part("hangs", "f.close(); print('at work', flush=True); import time; time.sleep(600)", 3.0),
        part("fails", "sys.exit('no such device')"),
        part("works", """f.write('{"part": "machine", "row": {"gpu": "a card"}}\\n')"""),
    ]
    said: list[str] = []
    verdicts = card.run(tmp_path / "card.jsonl", "cuda", parts, said.append)
    lines = card.read(tmp_path / "card.jsonl")
    ended = {line["part"]: line["ended"] for line in lines if "ended" in line}
    assert ended["hangs"] == "timed out" and ended["works"] == "ok"
    assert ended["fails"] == "failed (exit status 1)"
    assert ended["dies"].startswith("died" if sys.platform != "win32" else "failed")
    assert "no such device" in next(line["tail"] for line in lines if line.get("part") == "fails")
    assert "at work" in next(line["tail"] for line in lines if line.get("part") == "hangs")
    assert lines[-1]["verdicts"] == verdicts
    assert [row["number"] for row in verdicts] == [str(number) for number in range(1, 25)]
    assert next(row for row in verdicts if row["number"] == "22")["verdict"] == "refuted"
    assert len(said) == 8


def test_the_run_ends_when_its_time_is_over(tmp_path) -> None:
    hangs = part("hangs", "f.close(); import time; time.sleep(600)")
    said: list[str] = []
    card.run(tmp_path / "card.jsonl", "cuda", [hangs, part("late", "1 / 0")], said.append, limit_s=0.5)
    ended = {line["part"]: line["ended"] for line in card.read(tmp_path / "card.jsonl") if "ended" in line}
    assert ended == {"hangs": "timed out", "late": "left out"}
    assert "at most" in said[0] and "left out" in said[-1]


def test_the_order_pays_and_the_whole_fits_into_what_it_promises() -> None:
    names = [part.name for part in card.ON_GPU]
    assert names[:3] == ["machine", "check", "waits"] and names[-2:] == ["capture", "full"]
    assert sum(part.timeout_s for part in card.ON_GPU) <= 2.2 * card_verdicts.ALLOWED_S
    for part in (*card.ON_GPU, *card.ON_CPU):
        assert part.timeout_s <= 300


ENGINE = {"model": "wan21-1.3b", "vae": "tiny", "width": 832, "height": 480, "steps": 2}
CASES: list[tuple[int, str, list[dict[str, Any]], str]] = [
    (2, "engine", [ENGINE | {"mode": "graphs", "memory_gib": 7.6, "needs_gib": 8.1}], "refuted"),
    (2, "engine", [ENGINE | {"mode": "fp8", "memory_gib": 12.0, "needs_gib": 8.1}], "confirmed"),
    (2, "engine", [ENGINE | {"model": "ember", "memory_gib": 0.4, "needs_gib": None}], "not seen"),
    (3, "engine", [ENGINE | {"vae": "full", "mode": "graphs", "failed": "OutOfMemoryError"}], "confirmed"),
    (4, "capture", [{"error": "invalidated", "grew_mib": 2000.0}], "confirmed"),
    (4, "capture", [{"error": "invalidated", "grew_mib": 0.0}], "refuted"),
    (4, "capture", [{"error": "", "grew_mib": 0.0}], "not seen"),
    (5, "float8", [{"failed": "RuntimeError", "message": "not compiled"}], "confirmed"),
    (5, "float8", [{"failed": "ModelError"}], "refuted"),
    (6, "engine", [ENGINE | {"mode": "graphs", "fps": 24.0}, ENGINE | {"mode": "fp8", "fps": 20.0}], "confirmed"),
    (6, "engine", [ENGINE | {"mode": "graphs", "fps": 24.0}, ENGINE | {"mode": "fp8", "fps": 30.0}], "refuted"),
    (9, "beside", [{"alone_ms": 3.0, "beside_ms": 30.0}], "confirmed"),
    (11, "kernels", [{"stage": "forward", "kernel": "all", "calls": 900, "short": 2, "ms": 9.0}], "refuted"),
    (11, "kernels", [{"stage": "forward", "kernel": "all", "calls": 0, "short": 0, "ms": 0.0}], "not seen"),
    (12, "waits", [{"steps": 1}, {"steps": 2, "failed": "RuntimeError"}], "confirmed"),
    (17, "engine", [{"mode": "full", "failed": "TritonMissing"}], "confirmed"),
    (
        20,
        "kernels",
        [{"stage": "encode", "kernel": "all", "ms": 9.0}, {"stage": "encode", "kernel": "nchwToNhwc", "ms": 3.0}],
        "confirmed",
    ),
    (22, "machine", [{"failed": "RuntimeError"}], "confirmed"),
]


@pytest.mark.parametrize(("number", "kind", "rows", "verdict"), CASES)
def test_a_fault_is_judged_by_what_was_measured(
    number: int, kind: str, rows: list[dict[str, Any]], verdict: str
) -> None:
    lines = [{"part": kind, "row": row} for row in rows]
    assert card_verdicts.judge(lines, 100.0, on_card=True)[number - 1]["verdict"] == verdict
    assert card_verdicts.judge(lines, 100.0, on_card=False)[number - 1]["verdict"] == "not seen"
    nothing = card_verdicts.judge([], 100.0, on_card=True)
    assert {row["verdict"] for row in nothing if row["number"] != "24"} == {"not seen"}
