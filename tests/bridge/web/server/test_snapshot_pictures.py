"""The pictures of snapshots over HTTP: from the page's own server, and cached by their version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.control.snapshot_commands import COLORS
from tests.bridge.web.server.test_security import HTTP
from tests.support.browser import wait
from tests.support.web_stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(folder=tmp_path) as running:
        yield running


def test_a_picture_is_served_with_its_version_and_asked_for_once(stage: Stage) -> None:
    url = stage.web.url

    def versions() -> dict[str, str]:
        found: dict[str, str] = HTTP.get(url + "api/state").json()["snapshot_pictures"]
        return found

    wait(lambda: stage.newest is not None, "a picture")
    for number in (1, 12):
        stage.store.handle("/tidecast/snapshot/save", (number,))
    wait(lambda: set(versions()) == {"1", "12"}, "both pictures")
    version = versions()["12"]
    answer = HTTP.get(f"{url}api/snapshots/12.jpg", params={"v": version})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert stage.kept is not None and answer.content == stage.kept.pictures()[12]
    assert "immutable" in answer.headers["cache-control"] and answer.headers["etag"] == f'"{version}"'
    old = HTTP.get(f"{url}api/snapshots/12.jpg", params={"v": "of another picture"})
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")
    unchanged = HTTP.get(f"{url}api/snapshots/12.jpg", headers={"if-none-match": answer.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    stage.store.handle("/tidecast/snapshot/delete", (12,))
    wait(lambda: set(versions()) == {"1"}, "the picture to be gone")
    for number in ("12", "2", "0", "-1", "x", "9" * 5000, "..%2f1"):
        assert HTTP.get(f"{url}api/snapshots/{number}.jpg").status_code == 404


def test_colours_are_told_and_offered(stage: Stage) -> None:
    url = stage.web.url
    assert tuple(HTTP.get(url + "api/table").json()["about"]["colors"]) == COLORS
    stage.store.handle("/tidecast/snapshot/save", (3,))
    HTTP.post(url + "api/send", json={"address": "/tidecast/snapshot/color", "args": [3, "purple"]})
    wait(lambda: HTTP.get(url + "api/state").json()["snapshot_colors"] == {"3": "purple"}, "the colour")
