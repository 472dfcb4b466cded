"""Options of the test suite."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=HERE / "golden",
        help="Folder of reference vectors for tests/engine/test_golden.py; without it, the selection in tests/golden.",
    )


REAL_TIME = {
    "bridge/test_app.py",
    "bridge/drills/test_faults.py",
    "bridge/video/ndi/test_ndi.py",
    "bridge/web/test_demo.py",
    "bridge/web/test_page.py",
    "td_components/test_demo.py",
}
"""Modules whose tests run whole programs against the clock. A machine that pauses them gets two further tries, which
pytest counts in its last line."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    assert all((HERE / name).is_file() for name in REAL_TIME), "a module of REAL_TIME was moved"
    for item in items:
        if item.path.relative_to(HERE).as_posix() in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests had to be run again: a reason that comes back is mended, not run over."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"first try of {report.nodeid}", sep="_")
        terminalreporter.line(report.longreprtext)
