"""A stage of modulators for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bridge.control.modulation.stage import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()
