"""Options of the test suite."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden",
        help="Folder of reference vectors for tests/test_golden.py; without it, the selection in tests/golden.",
    )
