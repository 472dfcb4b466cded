"""Spout in and out, where the real library behaves in a way that has to be caught. See `test_spout_library`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bridge.video.base import Source
from bridge.video.names import MAX_SPOUT_NAME
from bridge.video.opening import limits, list_sources, open_sink, open_source
from bridge.video.textures import adapters, spout
from engine.errors import NameTakenError, TransportError
from engine.frame import Frame
from tests.fakes import spoutgl
from tests.support.video_peers import solid, unique


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "SpoutGL", spoutgl)
    yield
    assert spoutgl.contexts == 0, "a GL context was left open"


def until(source: Source, wanted: Callable[[Frame], bool]) -> Frame:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        frame = source.read(0.05)
        if frame is not None and wanted(frame):
            return frame
    raise AssertionError(f"it did not come; {source.problem}")


def test_a_name_is_taken_before_the_first_picture() -> None:
    name = unique("early")
    with open_sink(f"spout:{name}"):
        with pytest.raises(NameTakenError, match="already called") as caught:
            open_sink(f"spout:{name}")
        assert f"{name} 2" in caught.value.remedy
        assert f"spout:{name}" in [source.uri for source in list_sources(("spout",))]


def test_the_list_has_the_sizes() -> None:
    name = unique("sized")
    with open_sink(f"spout:{name}") as sink:
        sink.send(solid((1, 2, 3)))
        [found] = [source for source in list_sources(("spout",)) if source.title == name]
    assert (found.width, found.height) == (64, 48)


def test_the_name_of_a_sender_that_was_killed_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("killed")
    monkeypatch.setattr(spoutgl, "dead_names", {name})
    with open_sink(f"spout:{name}"):
        assert spoutgl.SpoutReceiver().getSenderInfo(name) is not None


@pytest.mark.parametrize("name", ["x" * (MAX_SPOUT_NAME + 1), "é" * (MAX_SPOUT_NAME // 2 + 1)])
@pytest.mark.parametrize("make", [open_source, open_sink])
def test_a_name_that_would_end_the_program_is_refused(make: Callable[[str], object], name: str) -> None:
    with pytest.raises(TransportError, match="bytes"):
        make(f"spout:{name}")


def test_a_sender_on_another_adapter_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("other adapter")
    monkeypatch.setattr(spoutgl, "other_adapter", {name})
    with open_sink(f"spout:{name}"):
        for wanted in (name, ""):
            with open_source(f"spout:{wanted}") as source:
                assert source.read(0.01) is None and not source.connected
                assert repr(name) in source.problem and "graphics adapter" in source.problem
    with open_source(f"spout:{name}") as source:
        assert source.read(0.01) is None and source.problem == f"Waiting for the Spout sender {name!r}."


def test_a_sender_that_comes_back_on_another_adapter_shows_no_old_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("moved")
    with open_sink(f"spout:{name}") as sink, open_source(f"spout:{name}") as source:
        sink.send(solid((9, 9, 9)))
        until(source, lambda frame: frame.width == 64)
        monkeypatch.setattr(spoutgl, "other_adapter", {name})
        assert [source.read(0.02) for _ in range(3)] == [None] * 3


def test_where_frames_are_not_counted_one_picture_is_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spout, "_STILL_S", 3600.0)
    name = unique("not counted")
    with open_sink(f"spout:{name}") as sink, open_source(f"spout:{name}") as source:
        for number in range(3):
            sink.send(solid((number + 1, 0, 0)))
            until(source, lambda frame, number=number: frame.rgb()[0, 0, 0] == number + 1)
            assert [source.read(0.01) for _ in range(3)] == [None] * 3
        monkeypatch.setattr(spout, "_STILL_S", 0.0)  # a picture that does not change is shown all the same
        assert source.read(0.05) is not None and source.connected


def test_a_sender_that_never_signals_does_not_keep_the_receiver_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spout, "_STILL_S", 3600.0)
    monkeypatch.setattr(spoutgl.SpoutSender, "setFrameSync", lambda self, name: None)
    looks = []
    received = spoutgl.SpoutReceiver.receiveImage
    monkeypatch.setattr(spoutgl.SpoutReceiver, "receiveImage", lambda *given: (looks.append(0), received(*given))[1])
    name = unique("silent")
    with open_sink(f"spout:{name}") as sink, open_source(f"spout:{name}") as source:
        sink.send(solid((5, 5, 5)))
        until(source, lambda frame: frame.width == 64)
        looks.clear()
        assert source.read(0.1) is None
    assert len(looks) <= 0.1 / spout._PAUSE_S + 2


def test_a_foreign_name_does_not_stop_an_output_and_is_named(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(spoutgl, "foreign_names", [b"Caf\xe9"])
    with open_sink(f"spout:{unique('beside')}"), pytest.raises(NameTakenError):
        open_sink(f"spout:{spoutgl.SpoutReceiver().getActiveSender()}")
    assert list_sources(("spout",)) == [] and "Café" in caplog.text


def test_pictures_through_main_memory_are_reported(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    assert limits("spout") == () == limits("pattern")
    monkeypatch.setattr(spoutgl, "through_memory", True)
    [(found, remedy)] = limits("spout")
    assert "main memory" in found and "Graphics" in remedy
    with open_sink(f"spout:{unique('slow')}"):
        assert "main memory" in caplog.text


def test_two_adapters_are_reported_with_what_they_mean() -> None:
    [(found, remedy)] = adapters.limits(False, ("Intel UHD", "NVIDIA RTX 4060"))
    assert "2 graphics adapters (Intel UHD, NVIDIA RTX 4060)" in found and sys.executable in remedy
    assert adapters.limits(False, ("Intel UHD",)) == ()
    assert adapters.names() == () or sys.platform == "win32"


def test_a_picture_that_is_refused_at_the_start_closes_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoutgl.SpoutSender, "sendImage", lambda *given: False)
    with pytest.raises(TransportError, match="did not take"):
        open_sink("spout:refused")


def test_the_first_picture_is_black() -> None:
    name = unique("black")
    with open_sink(f"spout:{name}"), open_source(f"spout:{name}") as source:
        assert np.array_equal(until(source, lambda frame: True).pixels[0, 0], (0, 0, 0, 255))
