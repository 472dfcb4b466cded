"""`python -m tests.windows`: test modules and whole programs with Windows' own Python, under Wine; prints a table.

Exit code 0: all passed; 1: something failed; 3: it could not be prepared here, and why. What time is left over from
the whole programs goes to the modules; those that it does not reach are named.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import platformdirs

from bridge.bundle.uv import BundleError
from tests.windows import modules, programs
from tests.windows.prepare import prepare
from tests.windows.wine import CannotPrepare, Wine

NOT_PREPARED = 3


def main() -> int:
    """Prepare, run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.windows", description=__doc__)
    parser.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("tidecast") / "wine")
    parser.add_argument("--minutes", type=float, default=20.0, help="time for all of it, after the preparation")
    parser.add_argument("--only", default="", help="programs and modules with this in their name")
    parser.add_argument("--part", choices=("programs", "modules"), help="only these")
    parser.add_argument("--prepare", action="store_true", help="only prepare")
    given = parser.parse_args()
    began = time.monotonic()
    try:
        wine = prepare(given.cache.absolute(), lambda text: print(f"preparing: {text}", flush=True))
    except (CannotPrepare, BundleError) as error:
        print(f"NOT RUN: the run under Wine could not be prepared. {error}", flush=True)
        return NOT_PREPARED
    print(f"prepared in {time.monotonic() - began:.0f} s", flush=True)
    if given.prepare:
        return 0
    end_s = time.monotonic() + 60.0 * given.minutes
    with wine.screen():
        failed = _programs(wine, given.only, end_s) if given.part != "modules" else 0
        failed += _modules(wine, given.only, end_s) if given.part != "programs" else 0
    print(f"\n{f'{failed} failed' if failed else 'all passed'}", flush=True)
    return int(failed > 0)


def _programs(wine: Wine, only: str, end_s: float) -> int:
    failed = 0
    _row("program", "", "seconds", "figure", head=True)
    for case in programs.CASES:
        if only not in case.name:
            continue
        left_s, began = end_s - time.monotonic(), time.monotonic()
        if left_s <= 0:
            _row(case.name, "NOT RUN", "", "no time left")
            failed += 1
            continue
        try:
            verdict, figure = "passed", case.run(wine, min(programs.LIMIT_S, left_s))
        except (programs.Failed, AssertionError, OSError) as error:
            verdict, figure = "FAILED", str(error)
            failed += 1
        _row(case.name, verdict, f"{time.monotonic() - began:.0f}", figure)
    return failed


def _modules(wine: Wine, only: str, end_s: float) -> int:
    failed = 0
    _row("module", "", "seconds", "tests", head=True)
    for module in modules.modules():
        if only not in module:
            continue
        if why := modules.reason(module):
            _row(module, "left out", "", why)
            continue
        if (left_s := end_s - time.monotonic()) <= 0:
            _row(module, "NOT RUN", "", "no time left")
            continue
        verdict = modules.run(wine, module, left_s)
        failed += bool(verdict.failed)
        tests = [f"{verdict.passed} passed", f"{verdict.skipped} skipped" if verdict.skipped else ""]
        tests += [f"{len(verdict.failed)} failed: {', '.join(verdict.failed)}" if verdict.failed else ""]
        state = "FAILED" if verdict.failed else "passed"
        _row(module, state, f"{verdict.seconds:.0f}", ", ".join(filter(None, tests)))
    return failed


def _row(*cells: str, head: bool = False) -> None:
    """Print one row of a table in Markdown; newlines would end it."""
    _print([" ".join(cell.split()) for cell in cells])
    if head:
        _print(["---"] * len(cells))


def _print(cells: Iterable[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
