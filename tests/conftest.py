"""Options of the test suite."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden",
        help="Folder of reference vectors for tests/engine/test_golden.py; without it, the selection in tests/golden.",
    )


REAL_TIME = {"test_app", "test_faults", "test_td_demo", "test_video_ndi", "test_web_demo", "test_web_page"}
"""Modules whose tests run whole programs against the clock. A machine that pauses them gets two further tries."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))
