"""Runs workers: a fuzz of one target for a while, and the replay of inputs that once found something."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.bootstrap import ROOT
from bridge.drills.fuzzing.target import Target
from bridge.drills.fuzzing.worker import LIMIT_MS, current, logged, prepare

CORPUS = ROOT / "tests" / "bridge" / "drills" / "corpus"
"""A folder for each target: inputs that found a defect, which is mended since."""

INSTRUMENTED_MS = 5 * LIMIT_MS
"""The limit while coverage is measured, which slows the code down; what exceeds it is timed again without."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One input and what happened to it."""

    data: bytes
    text: str


@dataclass(slots=True)
class Result:
    """What the fuzz of one target did.

    Attributes:
        inputs: how many were fed.
        findings: defects, each once.
    """

    target: str
    inputs: int = 0
    findings: list[Finding] = field(default_factory=list)


def guidance() -> bool:
    """Whether atheris is installed, so that the fuzz is guided by coverage."""
    return importlib.util.find_spec("atheris") is not None


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    folder = CORPUS / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


def fuzz(target: Target, seconds: float, seed: int) -> Result:
    """Fuzz one target for so long; a worker that an input ended is started again with the remaining time.

    On a machine so busy that not even the examples were fed in this time, it goes on with twice the time.
    """
    result = Result(target.name)
    inputs = [*target.seeds, *corpus(target.name)]
    end = time.monotonic() + seconds
    known: set[bytes] = set()
    suspects: list[Finding] = []
    while len(suspects) < 20:
        left = end - time.monotonic()
        if left <= 0:
            if result.inputs > len(inputs):
                break
            seconds *= 2
            left = seconds
        with tempfile.TemporaryDirectory() as folder:
            count, found = _work(Path(folder), target, inputs, left, seed, guidance())
        result.inputs += count
        suspects += [finding for finding in found if finding.data not in known]
        known.update(finding.data for finding in found)
        seed += 1
    result.findings = replay(target, [finding.data for finding in suspects])
    return result


def replay(target: Target, inputs: Iterable[bytes]) -> list[Finding]:
    """Feed inputs once more, without guidance and with the limit of `LIMIT_MS`; returns what still goes wrong."""
    left = list(dict.fromkeys(inputs))
    findings: list[Finding] = []
    while left:
        with tempfile.TemporaryDirectory() as folder:
            count, found = _work(Path(folder), target, left, 0.0, 0, False)
        findings += found
        left = left[count:]
    return findings


def _work(
    folder: Path, target: Target, inputs: Iterable[bytes], seconds: float, seed: int, guided: bool
) -> tuple[int, list[Finding]]:
    """Run one worker to its end: how many inputs it was fed, and what it found, with the input that ended it."""
    prepare(folder)
    for part in ("seeds", "found"):
        (folder / part).mkdir()
    for number, data in enumerate(inputs):
        (folder / "seeds" / f"{number:06}").write_bytes(data)
    limit_ms = INSTRUMENTED_MS if guided else LIMIT_MS
    job = {
        "module": target.module,
        "target": target.name,
        "guided": guided,
        "seconds": seconds,
        "seed": seed,
        "limit_ms": limit_ms,
    }
    code = _forked(folder, job) if guided else _started(folder, job)
    found = [
        Finding(path.with_suffix("").read_bytes(), path.read_text(encoding="utf-8"))
        for path in sorted((folder / "findings").glob("*.txt"))
    ]
    count, data = current(folder)
    if code:
        log_text = (folder / "log").read_text(encoding="utf-8", errors="replace")
        if not count:
            raise RuntimeError(f"the worker of {target.name} could not start:\n{log_text[-4000:]}")
        found.append(Finding(data, f"the process ended with code {code}\n{log_text[-4000:]}"))
    return count, found


def _forked(folder: Path, job: dict[str, Any]) -> int | None:
    """Run a guided job in a fork of a process that has instrumented every module; returns the exit code."""
    if sys.platform == "win32":
        raise RuntimeError("atheris does not exist for Windows")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bridge.drills.fuzzing.instrumented"])
    process = context.Process(target=logged, args=(folder, job))
    process.start()
    process.join()
    return process.exitcode


def _started(folder: Path, job: dict[str, Any]) -> int:
    """Run a job in a process of its own, which loads the modules as they are; returns the exit code."""
    command = [sys.executable, "-m", "bridge.drills.fuzzing.worker", str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.run(command, input=json.dumps(job).encode(), stdout=log, stderr=log, cwd=ROOT).returncode
