"""Which test modules are run under Wine, and why the others are not."""

from __future__ import annotations

import re
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.bootstrap import ROOT
from tests.windows.prepare import windows_path
from tests.windows.wine import Wine

TESTS = ROOT / "tests"

FIRST = ("bridge/ipc", "bridge/process", "bridge/control", "bridge/video", "bridge", "engine", "td_components")
"""Order of the folders: those with code of their own for Windows come first."""

WHOLE = (
    "runs whole programs as `python -m bridge`, which this Python without venv cannot; they are run beside the tests"
)
SPEED = "asserts how fast something is; Wine's speed says nothing"
LEFT_OUT = {
    "packaging/": "about the repository, not about a system",
    "docs/": "about the repository, not about a system",
    "examples/": WHOLE,
    "bridge/test_app.py": WHOLE,
    "bridge/test_bootstrap.py": "about venv and apt, which this Python and Windows lack",
    "bridge/bundle/": "makes the folder that all of this runs from, on Linux",
    "bridge/cli/test_card.py": SPEED,
    "bridge/drills/": "drives Linux' signals, namespaces and descriptors; the drill of the engine is run as a program",
    "bridge/process/test_group_signals.py": "about process groups of POSIX; Ctrl+C is run as a program",
    "bridge/web/test_demo.py": WHOLE,
    "bridge/web/test_page": "needs Chromium beside it; the page is read as a program",
    "bridge/web/test_words.py": "needs Chromium beside it",
    "bridge/web/test_files.py": "needs Chromium beside it",
    "bridge/video/ndi/test_ndi.py": "its peer is a library for Linux; both directions are run as programs",
    "engine/bench/": SPEED,
    "engine/distributed/": "several GPUs: only on Linux",
    "engine/rehearsal/": "about memory, not about a system",
    "engine/models/": "about arithmetic, minutes under Wine; the model is run by the demo",
    "engine/network/": "about arithmetic",
    "engine/planning/": "about arithmetic",
    "engine/runtime/": "about CUDA's graphs and compilers, which Wine lacks",
    "engine/stream/": "about arithmetic",
    "engine/test_golden.py": "about arithmetic; minutes under Wine",
    "engine/test_loras.py": "about arithmetic; minutes under Wine",
    "td_components/test_demo.py": WHOLE,
    "td_components/output/": "about the generated tree, not about a system",
    "td_components/docs/": "about the generated documents, not about a system",
    "td_components/definition/": "about the definition, not about a system",
    "td_components/test_generate.py": "about the generated tree, not about a system",
}
"""Modules, or folders of them, that are not run, each with its reason."""

TEST_S = 90
"""Longest time of one test, in s."""

MODULE_S = 240.0
"""Longest time of one module, in s."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a module: numbers of tests, the names of those that failed, and the seconds it took."""

    module: str
    passed: int
    skipped: int
    failed: tuple[str, ...]
    seconds: float


def reason(module: str) -> str:
    """Why a module is not run; empty for one that is."""
    return next((why for begin, why in LEFT_OUT.items() if module.startswith(begin)), "")


def modules() -> Iterator[str]:
    """Every test module, relative to `tests`, in the order of `FIRST`."""
    found = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py"))
    rank = {
        name: next((n for n, begin in enumerate(FIRST) if name.startswith(f"{begin}/")), len(FIRST)) for name in found
    }
    yield from sorted(found, key=lambda name: rank[name])


def run(wine: Wine, module: str, limit_s: float) -> Verdict:
    """Run one module in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-p", "no:cacheprovider", "-p", "no:xdist", "--one-try", f"--timeout={TEST_S}"]
        began = time.monotonic()
        ended = wine.run(
            wine.python,
            "-m",
            "pytest",
            *options,
            f"--junitxml={windows_path(report)}",
            f"tests/{module}",
            timeout_s=min(limit_s, MODULE_S),
            PYTHONUTF8="1",
        )
        if not report.exists():
            hung = re.findall(r"tests[\\/]\S+\", line \d+, in (test_\w+)", ended.output)
            why = f"hung in {hung[-1]}" if hung else f"no report, exit code {ended.code}"
            return Verdict(module, 0, 0, (why,), time.monotonic() - began)
        return _read(module, report)


def _read(module: str, report: Path) -> Verdict:
    suite = next(ElementTree.parse(report).iter("testsuite"))
    cases = list(suite.iter("testcase"))
    failed = [c.get("name", "") for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - skipped - len(failed)
    return Verdict(module, passed, skipped, tuple(failed), float(suite.get("time", "0")))
