"""The TCP port and the HTTP server that the page and OSCQuery share."""

from __future__ import annotations

import errno
import socket
import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bridge.control.oscquery.http import OscQueryServer
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.http_server import HttpServer
from bridge.listening import WSAEACCES, is_taken, listen
from bridge.table import TABLE
from engine.errors import ConfigError, PortInUseError


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def peer(request: Request) -> Response:
    assert request.client is not None
    return PlainTextResponse(request.client.host)


def serving(listening: socket.socket) -> HttpServer:
    return HttpServer("toy", Starlette(routes=[Route("/", peer)]), listening, max_message=1000)


def test_a_taken_port_and_a_foreign_address_are_different_errors() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"TCP port {port} is already in use.*--web-port"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.*--web-host"):
        listen("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="no such host"):
        listen("no such host", 0)


def test_windows_error_for_a_port_held_exclusively_means_taken() -> None:
    held = OSError(errno.EACCES, "not permitted")
    assert not is_taken(held)
    held.winerror = WSAEACCES  # type: ignore[attr-defined]
    assert is_taken(held)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_oscquery_listens_at_an_ipv6_address_as_the_page_does() -> None:
    server = OscQueryServer(ControlStore(TABLE), Telemetry(TABLE), ("::1", 9000), host="::1", port=0)
    with server:
        assert httpx.get(f"http://[::1]:{server.port}/?HOST_INFO", trust_env=False).json()["NAME"] == "Tidecast"


def test_a_server_runs_on_its_own_thread_believes_no_forwarded_address_and_frees_its_port() -> None:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = serving(listening)
    threads: list[str] = []
    server.loop.call_soon(lambda: threads.append(threading.current_thread().name))
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert client.get("/", headers={"x-forwarded-for": "192.0.2.7"}).text == "127.0.0.1"
    assert threads == ["toy"]
    server.stop()
    assert "toy" not in [thread.name for thread in threading.enumerate()] and server.loop.is_closed()
    listen("127.0.0.1", port).close()


def test_a_server_that_is_stopped_at_once_frees_its_port() -> None:
    for _ in range(5):
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        server = serving(listening)
        server.start()
        server.stop()
        assert server.loop.is_closed()
        listen("127.0.0.1", port).close()
