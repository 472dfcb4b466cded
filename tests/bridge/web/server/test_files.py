"""The choice of a file: who may look, what is shown, and that neither much nor a dead folder holds up the server."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bridge.control.origin import Trust, trust_of
from bridge.video.address import parse_uri
from bridge.web.server import folders
from bridge.web.server.files import MAX_THREADS, Files, Worker
from bridge.web.server.folders import find_file, list_folder, local_path, places
from engine.errors import ControlError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions as on POSIX")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own with videos and downloads."""
    for name in [*os.environ]:
        if name.startswith("XDG_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("Videos", "Downloads"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def videos(home: Path) -> Path:
    folder = home / "Videos"
    (folder / "Tour").mkdir()
    (folder / ".hidden").mkdir()
    for name, size in (("b.MP4", 2000), ("A.png", 10), ("notes.txt", 5), (".x.mp4", 5)):
        (folder / name).write_bytes(b"x" * size)
    return folder


def asked(path: str, message: Any, host: str = "127.0.0.1", present: str = "") -> httpx.Response:
    """The answer to one request of a peer at this address."""

    async def ask() -> httpx.Response:
        app = Starlette(routes=Files(lambda: present).routes())
        transport = httpx.ASGITransport(app, client=(host, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(path, json=message)

    return asyncio.run(ask())


def test_folders_come_first_then_videos_and_pictures_and_nothing_hidden(videos: Path) -> None:
    found = list_folder(str(videos))
    assert [(e.name, e.kind, e.size) for e in found.entries] == [
        ("Tour", "folder", None),
        ("A.png", "file", 10),
        ("b.MP4", "file", 2000),
    ]
    assert (found.folder, found.parent, found.cut) == (str(videos), str(videos.parent), False)
    assert parse_uri(f"file:{found.entries[2].path}") == ("file", str(videos / "b.MP4"))
    assert [e.name for e in list_folder(str(videos), "B.m").entries] == ["b.MP4"]


def test_loras_are_chosen_among_their_own_files_and_begin_with_the_downloads(home: Path) -> None:
    for name in ("ink.safetensors", "old.PT", "clip.mp4", "notes.txt"):
        (home / "Downloads" / name).write_bytes(b"x")
    found = asked("/api/files", {"folder": "", "kind": "lora"}, present=f"file:{home}/Videos/x.mp4").json()
    assert found["folder"] == str(home / "Downloads")
    assert [entry["name"] for entry in found["entries"]] == ["ink.safetensors", "old.PT"]
    refused = asked("/api/files", {"folder": "", "kind": "passwords"})
    assert refused.status_code == 400 and "no kind of file" in refused.json()["error"]


@POSIX
def test_it_begins_with_the_folder_of_the_present_file_else_the_videos(videos: Path, home: Path) -> None:
    assert list_folder("").folder == str(videos)
    assert list_folder("", "", "pattern:bars").folder == str(videos)
    assert list_folder("", "", f"file:{home}/Downloads/x.mp4").folder == str(home / "Downloads")
    assert list_folder("", "", '"~/Downloads/x.mp4"').folder == str(home / "Downloads")
    names = [place.name for place in places(f"{home}/Downloads/x.mp4")]
    assert names == ["Home", "Videos", "Downloads", folders.PRESENT]
    assert list_folder("~/Videos/Tour/..").folder == str(videos)


@POSIX
def test_links_are_shown_as_what_they_are(videos: Path) -> None:
    (videos / "Tour" / "there.mp4").symlink_to(videos / "b.MP4")
    (videos / "Tour" / "away").symlink_to(videos)
    (videos / "Tour" / "gone.mp4").symlink_to(videos / "nothing.mp4")
    (videos / "Tour" / "circle.mp4").symlink_to(videos / "Tour" / "circle.mp4")
    os.mkfifo(videos / "Tour" / "pipe.mp4")
    found = {entry.name: (entry.kind, entry.link, entry.size) for entry in list_folder(str(videos / "Tour")).entries}
    assert found == {
        "away": ("folder", True, None),
        "there.mp4": ("file", True, 2000),
        "gone.mp4": ("broken", True, None),
        "circle.mp4": ("broken", True, None),
    }


@POSIX
def test_a_name_that_is_no_text_is_left_out(videos: Path) -> None:
    with open(os.fsencode(videos) + b"/\xff.mp4", "wb"):
        pass
    answer = asked("/api/files", {"folder": str(videos)})
    assert answer.status_code == 200 and len(answer.json()["entries"]) == 3


def test_an_answer_is_cut_and_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_ENTRIES", 3)
    monkeypatch.setattr(folders, "MAX_SCANNED", 8)
    folder = home / "many"
    folder.mkdir()
    for at in range(3):
        (folder / f"{at}.mp4").touch()
    assert not list_folder(str(folder)).cut
    (folder / "3.mp4").touch()
    assert list_folder(str(folder)).cut and len(list_folder(str(folder)).entries) == 3
    for at in range(8):
        (folder / f"{at}.txt").touch()
    assert list_folder(str(folder), "no such name").cut, "not all of it was looked at"


@pytest.mark.parametrize("folder", [r"\\host\share", "//host/share", r"\\.\pipe\x", "x\0y", "/x" * 1000])
def test_other_machines_and_nonsense_are_refused_before_anything_is_touched(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"looked at {path}"))
    monkeypatch.setattr(os, "stat", lambda path: pytest.fail(f"looked at {path}"))
    with pytest.raises(ControlError, match=r"on another machine|no path of a folder"):
        local_path(folder)
    with pytest.raises(ControlError), monkeypatch.context() as patched:
        patched.setattr(folders, "places", lambda present="": ())
        list_folder(folder)


@POSIX
@pytest.mark.parametrize(
    ("name", "says"), [("nothing", "There is no folder"), ("a.mp4", "no folder"), ("x", "may not")]
)
def test_what_cannot_be_read_is_said(home: Path, name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "a.mp4").touch()
    (home / "x").mkdir()

    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied")

    if name == "x":  # the tests may run as root, who may read everything
        monkeypatch.setattr(os, "scandir", refuse)
    answer = asked("/api/files", {"folder": str(home / name)})
    assert answer.status_code == 400 and says in answer.json()["error"] and answer.json()["remedy"]


def test_only_pages_on_this_machine_see_anything(videos: Path) -> None:
    assert trust_of("192.168.1.9") is Trust.NETWORK
    for path, message in (
        ("/api/files", {"folder": str(videos)}),
        ("/api/files", {"folder": "../" * 20}),
        ("/api/files/find", {"name": "b.MP4", "size": 2000}),
    ):
        answer = asked(path, message, "192.168.1.9")
        assert answer.status_code == 403 and "on this machine only" in answer.json()["error"]
        assert "b.MP4" not in answer.text
        assert asked(path, message).status_code == 200


@pytest.mark.parametrize("message", [[], 3, {"folder": 3}, {"folder": "/", "find": {}}, "x"])
def test_bad_messages_are_answered_with_a_reason(message: Any) -> None:
    answer = asked("/api/files", message)
    assert answer.status_code == 400 and "not understood" in answer.json()["error"]
    assert asked("/api/files/find", {"name": "a.mp4", "size": True}).status_code == 400


@POSIX
def test_a_dropped_file_is_found_by_name_and_size_in_the_known_places_only(videos: Path, home: Path) -> None:
    (videos / "Tour" / "c.mp4").write_bytes(b"x" * 30)
    assert find_file("b.MP4", 2000) == str(videos / "b.MP4")
    assert find_file("b.MP4", 2001) == "" and find_file("c.mp4", 30) == ""
    assert find_file("c.mp4", 30, str(videos / "Tour")) == str(videos / "Tour" / "c.mp4")
    assert find_file("c.mp4", 30, "", f"file:{videos}/Tour/x.mp4") == str(videos / "Tour" / "c.mp4")
    for name in ("../Videos/b.MP4", "/etc/passwd", "", "a\nb.mp4", "notes.txt", ".."):
        with pytest.raises(ControlError):
            find_file(name, 5, str(videos))


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


def test_a_folder_that_does_not_answer_holds_up_nobody_and_no_more_than_a_few_threads(gate: threading.Event) -> None:
    async def look() -> None:
        worker = Worker(0.05)
        waiting = [asyncio.create_task(worker.run(gate.wait)) for _ in range(MAX_THREADS)]
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, ControlError) and "not answered" in result.message
        with pytest.raises(ControlError, match="Other folders"):
            await worker.run(lambda: 1)
        gate.set()
        while True:  # until the threads have noticed
            try:
                assert await worker.run(lambda: 1) == 1
                break
            except ControlError:
                await asyncio.sleep(0.01)
        with pytest.raises(ZeroDivisionError):
            await Worker().run(lambda: 1 // 0)

    asyncio.run(look())
