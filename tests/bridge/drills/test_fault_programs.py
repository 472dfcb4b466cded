"""The fault drill with whole programs: killed as a group, twice at once, with little shared memory."""

from __future__ import annotations

import pytest

from bridge.drills.faults import programs
from bridge.drills.faults.programs import PROGRAM_CASES
from tests.bridge.drills.pauses import allowed_ms

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("case", PROGRAM_CASES, ids=lambda case: case.name)
def test_a_whole_program_survives(case, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "SHOW_S", 2.0)
    if why := case.missing():
        pytest.skip(why)
    outcome = case.run(tmp_path)
    assert outcome.controls, outcome
    assert outcome.gap_ms <= allowed_ms(outcome), outcome
