"""The fault drill with whole programs: killed as a group, twice at once, with little shared memory."""

from __future__ import annotations

import pytest

from bridge.drills.faults.drill import LIMIT_MS
from bridge.drills.faults.programs import PROGRAM_CASES


@pytest.mark.parametrize("case", PROGRAM_CASES, ids=lambda case: case.name)
def test_a_whole_program_survives(case, tmp_path):
    if why := case.missing():
        pytest.skip(why)
    outcome = case.run(tmp_path)
    assert outcome.controls, outcome
    # A pause that a program that only sleeps or receives sees as well is the machine's, not the bridge's.
    assert outcome.gap_ms - outcome.machine_ms <= max(LIMIT_MS, 2.0 * outcome.machine_ms), outcome
