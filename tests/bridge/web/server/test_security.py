"""Strangers at the control room's port: other origins, rebound names, missing tokens, paths, floods, garbage."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from bridge.web.access import qr_text
from bridge.web.server.application import MAX_SOCKETS, MAX_SOCKETS_PER_ADDRESS
from bridge.web.server.attempts import TRIES
from bridge.web.server.guard import host_name
from bridge.web.server.json_requests import MAX_MESSAGE
from tests.support.browser import wait
from tests.support.web_stage import Stage

OTHERS = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no other loopback address unless it is added")


def client() -> httpx.Client:
    """For plain HTTP, a new connection each time; loading the world's certificates takes longer than a request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(verify=False, trust_env=False, timeout=30.0, limits=limits)


HTTP = client()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture
def url(stage: Stage) -> str:
    return stage.web.url


def socket_url(url: str, path: str = "api/socket") -> str:
    return url.replace("http", "ws").split("?")[0] + path


def serves(stage: Stage) -> bool:
    """Whether a page can still drive the show."""
    wanted = round(random.uniform(0.1, 0.9), 3)
    answer = HTTP.post(stage.web.url + "api/set", json={"strength": wanted})
    wait(lambda: stage.store.snapshot.value("strength") == wanted, "the control to arrive")
    return answer.json() == {"strength": wanted}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9001", "127.0.0.1.evil.example", "", "a b", "[::1", "localhost@evil.example"]
)
def test_rebound_host_names_are_refused(url: str, host: str) -> None:
    assert HTTP.get(url, headers={"host": host}).status_code in (400, 421)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost:1", "http://127.0.0.1", "file://"]
)
def test_other_origins_cannot_act(stage: Stage, url: str, origin: str) -> None:
    before = stage.store.snapshot.value("strength")
    answer = HTTP.post(url + "api/set", json={"strength": 0.111}, headers={"origin": origin})
    assert answer.status_code == 403
    with pytest.raises(InvalidStatus) as refused, connect(socket_url(url), origin=origin):  # type: ignore[arg-type]
        pass
    assert refused.value.response.status_code == 403
    preview = socket_url(url, "api/preview")
    with pytest.raises(InvalidStatus), connect(preview, origin=origin):  # type: ignore[arg-type]
        pass
    assert stage.store.snapshot.value("strength") == before


def test_other_sites_cannot_embed(url: str) -> None:
    for mode, dest in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")):
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        assert HTTP.get(url + "api/state", headers=headers).status_code == 403


def test_no_answer_permits_other_origins_and_all_carry_the_policy(url: str) -> None:
    for path in ("", "api/table", "api/state", "static/main.js", "nothing"):
        answer = HTTP.get(url + path, headers={"accept": "text/html", "origin": url.rstrip("/")})
        assert "access-control-allow-origin" not in answer.headers
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_preflight_is_refused(url: str) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    assert HTTP.options(url + "api/set", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/%2e%2e/launcher.py",
        "/static//etc/passwd",
        "/static/..\\launcher.py",
        "/../../../../etc/passwd",
        "/static/%00index.html",
        "/static/",
        "/static/__init__.py",
        "/static/%c0%ae%c0%ae/launcher.py",
        "/api/picture/..%2f..%2fetc.jpg",
    ],
)
def test_paths_lead_nowhere_else(stage: Stage, path: str) -> None:
    answer = raw(stage.web.port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] in (b"404", b"400", b"403"), answer[:200]
    assert b"root:" not in answer and b"import" not in answer


def test_oversized_messages_are_refused(stage: Stage, url: str) -> None:
    answer = HTTP.post(url + "api/set", content=b" " * (MAX_MESSAGE + 1))
    assert answer.status_code == 400 and "bytes at most" in answer.json()["error"]
    with connect(socket_url(url)) as page, pytest.raises(ConnectionClosed) as closed:
        page.send("x" * (MAX_MESSAGE + 1))
        while True:
            page.recv(timeout=60)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
    assert raw(stage.web.port, "GET / HTTP/1.1\r\nX: " + "y" * 200_000).startswith(b"HTTP/1.1 4")
    assert serves(stage)


def test_a_prompt_of_20_kilobytes_arrives_whole(stage: Stage, url: str) -> None:
    words = "ein Wald im Herbst 🍂 " * 900
    assert len(words.encode()) > 20_000
    assert HTTP.post(url + "api/set", json={"prompt_2": words}).status_code == 200
    wait(lambda: stage.store.snapshot.value("prompt_2") == words, "the prompt")
    stage.store.set("prompt_2", "")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"[" * 20_000, "not JSON"),
        (b"[]", "object"),
        (b'{"nothing": 1}', "no control named"),
        (b'{"strength": "loud"}', "not a number"),
        (b'{"strength": {}}', "not a number"),
        (b'{"strength": NaN}', "not a"),
        (b'{"prompt_1": "\\ud800"}', "not JSON"),
    ],
)
def test_bad_requests_are_answered_with_a_reason(url: str, body: bytes, says: str) -> None:
    answer = HTTP.post(url + "api/set", content=body)
    assert answer.status_code == 400 and says in answer.text


def test_the_oscquery_tree_is_on_the_same_port(stage: Stage, url: str) -> None:
    stage.store.set("seed", 4711)
    wait(lambda: HTTP.get(url + "tidecast/seed?VALUE").json() == {"VALUE": [4711]}, "the value in the tree")
    assert HTTP.get(url).json()["CONTENTS"].keys() == {"tidecast"}
    assert HTTP.get(url + "?HOST_INFO").json()["OSC_PORT"] == 9000
    page = HTTP.get(url, headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    with connect(socket_url(url, "")) as client:
        client.send(json.dumps({"COMMAND": "LISTEN", "DATA": "/tidecast/steps"}))
        stage.store.set("steps", 4)
        news = b""
        while not news.endswith((4).to_bytes(4, "big")):
            news = client.recv(timeout=60)
        assert news.startswith(b"/tidecast/steps\0")
    with pytest.raises(InvalidStatus), connect(socket_url(url, ""), origin="http://evil.example"):  # type: ignore[arg-type]
        pass
    stage.store.set_many({"steps": 2, "seed": 0})


def test_unknown_addresses_are_answered(url: str) -> None:
    assert HTTP.post(url + "api/send", json={"address": "/tidecast/nothing"}).status_code == 400
    with connect(socket_url(url)) as page:
        page.send(json.dumps({"address": "/tidecast/nothing", "args": [1]}))
        while True:
            news = json.loads(page.recv(timeout=60))
            if "replies" in news:
                break
        assert news["replies"][0]["address"] == "/error"


def test_a_pattern_with_countless_ways_to_match_is_answered(stage: Stage, url: str) -> None:
    """It kept the bridge busy for ever: no picture went out any more."""
    address = "/tidecast/" + "{,}" * 60 + "x"
    assert HTTP.post(url + "api/send", json={"address": address, "args": [1]}).status_code in (200, 400)
    with connect(socket_url(url)) as page:
        page.send(json.dumps({"address": address, "args": [1]}))
        while "replies" not in (news := json.loads(page.recv(timeout=60))):
            pass
        assert "at most 64 words" in news["replies"][0]["args"][1]
    assert serves(stage)


def test_fuzz_leaves_it_serving(stage: Stage, url: str) -> None:
    """2,000 random messages to the sockets and 200 random byte strings to the port."""
    dice = random.Random(5)
    seeds = [
        '{"address": "/tidecast/strength", "args": [0.5]}',
        '{"watch": ["output", "input"]}',
        '"drawn"',
        '{"ask": 1}',
        "null",
        "[[[[",
        '{"address": "/tidecast/*", "args": ["x"]}',
        '{"args": 3}',
        '{"address": 5}',
        '{"watch": [{}]}',
        '{"address": "/tidecast/seed", "args": [1e999]}',
        '{"address": "/tidecast/snapshot/save", "args": ["a"]}',
        '{"address": "/tidecast/prompt/1", "args": ["\\ud800"]}',
    ]
    for path in ("api/socket", "api/preview"):
        sent = 0
        while sent < 1000:
            with connect(socket_url(url, path), max_size=None) as page:
                try:
                    for _ in range(250):
                        text = list(dice.choice(seeds))
                        for _ in range(dice.randrange(4)):
                            text[dice.randrange(len(text))] = chr(dice.randrange(0x2FF))
                        payload = "".join(text)
                        page.send(payload if dice.random() > 0.004 else payload.encode())
                        sent += 1
                except ConnectionClosed:
                    continue
    for _ in range(150):
        raw(stage.web.port, os.urandom(dice.randrange(1, 400)), wait_for_answer=False)
    for _ in range(50):
        head = f"GET /api/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: {dice.random()}\r\nConnection: upgrade\r\n\r\n"
        raw(stage.web.port, head, wait_for_answer=False)
    assert serves(stage)


def test_the_number_of_sockets_is_bounded(stage: Stage, url: str) -> None:
    opened = 0
    with contextlib.ExitStack() as pages, pytest.raises(InvalidStatus):
        for _ in range(MAX_SOCKETS + 10):
            pages.enter_context(connect(socket_url(url, "api/preview")))
            opened += 1
    assert opened <= MAX_SOCKETS_PER_ADDRESS
    assert serves(stage)
    wait(lambda: _opens(url), "room for new pages")


@OTHERS
def test_one_address_cannot_take_the_sockets_of_all(stage: Stage, url: str) -> None:
    with contextlib.ExitStack() as pages:

        def opens(source: str) -> bool:
            peer = socket.create_connection(("127.0.0.1", stage.web.port), source_address=(source, 0))
            try:
                pages.enter_context(connect(socket_url(url, "api/preview"), sock=peer))  # says nothing unasked
            except InvalidStatus:
                return False
            return True

        assert sum(opens("127.0.0.2") for _ in range(MAX_SOCKETS)) == MAX_SOCKETS_PER_ADDRESS
        assert opens("127.0.0.1")
        assert sum(opens("127.0.0.3") for _ in range(MAX_SOCKETS)) == MAX_SOCKETS - MAX_SOCKETS_PER_ADDRESS - 1
        assert serves(stage)
    wait(lambda: _opens(url), "room for new pages")


@OTHERS
def test_silent_peers_and_floods_close_the_page_for_nobody(stage: Stage, url: str) -> None:
    """300 silent connections, a page that floods and one that never reads; a page elsewhere works as ever."""
    with contextlib.ExitStack() as peers:
        for _ in range(300):
            peers.enter_context(
                socket.create_connection(("127.0.0.1", stage.web.port), source_address=("127.0.0.2", 0))
            )
        flood = socket.create_connection(("127.0.0.1", stage.web.port), source_address=("127.0.0.2", 0))
        page = peers.enter_context(connect(socket_url(url), sock=flood))
        stop = threading.Event()

        def run() -> None:
            number = 0
            with contextlib.suppress(OSError, ConnectionClosed):
                while not stop.is_set():
                    number += 1
                    page.send(json.dumps({"address": "/tidecast/prompt/2", "args": [f"{number} " + "x" * 20_000]}))
                    page.send(json.dumps({"address": "/tidecast/prompt/*/weight", "args": [number]}))

        sending = threading.Thread(target=run, daemon=True)
        sending.start()
        try:
            before = stage.sent
            for _ in range(5):
                assert serves(stage)
            assert stage.sent > before
            with connect(socket_url(url)) as other:
                assert "controls" in json.loads(other.recv(timeout=60))
        finally:
            stop.set()
            flood.shutdown(socket.SHUT_RDWR)
            sending.join(60)
        assert not sending.is_alive()
    stage.store.set("prompt_2", "")


def test_a_message_that_ends_too_early_and_noise_leave_nothing_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    local = "Host: 127.0.0.1\r\n"
    with Stage() as stage:
        for said in (
            f"POST /api/set HTTP/1.1\r\n{local}Content-Length: 100\r\n\r\nhalf",
            "\x1b[2J\r\n\r\n",
            f"GET / HTTP/1.1\r\n{local}Connection: upgrade\r\nUpgrade: \x1b\r\n\r\n",
        ):
            for _ in range(3):
                raw(stage.web.port, said, wait_for_answer=False)
        assert serves(stage)
    assert "web:" not in capfd.readouterr().err


def test_an_open_port_needs_the_token(tmp_path: object) -> None:
    with Stage(host="0.0.0.0", token="s3cret-token") as stage:
        base = f"http://127.0.0.1:{stage.web.port}/"
        assert stage.web.url.endswith("/?token=s3cret-token") and "0.0.0.0" not in stage.web.url
        for path in ("", "api/state", "api/table", "static/main.js", "api/picture/output.jpg", "?token=wrong"):
            assert HTTP.get(base + path).status_code == 401, path
        assert HTTP.post(base + "api/set", json={"strength": 1}).status_code == 401
        for path in ("api/socket", "api/preview"):
            with pytest.raises(InvalidStatus), connect(socket_url(base, path)):
                pass
        with connect(socket_url(base) + "?token=s3cret-token") as page:
            assert "controls" in json.loads(page.recv(timeout=60))
        assert HTTP.get(base + "api/state", headers={"authorization": "Bearer s3cret-token"}).status_code == 200
        with client() as browser:
            opened = browser.get(base + "?token=s3cret-token", headers={"accept": "text/html"})
            assert opened.status_code == 303 and opened.headers["location"] == "/"
            cookie = opened.headers["set-cookie"]
            assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
            assert browser.get(base, headers={"accept": "text/html"}).status_code == 200
            other = {"origin": "http://evil.example"}
            assert browser.post(base + "api/set", json={"strength": 1}, headers=other).status_code == 403
        assert HTTP.get(base + "?token=s3cret-token", headers={"host": "evil.example"}).status_code == 421
        assert "█" in qr_text(stage.web.url) or "▄" in qr_text(stage.web.url)
        both = {"cookie": "tidecast_token=of-another-port; x=y; tidecast_token=s3cret-token"}
        assert HTTP.get(base + "api/state", headers=both).status_code == 200
        began = time.monotonic()
        for cookie in ('a="' + "\\" * 12_000 + '"', 'tidecast_token="' + '\\"' * 6000 + '"', ";=" * 6000):
            assert HTTP.get(base + "api/state", headers={"cookie": cookie}).status_code == 401
        assert time.monotonic() - began < 2.0, "one such cookie took minutes, token or not"


def test_tokens_cannot_be_tried_without_end() -> None:
    with Stage(host="0.0.0.0", token="s3cret-token") as stage:
        base = f"http://127.0.0.1:{stage.web.port}/api/state"
        with connect(socket_url(stage.web.url) + "?token=s3cret-token") as page:
            answers = [HTTP.get(base, params={"token": f"guess-{number}"}).status_code for number in range(100)]
            assert answers.count(401) <= TRIES + 3 and answers[-1] == 429
            assert HTTP.get(base, params={"token": "s3cret-token"}).status_code == 429
            page.send(json.dumps({"address": "/tidecast/strength", "args": [0.375]}))
            wait(lambda: stage.store.snapshot.value("strength") == 0.375, "the page that is open goes on")
        if sys.platform != "darwin":
            with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), trust_env=False) as other:
                assert other.get(base, params={"token": "s3cret-token"}).status_code == 200


def test_a_host_header_is_read_without_its_port() -> None:
    assert [host_name(h) for h in ("A.b:80", "[::1]:9", "x:y", "a/b")] == ["a.b", "::1", "", ""]


def raw(port: int, data: str | bytes, *, wait_for_answer: bool = True) -> bytes:
    """Send bytes to the port as they are; returns what came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        try:
            peer.sendall(data.encode("latin-1") if isinstance(data, str) else data)
            return peer.recv(65536) if wait_for_answer else b""
        except OSError:
            return b""


def _opens(url: str) -> bool:
    try:
        with connect(socket_url(url)):
            return True
    except InvalidStatus:
        return False
