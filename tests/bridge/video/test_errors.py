"""What a library raises reaches the rest of the program as a `TransportError` with a sentence."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from bridge.video.errors import MAX_CHARACTERS, foreign_errors, reason
from bridge.video.files import decode
from bridge.video.opening import availability_error, list_sources, open_sink, open_source
from bridge.video.textures.gl_thread import GlThread
from engine.errors import NameTakenError, TransportError
from tests.fakes import spoutgl
from tests.support import bad_transport
from tests.support.poisoned_inputs import POISONED


def test_a_reason_is_one_short_line() -> None:
    assert reason(OSError(28, "No space left on device")) == "no space left on device"
    assert reason(RuntimeError("Two\nlines.  ")) == "two lines"
    assert reason(ValueError()) == "ValueError"
    assert reason(RuntimeError("NDI is gone")) == "NDI is gone"
    assert len(reason(RuntimeError("x" * 10**6))) == MAX_CHARACTERS


def test_errors_of_the_program_stay_as_they_are() -> None:
    with pytest.raises(NameTakenError), foreign_errors("It cannot be opened"):
        raise NameTakenError("taken")
    with pytest.raises(TransportError) as caught, foreign_errors("It cannot be opened", "Look."):
        raise IndexError("Index out of range.")
    assert str(caught.value) == "It cannot be opened: index out of range. Look."


@pytest.mark.parametrize("make", [open_source, open_sink])
def test_whatever_opening_raises_is_mapped_and_what_was_opened_is_closed(make, monkeypatch) -> None:
    closed = []
    for made in (bad_transport.BadSource, bad_transport.BadSink):
        monkeypatch.setattr(made, "close", lambda self: closed.append(self))
    with bad_transport.registered(), pytest.raises(TransportError, match="bad:open cannot be opened: a defect in open"):
        make("bad:open")
    assert len(closed) == 1


def test_a_graphics_library_that_raises_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object) -> bool:
        raise RuntimeError("no OpenGL")

    monkeypatch.setitem(sys.modules, "SpoutGL", spoutgl)
    before = threading.active_count()
    for name, make in (("SpoutReceiver", open_source), ("SpoutSender", open_sink)):
        monkeypatch.setattr(getattr(spoutgl, name), "createOpenGL", fails)
        with pytest.raises(TransportError, match="no OpenGL"):
            make("spout:x")
    assert threading.active_count() == before


def test_what_runs_on_a_graphics_thread_raises_a_transport_error() -> None:
    thread = GlThread("Spout list")
    try:
        with pytest.raises(TransportError, match="Spout list failed: no context"):
            thread.do(lambda: (_ for _ in ()).throw(RuntimeError("no context")))
        assert thread.do(lambda: 7) == 7
    finally:
        thread.close()


def test_a_transport_that_raises_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> list[object]:
        raise OSError("no bus")

    with bad_transport.registered():
        monkeypatch.setattr(bad_transport, "sources", fails, raising=False)
        assert "pattern:bars" in [source.uri for source in list_sources(("bad", "pattern"))]
        monkeypatch.setattr(bad_transport, "require", fails, raising=False)
        assert str(availability_error("bad")) == "bad: cannot be used: no bus."


def test_a_video_of_more_than_the_largest_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = next(p for p in POISONED if p.name == "a video of two points").make(tmp_path)
    monkeypatch.setattr(decode, "MAX_PIXELS", 3)
    with pytest.raises(TransportError, match=r"tiny\.mp4"):
        open_source(address)
