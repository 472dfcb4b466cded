"""What FFmpeg's drivers of each system are asked for; the system and its list of devices are stand-ins."""

from __future__ import annotations

import errno
import sys
from types import SimpleNamespace

import av
import pytest

from bridge.video.base import Options
from bridge.video.devices import camera, screen
from bridge.video.devices.live import Device, LiveSource
from engine.errors import TransportError

FOUND = {
    "avfoundation": [
        SimpleNamespace(name="0", description="FaceTime HD Camera", media_types=["video"]),
        SimpleNamespace(name="1", description="Capture screen 0", media_types=["video"]),
        SimpleNamespace(name="0", description="MacBook Microphone", media_types=["audio"]),
    ],
    "dshow": [SimpleNamespace(name="@device_pnp_1", description="Logi C920", media_types=["video"])],
}


@pytest.fixture(params=["darwin", "win32"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "platform", request.param)
    monkeypatch.setattr(av, "enumerate_input_devices", lambda driver: FOUND[driver])
    return str(request.param)


def device(source: LiveSource) -> Device:
    return source._device


def test_a_camera_is_opened_as_its_system_names_it(system: str) -> None:
    url, title = {"darwin": ("0:none", "FaceTime HD Camera"), "win32": ("video=@device_pnp_1", "Logi C920")}[system]
    driver = {"darwin": "avfoundation", "win32": "dshow"}[system]
    for name in ("", "0", title, title.lower(), title[:4]):
        assert device(camera.source(name, Options(fps=30))) == Device(driver, url, {"framerate": "30"})
    assert [found.title for found in camera.sources(Options())] == [title], "neither screens nor microphones"
    with pytest.raises(TransportError, match=r"no camera '7'.*0 \(" + title):
        camera.source("7", Options())


def test_a_camera_that_may_not_be_listed_says_what_to_allow(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> list[SimpleNamespace]:
        raise OSError("not permitted")

    monkeypatch.setattr(av, "enumerate_input_devices", refuse)
    with pytest.raises(TransportError, match=r"not permitted.*Allow this program to use the camera"):
        camera.devices()


def test_windows_opens_a_camera_by_its_name_where_it_lists_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's dshow gives up the whole list with an I/O error where there is no microphone (or no camera)."""

    def nothing(_: str) -> list[SimpleNamespace]:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(av, "enumerate_input_devices", nothing)
    assert camera.sources(Options()) == []
    assert device(camera.source("Logi C920", Options())) == Device("dshow", "video=Logi C920", {})
    for name in ("", "0"):
        with pytest.raises(TransportError, match=r"without a microphone.*camera:NAME"):
            camera.source(name, Options())


@pytest.mark.parametrize("name", ["", "1"])
def test_a_screen_is_opened_as_its_system_names_it(system: str, name: str) -> None:
    expected = {
        "darwin": Device(
            "avfoundation", f"Capture screen {name or 0}:none", {"framerate": "25", "capture_cursor": "1"}
        ),
        "win32": Device("gdigrab", name or "desktop", {"framerate": "25"}),
    }
    assert device(screen.source(name, Options(fps=25))) == expected[system]
