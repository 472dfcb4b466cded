"""Show files over HTTP: download, check, replacement, and what is refused before the bridge process hears of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from bridge.control.origin import Trust
from bridge.show.show_file import MAX_BYTES
from bridge.table import TABLE
from bridge.web.messages import OpenShow, SaveShow, ShowAnswer
from bridge.web.server.json_requests import MAX_MESSAGE
from bridge.web.server.show_api import MAX_AT_ONCE, ShowApi
from tests.bridge.web.server.test_security import HTTP
from tests.support.browser import wait
from tests.support.web_stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(folder=tmp_path) as running:
        yield running


def show(**changes: Any) -> bytes:
    whole = {"tidecast": "show", "version": 1, "program": "0.0.1", "controls": {"mix": 0.5}, "midi": []}
    return json.dumps({**whole, "snapshots": {"7": {"mix": 0.25, "as": "Storm"}}, **changes}).encode()


def test_a_show_is_downloaded_checked_and_opened_at_once(stage: Stage) -> None:
    url, kept = stage.web.url + "api/show", stage.kept
    assert kept is not None
    wait(lambda: stage.newest is not None, "a picture on air")
    kept.save(3)
    wait(kept.pictures, "the picture")
    saved = HTTP.get(url)
    assert saved.status_code == 200 and saved.json()["snapshots"]["3"]["pad-picture"]
    assert saved.headers["content-disposition"] == 'attachment; filename="show.tidecast"'
    checked = HTTP.post(url, params={"check": 1}, content=show())
    expected = {"program": "0.0.1", "snapshots": 1, "bindings": 0, "controls": 1}
    assert (checked.status_code, checked.json()) == (200, expected)
    assert kept.numbers() == (3,) and stage.store.snapshot.value("mix") == 1.0, "a check changes nothing"
    large = show(snapshots={"7": {"as": "Storm", "prompt_1": "x" * MAX_MESSAGE}})
    assert HTTP.post(url, content=large).json() == expected, "longer than other bodies may be"
    assert kept.names() == {7: "Storm"} and stage.store.snapshot.value("mix") == 0.5
    wait(lambda: HTTP.get(stage.web.url + "api/state").json()["snapshot_names"] == {"7": "Storm"}, "the page to know")
    assert HTTP.post(url, content=saved.content).status_code == 200, "what was saved can be opened"
    assert kept.numbers() == (3,) and kept.pictures()
    assert HTTP.post(stage.web.url + "api/set", content=b" " * (MAX_MESSAGE + 1)).status_code == 400


def test_what_is_refused_says_why_and_changes_nothing(stage: Stage) -> None:
    url, kept = stage.web.url + "api/show", stage.kept
    assert kept is not None
    kept.save(3)
    before = stage.store.values(), kept.all()
    for body, status, words in (
        (b"", 400, "not a show"),
        (show(controls={"black": True}), 400, "A show does not set black"),
        (show() + b" " * MAX_BYTES, 413, f"{MAX_BYTES} bytes at most"),
    ):
        answer = HTTP.post(url, content=body)
        assert answer.status_code == status and words in answer.json()["error"] and answer.json()["remedy"]
    stage.store.restrict("mix", _no)
    answer = HTTP.post(url, params={"check": 1}, content=show())
    assert answer.status_code == 400 and "Controls: 'none' is not a number" in answer.json()["error"]
    assert HTTP.post(url, content=show(), headers={"origin": "http://evil.example"}).status_code == 403
    assert HTTP.put(url, content=show()).status_code == 405
    assert (stage.store.values(), kept.all()) == before


def _no(value: Any, origin: Any) -> Any:
    """A rule that allows nothing."""
    return TABLE.by_name["steps"].coerce("none")


def test_without_a_show_the_answer_says_so() -> None:
    with Stage() as stage:
        answer = HTTP.get(stage.web.url + "api/show")
        assert answer.status_code == 503 and "no show" in answer.json()["error"]


def asked(peer: str, ask: Any, requests: int = 1, body: bytes = b"") -> list[httpx.Response]:
    """The answers to requests of one peer, made at the same time to an endpoint that asks the bridge process so."""

    async def all_of_them() -> list[httpx.Response]:
        api = ShowApi(TABLE, lambda message: ask(api, message))
        app = Starlette(routes=[Route("/s", api.save), Route("/s", api.open, methods=["POST"])])
        transport = httpx.ASGITransport(app, client=(peer, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            make = (lambda: client.post("/s", content=body)) if body else (lambda: client.get("/s"))
            return list(await asyncio.gather(*(make() for _ in range(requests))))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize(("peer", "trust"), [("127.0.0.1", Trust.MACHINE), ("192.0.2.7", Trust.NETWORK)])
def test_the_bridge_process_is_told_how_far_the_sender_is_trusted(peer: str, trust: Trust) -> None:
    heard: list[OpenShow] = []

    def ask(api: ShowApi, message: OpenShow) -> None:
        heard.append(message)
        api.answered(ShowAnswer(message.number, error="No.", remedy="Never."))
        api.answered(ShowAnswer(message.number + 1, b"of nobody"))

    (answer,) = asked(peer, ask, body=show())
    assert (answer.status_code, answer.json()) == (400, {"error": "No.", "remedy": "Never."})
    assert [(m.origin.trust, m.replace, m.data) for m in heard] == [(trust, True, show())]


def test_four_at_a_time_and_no_more() -> None:
    waiting: list[SaveShow] = []

    def ask(api: ShowApi, message: SaveShow) -> None:
        waiting.append(message)
        if len(waiting) == MAX_AT_ONCE:
            for one in waiting:
                api.answered(ShowAnswer(one.number, b"{}"))

    answers = asked("127.0.0.1", ask, MAX_AT_ONCE + 3)
    assert sorted(a.status_code for a in answers) == [200] * MAX_AT_ONCE + [503] * 3


def test_a_bridge_process_that_does_not_answer_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.web.server.show_api.ANSWER_S", 0.05)
    (answer,) = asked("127.0.0.1", lambda api, message: None)
    assert answer.status_code == 503 and "does not answer" in answer.json()["error"]
