"""No choice of an input ends the input: a bad one is refused or reported, the old one is shown, the next one works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.pipeline.endpoints.source_switch import MAX_LEAVING
from bridge.video.base import SourceInfo
from engine.errors import TransportError
from tests.support import bad_transport
from tests.support.capture_rig import SIZE, CaptureRig
from tests.support.poisoned_inputs import POISONED, Outcome, Poison


class Rig(CaptureRig):
    """Notes what was refused, too."""

    def __init__(self, uri: str = "pattern:bars") -> None:
        super().__init__(uri)
        self.refused: list[tuple[str, str]] = []
        self.store.listen_errors(lambda *error: self.refused.append(error))

    def choose(self, address: str) -> bool:
        """As by OSC."""
        return self.store.handle("/tidecast/input", [address])

    def works(self, address: str) -> None:
        """Another input is shown when it is chosen."""
        assert self.choose(address)
        self.until(lambda: self.shown == address, f"{address} is not shown")
        self.goes_on()


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig().running() as made:
        yield made
    assert made.widths <= {SIZE}


@pytest.mark.parametrize("poison", POISONED, ids=lambda poison: poison.name)
def test_a_poisoned_input_is_refused_or_reported_and_the_next_one_works(
    rig: Rig, poison: Poison, tmp_path: Path
) -> None:
    if not poison.runs:
        pytest.skip("not on this machine, or not as this user")
    address = poison.make(tmp_path)
    rig.goes_on()
    understood = rig.choose(address)
    assert understood == (poison.outcome is not Outcome.REFUSED)
    match poison.outcome:
        case Outcome.REFUSED:
            ((at, reason),) = rig.refused
            assert at == "/tidecast/input" and poison.words in reason and len(reason) < 400
            assert rig.store.snapshot.value("input") == "" and rig.told == []
        case Outcome.REPORTED:
            rig.until_told(poison.words)
            assert rig.shown == "pattern:bars"
        case Outcome.SHOWN:
            rig.until(lambda: rig.shown == address, "not shown")
        case Outcome.EITHER:
            rig.until(lambda: rig.shown == address or rig.told, "neither shown nor reported")
    rig.goes_on()
    assert all(len(text) < 600 for _, text in rig.told)
    rig.works("pattern:waves")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError, MemoryError, KeyError, TransportError])
@pytest.mark.parametrize("place", ["open", "read", "info", "problem"])
def test_whatever_a_source_raises_is_reported_and_tried_again(rig: Rig, place: str, error: type[Exception]) -> None:
    bad_transport.ERROR[0] = error
    rig.choose(f"bad:{place}")
    rig.until_told(f"a defect in {place}")
    told = len(rig.told)
    if place in ("open", "info"):
        rig.goes_on()  # the old input
    time.sleep(0.3)
    assert len(rig.told) == told, "the same error was reported again"
    rig.works("pattern:waves")


def test_a_source_that_has_failed_is_opened_again_by_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.choose("bad:read")
    rig.until_told("a defect in read")
    assert rig.capture.problem == "" or "a defect in read" in rig.capture.problem
    monkeypatch.setattr(bad_transport.BadSource, "at", lambda self, place: None)
    rig.until(lambda: rig.shown == "bad:read", "not opened again")
    rig.goes_on()


def test_a_source_whose_close_raises_is_left_behind(rig: Rig) -> None:
    rig.works("bad:close")
    rig.works("pattern:waves")
    assert rig.told == []


@pytest.mark.parametrize("place", ["open", "read", "close"])
def test_while_a_source_hangs_another_one_can_be_chosen(rig: Rig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.endpoint_thread.HANG_S", 0.3)
    rig.choose(f"bad:{place} hangs")
    if place == "open":
        rig.until_told("has not answered")
        assert rig.shown == "pattern:bars"
        rig.goes_on()
    elif place == "read":
        rig.until(lambda: "has not answered" in rig.capture.problem, "the problem is not shown")
        rig.until(lambda: rig.capture.lost, "the input does not count as lost")
    else:
        rig.until(lambda: rig.shown == "bad:close hangs", "not shown")
    rig.works("pattern:waves")
    rig.works("bad:fine")
    bad_transport.RELEASE.set()
    rig.works(f"bad:{place} hangs")


def test_the_end_does_not_wait_for_a_source_that_hangs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.capture.STOP_S", 0.3)
    rig.choose("bad:read hangs")
    rig.until(lambda: rig.shown == "bad:read hangs", "not shown")
    rig.capture.stop()
    assert not any(thread.name == "capture" and thread.is_alive() for thread in threading.enumerate())


def test_choosing_inputs_that_hang_fills_the_machine_with_no_threads(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.endpoint_thread.HANG_S", 0.1)
    for number in range(30):
        rig.choose(f"bad:open {number} hangs")
        time.sleep(0.05)
    rig.until_told("has not answered")
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("input bad:")]
    assert len(hanging) <= MAX_LEAVING + 1
    rig.goes_on()
    rig.works("pattern:waves")


def test_a_start_whose_source_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.opening.START_S", 0.3)
    with bad_transport.registered():
        rig = Rig("bad:open hangs")
        with pytest.raises(TransportError, match="bad:open hangs has not opened"):
            rig.capture.start()
        rig.capture.stop()


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TransportError])
def test_a_start_whose_source_raises_is_an_error(error: type[Exception]) -> None:
    with bad_transport.registered():
        bad_transport.ERROR[0] = error
        with pytest.raises(TransportError, match="a defect in open"):
            Rig("bad:open").capture.start()


def test_a_new_list_of_inputs_does_not_change_the_picture(rig: Rig) -> None:
    rig.listed = [SourceInfo("pattern:waves", "Waves"), SourceInfo("pattern:counter", "Counter")]
    assert rig.choose("1")
    rig.until(lambda: rig.shown == "pattern:counter", "the second of the list is not shown")
    rig.listed = rig.listed[::-1]
    rig.goes_on(10)
    assert rig.shown == "pattern:counter"
    rig.choose("1")
    rig.until(lambda: rig.shown == "pattern:waves", "the second of the new list is not shown")
