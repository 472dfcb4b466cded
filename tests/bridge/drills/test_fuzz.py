"""A short fuzz of everything that takes bytes from outside, and every input that once found a defect."""

from __future__ import annotations

import pytest

from bridge.drills.fuzz import campaign, how
from bridge.drills.fuzzing.campaign import CORPUS, corpus, fuzz, guidance, replay
from bridge.drills.fuzzing.targets import TARGETS
from tests.bridge.drills import planted

SECONDS = 10.0


def told(findings) -> str:
    return "\n\n".join(f"{finding.data!r}\n{finding.text}" for finding in findings)


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir() if path.is_dir()))
def test_what_once_found_a_defect_finds_none_now(name):
    findings = replay(TARGETS[name], corpus(name))
    assert not findings, told(findings)


@pytest.mark.timeout(900)  # it starts a process for each target, which loads the bridge
def test_a_short_fuzz_finds_nothing(tell):
    tell(f"fuzz: {how()}")  # without atheris it finds less
    results = campaign(list(TARGETS), SECONDS, seed=1, jobs=2)
    assert all(result.inputs > len(TARGETS[result.target].seeds) for result in results), results
    findings = [finding for result in results for finding in result.findings]
    assert not findings, told(findings)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("raises", b"raise", "IndexError"),
        ("burns", b"burn", "slow"),
        ("hangs", b"hang", "Timeout"),
        ("dies", b"die", "ended with code"),
    ],
)
def test_a_replay_sees_errors_slow_inputs_hangs_and_crashes(name, data, text):
    """Also when other inputs come before and after it."""
    findings = replay(planted.TARGETS[name], [b"before", data, b"after"])
    assert [finding.data for finding in findings] == [data]
    assert text in findings[0].text


def test_time_in_which_other_programs_run_does_not_count():
    assert replay(planted.TARGETS["waits"], [b"a"]) == []


@pytest.mark.skipif(not guidance(), reason="atheris is not installed")
def test_coverage_leads_to_a_defect():
    assert fuzz(planted.TARGETS["raises"], 1.0, seed=1).findings[0].data == b"raise"
