"""Every attack of `tidecast bench strangers`, from a network namespace where that can be made."""

from __future__ import annotations

import warnings

import pytest

from bridge.drills.outsider import outsider
from bridge.drills.strangers import attacks


def test_the_bridge_holds_against_strangers() -> None:
    try:
        with outsider() as made:
            rows = list(attacks(made))
            unshown = made.unshown
    except OSError as error:
        pytest.skip(str(error))
    if unshown:
        warnings.warn(unshown, stacklevel=1)
    assert {row.item for row in rows} == {8, 9, 10, 11, 12}
    assert [row for row in rows if not row.held] == []
