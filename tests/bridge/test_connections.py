"""What peers may use of an HTTP server: time, memory, work and places, with real sockets from several addresses."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from bridge.allowance import Allowance
from bridge.connections import Connections, Limits, address_key
from bridge.http_server import MAX_FRAGMENTS, MAX_HEAD, HttpServer
from bridge.listening import listen
from tests.support.browser import wait

QUICK = Limits(head_s=0.6, exchange_s=1.2, stall_s=0.6, closing_s=0.3)
"""Deadlines that a test can wait for."""

PATIENT = dataclasses.replace(QUICK, head_s=600.0, exchange_s=600.0, stall_s=600.0)
"""No deadline helps: only the places do."""

OTHERS = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no other loopback address unless it is added")
BIG = 32 * 1024 * 1024
UPGRADE = (
    b"GET /much HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def fine(request: Request) -> Response:
    return PlainTextResponse("fine")


async def refused(request: Request) -> Response:
    return PlainTextResponse("no", 401)


async def body(request: Request) -> Response:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        return PlainTextResponse("", 400)


async def big(request: Request) -> Response:
    return PlainTextResponse("x" * BIG)


class Toy:
    """A server with an open address, a forbidden one, and sockets that send much or echo."""

    def __init__(self, limits: Limits) -> None:
        self.sockets = 0
        self.echoed: list[str] = []
        routes = [
            Route("/", fine),
            Route("/no", refused),
            Route("/body", body, methods=["POST"]),
            Route("/big", big),
            WebSocketRoute("/much", self._much),
            WebSocketRoute("/echo", self._echo),
        ]
        self._listening = listen("127.0.0.1", 0) if sys.platform == "darwin" else listen("0.0.0.0", 0)
        self.port = self._listening.getsockname()[1]
        self._server = HttpServer("toy", Starlette(routes=routes), self._listening, max_message=1000, limits=limits)

    def __enter__(self) -> Toy:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()

    async def _much(self, client: WebSocket) -> None:
        await client.accept()
        self.sockets += 1
        sending = asyncio.create_task(self._send(client))
        try:
            while (await client.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self.sockets -= 1
            sending.cancel()

    async def _send(self, client: WebSocket) -> None:
        while True:
            await client.send_bytes(bytes(100_000))

    async def _echo(self, client: WebSocket) -> None:
        await client.accept()
        async for text in client.iter_text():
            self.echoed.append(text)
            await client.send_text(text)

    def get(self, path: str = "/", source: str = "127.0.0.1") -> httpx.Response:
        transport = httpx.HTTPTransport(local_address=source)
        with httpx.Client(transport=transport, trust_env=False, timeout=20.0) as client:
            return client.get(f"http://127.0.0.1:{self.port}{path}")

    def open(self, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        """A connection that has sent `data` and says no more."""
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))
        if data:
            peer.sendall(data)
        return peer


@pytest.fixture
def quick() -> Iterator[Toy]:
    with Toy(QUICK) as running:
        yield running


@pytest.fixture
def patient() -> Iterator[Toy]:
    with Toy(PATIENT) as running:
        yield running


def ended(peer: socket.socket) -> bool:
    """Whether the server has closed this connection; reads what came before."""
    peer.setblocking(False)
    try:
        while peer.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["silent", "half a head"])
@pytest.mark.parametrize("strangers", ["127.0.0.1", pytest.param("127.0.0.2", marks=OTHERS)])
def test_three_hundred_half_open_connections_close_the_page_for_nobody(
    patient: Toy, said: bytes, strangers: str
) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(patient.open(said, strangers)) for _ in range(300)]
        for _ in range(3):
            assert patient.get().text == "fine"
        with connect(f"ws://127.0.0.1:{patient.port}/echo") as page:
            page.send("hello")
            assert page.recv(timeout=60) == "hello"
        wait(lambda: sum(not ended(peer) for peer in peers) <= PATIENT.unproven, "the oldest to be closed")


@OTHERS
def test_many_addresses_with_many_connections_each_close_the_page_for_nobody(patient: Toy) -> None:
    with contextlib.ExitStack() as stack:
        for host in range(2, 22):
            for _ in range(16):
                stack.enter_context(patient.open(source=f"127.0.0.{host}"))
        assert patient.get().text == "fine"


@OTHERS
def test_an_address_that_floods_loses_its_own_connections(patient: Toy) -> None:
    """A browser opens connections ahead and stays silent on them for a while."""
    with patient.open(source="127.0.0.3") as ahead, contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(patient.open(source="127.0.0.2"))
        patient.get("/no", source="127.0.0.2")
        assert not ended(ahead)
        ahead.setblocking(True)
        ahead.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert ahead.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_that_are_refused_earn_no_place(patient: Toy) -> None:
    said = b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(patient.open(said)) for _ in range(200)]
        assert patient.get().text == "fine"
        wait(lambda: sum(not ended(peer) for peer in peers) <= PATIENT.unproven, "the oldest to be closed")


@OTHERS
def test_one_address_cannot_take_all_places_even_when_it_is_answered() -> None:
    with Toy(dataclasses.replace(PATIENT, proven=8)) as toy, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(f"ws://127.0.0.1:{toy.port}/echo"))
        with pytest.raises(InvalidStatus) as no:
            connect(f"ws://127.0.0.1:{toy.port}/echo")
        assert no.value.response.status_code == 403
        answer = toy.get()
        assert answer.status_code == 503 and "Close some pages" in answer.text
        assert toy.get(source="127.0.0.2").text == "fine"


def test_connections_that_only_wait_for_a_later_request_make_way() -> None:
    said = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with Toy(dataclasses.replace(PATIENT, proven=8)) as toy, contextlib.ExitStack() as stack:
        for _ in range(10):
            peer = stack.enter_context(toy.open(said))
            assert peer.recv(1000).startswith(b"HTTP/1.1 200")
        assert toy.get().text == "fine"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nhalf",
        b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n",
    ],
)
def test_who_does_not_go_on_is_not_waited_for(quick: Toy, said: bytes) -> None:
    """Not even when one more byte comes now and then, which ends uvicorn's own deadline for idle connections."""
    with quick.open(said) as peer:
        began = time.monotonic()
        while not ended(peer):
            assert time.monotonic() < began + 15, "the connection is still open"
            with contextlib.suppress(OSError):
                peer.send(b"x")
            time.sleep(0.1)
    assert quick.get().text == "fine"


def test_a_connection_that_was_answered_must_not_dawdle_with_its_next_request(quick: Toy) -> None:
    with quick.open(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as peer:
        assert peer.recv(1000).startswith(b"HTTP/1.1 200")
        wait(lambda: _byte(peer), "the connection to be closed")


def _byte(peer: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        peer.send(b"G")
    return ended(peer)


def test_a_peer_that_does_not_take_its_answer_is_not_waited_for(quick: Toy) -> None:
    with quick.open(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n") as peer:
        time.sleep(QUICK.exchange_s + QUICK.stall_s + 1.0)
        assert _received(peer) < BIG
    assert quick.get().text == "fine"


def test_a_websocket_that_is_never_read_ends(quick: Toy) -> None:
    """A close frame could not be sent either: the buffers are full."""
    with quick.open(UPGRADE):
        wait(lambda: quick.sockets == 1, "the socket")
        wait(lambda: quick.sockets == 0, "the application to be told that the peer is lost")


def test_pings_of_a_peer_that_never_reads_do_not_fill_the_memory(quick: Toy) -> None:
    with connect(f"ws://127.0.0.1:{quick.port}/echo", max_queue=1) as page:
        peer = page.socket
        sent = 0
        peer.settimeout(0.5)
        with pytest.raises(OSError):
            while True:  # the reader thread of the client reads pongs: shut that off
                peer.shutdown(socket.SHUT_RD) if not sent else None
                sent += peer.send(b"\x89\xfd\0\0\0\0" + bytes(125))
                assert sent < 200_000_000
    assert quick.get().text == "fine"


def test_a_message_that_never_ends_does_not_fill_the_memory(quick: Toy) -> None:
    """Empty fragments count nothing towards the length of a message, but each is kept."""
    with quick.open(UPGRADE.replace(b"/much", b"/echo")) as peer:
        assert peer.recv(1000).startswith(b"HTTP/1.1 101")
        peer.sendall(b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 1000 + b"\x80\x80\0\0\0\0")
        assert peer.recv(1000) == b"\x81\0", "a message in a thousand pieces is one"
        peer.sendall(b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * (2 * MAX_FRAGMENTS))
        said = peer.recv(1000)
        assert said[:1] == b"\x88" and int.from_bytes(said[2:4], "big") == 1009
        wait(lambda: ended(peer), "the connection to be closed")


def test_a_websocket_that_floods_is_read_slowly_and_others_are_not() -> None:
    with (
        Toy(dataclasses.replace(PATIENT, messages_per_s=50.0, messages_burst=10.0)) as toy,
        connect(f"ws://127.0.0.1:{toy.port}/echo") as flood,
        connect(f"ws://127.0.0.1:{toy.port}/echo") as page,
    ):
        began = time.monotonic()
        for number in range(60):
            flood.send(str(number))
        page.send("hello")
        assert page.recv(timeout=60) == "hello"
        assert [flood.recv(timeout=60) for _ in range(60)] == [str(number) for number in range(60)], "nothing is lost"
        assert time.monotonic() - began > 0.9
        assert toy.echoed.index("hello") < toy.echoed.index("59"), "the other page waited"


def test_an_address_that_sends_too_much_is_read_slowly() -> None:
    with Toy(dataclasses.replace(PATIENT, bytes_per_s=1e6, bytes_burst=1e5)) as toy:
        began = time.monotonic()
        with httpx.Client(trust_env=False, timeout=20.0) as client:
            answer = client.post(f"http://127.0.0.1:{toy.port}/body", content=bytes(1_000_000))
        assert answer.text == "1000000"
        assert time.monotonic() - began > 0.6


def test_requests_of_one_address_are_paced_and_none_is_refused() -> None:
    with (
        Toy(dataclasses.replace(PATIENT, requests_per_s=50.0, requests_burst=5.0)) as toy,
        httpx.Client(trust_env=False, timeout=20.0) as client,
    ):
        began = time.monotonic()
        assert {client.get(f"http://127.0.0.1:{toy.port}/").status_code for _ in range(30)} == {200}
        assert time.monotonic() - began > 0.4


def test_a_long_head_is_refused(quick: Toy) -> None:
    with quick.open(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (MAX_HEAD + 1)) as peer:
        assert peer.recv(1000).startswith(b"HTTP/1.1 400")


def test_malformed_requests_write_no_log(quick: Toy, caplog: pytest.LogCaptureFixture) -> None:
    for said in (b"\0\0\0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: \x1b[2J\r\n\r\n"):
        with quick.open(said) as peer:
            peer.recv(1000)
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_server_ends_although_a_peer_does_not_read() -> None:
    with Toy(PATIENT) as toy:
        peer = toy.open(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
    with peer:
        assert _received(peer) < BIG


def _received(peer: socket.socket) -> int:
    """Bytes until the connection ends; zeros the sockets' own buffers."""
    got = 0
    peer.settimeout(10)
    with contextlib.suppress(ConnectionError):
        while data := peer.recv(1 << 20):
            got += len(data)
    return got


def test_one_address_is_an_ipv4_address_or_a_network_of_ipv6() -> None:
    assert address_key(("192.0.2.7", 5)) == address_key(("::ffff:192.0.2.7", 5, 0, 0)) == "192.0.2.7"
    assert address_key(("2001:db8::1", 5, 0, 0)) == address_key(("2001:db8::2:3", 5, 0, 0)) == "2001:db8::/64"
    assert address_key(("fe80::1%eth0", 5, 0, 3)) == "fe80::/64"
    assert address_key(("::1", 5, 0, 0)) == "::1"
    assert address_key(None) == address_key("") == ""


def test_an_allowance_grants_a_burst_and_then_a_rate() -> None:
    allowance = Allowance(rate=10.0, burst=3.0)
    assert [allowance.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert 0.0 < allowance.take() <= 0.1 < allowance.take() <= 0.2
    assert not allowance.full


def test_addresses_are_forgotten() -> None:
    async def sweep() -> int:
        every = Connections(dataclasses.replace(QUICK, bytes_per_s=1e-6))
        for number in range(3000):
            every.of(str(number)).incoming.take(number % 2)
        every.start()
        return len(every._addresses)

    assert asyncio.run(sweep()) <= 1024
