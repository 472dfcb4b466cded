"""Addresses are judged without opening anything: what can never be opened is refused, and who may choose what."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from bridge.control.store import ControlStore
from bridge.table import TABLE
from bridge.video import table
from bridge.video.address import MAX_CHARACTERS, OpenedBy, check_input, opened_by, parse_uri
from bridge.video.names import PATTERN_NAMES
from bridge.video.opening import open_source
from bridge.video.synthetic.pattern import PATTERNS
from engine.errors import ControlError, TransportError

NEVER = {
    "no transport": ("studio", "names no video transport"),
    "another program's transport": ("rtsp://192.168.1.9/live", "names no video transport"),
    "no name of a file": ("file:", "needs a path"),
    "a file name of 256 bytes": ("file:/tmp/" + "x" * 252 + ".mp4", "has 256 bytes"),
    "a file name of 256 bytes in other letters": ("file:" + "ж" * 128, "has 256 bytes"),
    "a path that is too long": ("file:" + "/x" * MAX_CHARACTERS, "1024 at most"),
    "a NUL": ("file:/tmp/a\0b.mp4", "control characters"),
    "a line break": ("ndi:A\nB", "control characters"),
    "a device that is no camera": ("camera:/dev/watchdog", "not the device file of a camera"),
    "a device behind a camera": ("camera:/dev/video0/../watchdog", "not the device file of a camera"),
    "no such picture": ("pattern:nothing", "bars, counter"),
}
LINUX_ONLY = {"a file name of 256 bytes", "a file name of 256 bytes in other letters"}


@pytest.mark.parametrize("name", NEVER)
def test_what_can_never_be_opened_is_refused_by_the_control_and_by_the_command_line(name: str) -> None:
    if name in LINUX_ONLY and os.name != "posix":
        pytest.skip("counted in bytes on Linux")
    uri, why = NEVER[name]
    store = ControlStore(TABLE)
    with pytest.raises(ControlError, match=why) as refused:
        store.set("input", uri)
    assert refused.value.address == "/tidecast/input" and len(str(refused.value)) < 300
    assert store.snapshot.value("input") == ""
    with pytest.raises(TransportError, match=why):
        open_source(uri)


@pytest.mark.parametrize("index", ["5" * 5000, "10000", "٣" * 5])
def test_an_index_of_too_many_digits_is_refused(index: str) -> None:
    with pytest.raises(ControlError, match="no input number"):
        ControlStore(TABLE).set("input", index)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "0", "9999", 3, "ndi:STUDIO (OBS 1)", "NDI:*", "ndi:", "spout:", "camera:", "camera:1", "null:"),
        *("camera:/dev/video10", "camera:/dev/v4l/by-id/usb-Cam_1-index0", "screen:", "screen::0.0+10,20"),
        *(
            "file:~/x.mp4",
            "file:~nobody/x.mp4",
            "file:C:\\clips\\x.mp4",
            "file:" + "x" * 255,
            "pattern:",
            "pattern:dance",
        ),
    ],
)
def test_what_may_be_there_one_day_is_accepted(value: Any) -> None:
    ControlStore(TABLE).set("input", value)


def test_checking_touches_neither_disk_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"touched {args}")

    for owner, name in ((os, "stat"), (os, "lstat"), (os, "open"), (os.path, "exists"), (os.path, "expanduser")):
        monkeypatch.setattr(owner, name, touched)
    for name in ("exists", "is_file", "expanduser", "resolve", "stat"):
        monkeypatch.setattr(Path, name, touched)
    monkeypatch.setattr(socket, "socket", touched)
    monkeypatch.setattr(socket, "getaddrinfo", touched)
    for uri in (
        "file:\\\\host\\share\\x.mp4",
        "file://host/share/x.mp4",
        "file:~nobody/x.mp4",
        "screen:host:1",
        "ndi:x",
    ):
        check_input(uri)
        opened_by(uri)


@pytest.mark.parametrize(
    ("uri", "who"),
    [
        ("pattern:bars", OpenedBy.ANYONE),
        ("null:", OpenedBy.ANYONE),
        ("ndi:STUDIO (OBS)", OpenedBy.ANYONE),
        ("spout:OBS", OpenedBy.ANYONE),
        ("syphon:OBS", OpenedBy.ANYONE),
        ("camera:", OpenedBy.LISTED),
        ("camera:/dev/video0", OpenedBy.LISTED),
        ("screen:", OpenedBy.ALLOWED),
        ("screen::1.0+10,20", OpenedBy.ALLOWED),
        ("file:/shows/a.mp4", OpenedBy.ALLOWED),
        ("file:///shows/a.mp4", OpenedBy.ALLOWED),
        ("FILE: C:\\shows\\a.mp4", OpenedBy.ALLOWED),
        ("file:\\\\host\\share\\a.mp4", OpenedBy.OPERATOR),
        ("file: //host/share/a.mp4", OpenedBy.OPERATOR),
        ("file:/\\host/share/a.mp4", OpenedBy.OPERATOR),
        ("file:\\\\.\\pipe\\x", OpenedBy.OPERATOR),
        ("file:\\\\?\\UNC\\host\\share\\a.mp4", OpenedBy.OPERATOR),
    ],
)
def test_who_may_choose_an_input(uri: str, who: OpenedBy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert opened_by(uri) is who


@pytest.mark.parametrize("name", ["host:0", "10.0.0.7:0.0", "tcp/host:0", "[::1]:0", "host/unix:0"])
def test_a_display_of_another_machine_is_only_for_somebody_at_this_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert opened_by(f"screen:{name}") is OpenedBy.OPERATOR


def test_a_transport_of_ones_own_is_not_open_to_other_machines_unless_it_says_so() -> None:
    assert table.Transport("x", "x", "x", reads="x").opened_by is OpenedBy.ALLOWED


@pytest.mark.parametrize(
    "path",
    ["clip.mp4", "clips/a loop.mov", "/shows/one.mkv", "./x", "../x", "~/x", "C:\\clips\\one.mp4", "c:/one", "A.WEBM"],
)
def test_a_plain_path_is_a_file(path: str) -> None:
    assert parse_uri(path) == ("file", path)


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ('"C:\\My clips\\one.mp4"', "C:\\My clips\\one.mp4"),
        (" '~/a b.mov' ", "~/a b.mov"),
        ('file:"C:\\a.mp4"', "C:\\a.mp4"),
        ('"file:/a.mp4"', "/a.mp4"),
        ("file:'x'", "'x'"),
        ("a.PNG", "a.PNG"),
        ('"a', None),
    ],
)
def test_quotes_around_a_path_are_left_out(typed: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(TransportError):
            parse_uri(typed)
    else:
        assert parse_uri(typed) == ("file", path)
        ControlStore(TABLE).set("input", typed)


@pytest.mark.parametrize("typed", [r'"\\host\share\a.mp4"', r'file:"\\host\share"', '"//host/share"', "'//host/a.mp4'"])
def test_quotes_hide_no_path_to_another_machine(typed: str) -> None:
    assert opened_by(typed) is OpenedBy.OPERATOR


@pytest.mark.parametrize("text", ["clip", "x:y", "x:y/z", "x:clip.mp4", "hello.world", "3", ""])
def test_what_is_neither_an_address_nor_a_path_is_refused(text: str) -> None:
    with pytest.raises(TransportError, match="names no video transport"):
        parse_uri(text)


def test_a_plain_path_to_another_machine_is_only_for_somebody_at_this_one() -> None:
    assert opened_by("//stage/share/clip.mp4") is OpenedBy.OPERATOR
    assert opened_by("clips/one.mp4") is opened_by("file:clips/one.mp4")


def test_the_names_of_the_test_pictures_are_those_that_there_are() -> None:
    assert tuple(PATTERNS) == PATTERN_NAMES


def test_the_check_is_no_part_of_the_description_but_reaches_other_processes() -> None:
    control = TABLE.by_name["input"]
    assert "check" not in control.described()
    assert pickle.loads(pickle.dumps(TABLE)).by_name["input"].check is control.check
