"""The run on a card survives parts that fail, die and hang, and judges each fault by what it measured."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge.bootstrap import ROOT
from engine.bench import card
from engine.bench.card import Part
from engine.errors import ConfigError
from engine.planning import card_verdicts
from engine.planning.card_verdicts import FAULTS

WRITES = "import sys; f = open(sys.argv[sys.argv.index('--lines') + 1], 'a'); "


def part(name: str, program: str, timeout_s: float = 60.0) -> Part:
    return Part(name, (), timeout_s, (sys.executable, "-c", WRITES + program))


HANGS = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("at work", flush=True)
f.write(json.dumps({"part": "hanging", "row": {"child": child.pid}}) + chr(10))
f.close()
time.sleep(600)
"""
"""What a part does that hangs, and has started a compiler that lives on with the part's output open."""


def ends_while_it_hangs(patch: pytest.MonkeyPatch, out: Path, how: type[BaseException]) -> None:
    """Let the first part of `HANGS` be ended by a time-out, or Ctrl+C, as soon as it is at work."""
    wait, ended = subprocess.Popen.wait, []

    def until_at_work(process: Any, timeout: float | None = None) -> int:
        if ended or not any(HANGS in str(argument) for argument in process.args):
            return wait(process, timeout)
        while not any(line.get("part") == "hanging" for line in card.read(out)):
            time.sleep(0.01)
        ended.append(process.pid)
        raise how(process.args, timeout) if how is subprocess.TimeoutExpired else how

    patch.setattr(subprocess.Popen, "wait", until_at_work)


def assert_dead(out: Path) -> None:
    """What the part of `HANGS` has started must have ended, or do so at once."""
    (row,) = [line["row"] for line in card.read(out) if line.get("part") == "hanging" and "row" in line]
    for _ in range(6000):
        try:
            if psutil.Process(row["child"]).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    raise AssertionError("it lives on")


def test_parts_that_fail_die_or_hang_are_written_down_and_the_next_one_runs(tmp_path, monkeypatch) -> None:
    out = tmp_path / "card.jsonl"
    ends_while_it_hangs(monkeypatch, out, subprocess.TimeoutExpired)
    parts = [
        part(
            "dies", """f.write('{"part": "half'); f.flush(); import os, signal; os.kill(os.getpid(), signal.SIGTERM)"""
        ),
        part("hangs", HANGS),
        part("fails", "sys.exit('no such device')"),
        part("works", """f.write('{"part": "machine", "row": {"gpu": "a card"}}\\n')"""),
    ]
    said: list[str] = []
    verdicts = card.run(out, "cuda", parts, said.append)
    lines = card.read(out)
    if sys.platform != "win32":
        assert_dead(out)
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


def test_an_interrupted_run_ends_its_part_and_judges_what_it_has(tmp_path, monkeypatch) -> None:
    out = tmp_path / "card.jsonl"
    ends_while_it_hangs(monkeypatch, out, KeyboardInterrupt)
    found = part("found", """f.write('{"part": "machine", "row": {"gpu": "a card"}}\\n')""")
    verdicts = card.run(out, "cuda", [found, part("hangs", HANGS), part("late", "1 / 0")], lambda _: None)
    ended = {line["part"]: line["ended"] for line in card.read(out) if "ended" in line}
    assert ended == {"found": "ok", "hangs": "interrupted", "late": "left out"}
    assert card.read(out)[-1]["verdicts"] == verdicts and verdicts[21]["verdict"] == "refuted"
    if sys.platform != "win32":
        assert_dead(out)


def test_without_a_card_the_run_ends_after_its_first_part(tmp_path) -> None:
    none = part("machine", """f.write('{"part": "machine", "row": {"failed": "RuntimeError"}}\\n'); sys.exit(1)""")
    said: list[str] = []
    verdicts = card.run(tmp_path / "card.jsonl", "cuda", [none, part("check", "1 / 0")], said.append)
    assert said[-1] == "2/2 check: left out, as torch cannot use cuda (tidecast doctor says why)"
    assert [row["number"] for row in verdicts if row["verdict"] == "confirmed"] == ["22"]


def test_whoever_allows_more_time_gives_it_to_every_part(tmp_path) -> None:
    said: list[str] = []
    card.run(tmp_path / "card.jsonl", "cuda", [part("short", "")], said.append, limit_s=4 * card_verdicts.ALLOWED_S)
    assert said[0] == "1/1 short (at most 240 s)"


def test_a_file_that_cannot_be_written_is_said_before_anything_runs(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"card\.jsonl cannot be written.*--out"):
        card.run(tmp_path / "missing" / "card.jsonl", "cuda", [part("short", "1 / 0")], lambda _: None)


def test_the_page_has_every_fault_with_tests_that_exist() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|", page, re.M)
    assert [(int(number), fault) for number, fault, _ in rows] == [(n, fault) for n, (fault, _) in FAULTS.items()]
    for number, _, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named, number
        for path, test in named:
            assert re.search(rf"^def {test}\b", (ROOT / path).read_text("utf-8"), re.M), test


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
