"""`tidecast bench fuzz`: made-up inputs for everything that takes bytes from outside, with a time limit for each.

With atheris (Linux, Python 3.11) the inputs are guided by the coverage of the code; without it they are seeded changes
of the examples and of the corpus.
"""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from bridge.drills.fuzzing.campaign import CORPUS, Result, fuzz, guidance
from bridge.drills.fuzzing.targets import TARGETS
from bridge.drills.fuzzing.worker import LIMIT_MS
from engine.bench.report import say
from engine.errors import ConfigError


def how() -> str:
    """How inputs are made up here."""
    return "guided by coverage" if guidance() else "NOT guided by coverage: atheris is not installed"


def campaign(names: list[str], seconds: float, seed: int, jobs: int) -> list[Result]:
    """Fuzz these targets, `jobs` at a time, in `seconds` all together."""
    share = seconds * jobs / len(names)
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda name: fuzz(TARGETS[name], share, seed), names))


def keep(result: Result) -> list[Path]:
    """Write the inputs that found something into the corpus."""
    paths = []
    for finding in result.findings:
        path = CORPUS / result.target / hashlib.sha256(finding.data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(finding.data)
        paths.append(path)
    return paths


def fuzz_command(
    minutes: Annotated[float, typer.Option(help="How long, all targets together.")] = 10.0,
    only: Annotated[str, typer.Option(help="One target; else all.")] = "",
    seed: Annotated[int, typer.Option(help="Where chance begins.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Targets at a time.")] = 2,
) -> None:
    """Fuzz what takes bytes from outside; what it finds goes into the corpus. Exit code 1 if it finds anything."""
    if only and only not in TARGETS:
        raise ConfigError(f"There is no target {only!r}.", f"Choose one of {', '.join(TARGETS)}.")
    results = campaign([only] if only else list(TARGETS), minutes * 60.0, seed, jobs)
    for result in results:
        for path, finding in zip(keep(result), result.findings, strict=True):
            print(f"{result.target}: {path}\n{finding.text}\n", flush=True)
    rows = [(r.target, f"{r.inputs}", f"{len(r.findings)}") for r in results]
    found = list(itertools.chain.from_iterable(r.findings for r in results))
    say(
        f"The fuzz, {how()}, {LIMIT_MS:.0f} ms for an input",
        rows,
        [{"target": r.target, "inputs": r.inputs, "findings": len(r.findings)} for r in results],
        ("target", "inputs", "findings"),
    )
    raise typer.Exit(1 if found else 0)
