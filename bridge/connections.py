"""Bounds what the connections of an HTTP server may use: time, memory, work and places.

uvicorn has no deadline for a request's head, for its body or for a peer that does not read, and its only limit counts
every open connection, so that a few hundred silent ones close the server for everybody. `Connection` therefore stands
between asyncio's transport and uvicorn's protocol, and `Connections` decides which connections stay. It uses nothing
of uvicorn but the interface of asyncio protocols. Everything runs on the thread of the event loop.

Places go to those who were answered: a connection is *proven* once the application has answered one of its requests
with success or has accepted its WebSocket. Connections that are not proven have places of their own, and when those
are full, the oldest of the address that has the most is closed in favour of the new one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bridge.allowance import Allowance

SWEEP_S = 0.25
"""Interval at which deadlines are checked."""

MAX_IDLE_ADDRESSES = 1024
"""Addresses without a connection whose allowances are remembered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may use. Times in seconds.

    Attributes:
        proven: most connections that were answered, on the whole; one address may have half of them.
        unproven: most connections that were not answered yet.
        head_s: from the connection, or from the first byte of a later request, to the end of the request's head.
        exchange_s: from the end of a request's head until the peer has taken the whole answer.
        stall_s: how long a peer may read nothing while data waits for it.
        closing_s: how long a connection that is being closed may take.
        bytes_per_s, bytes_burst: what one address may send.
        requests_per_s, requests_burst: requests that one address may make; more are delayed.
        messages_per_s, messages_burst: messages that one WebSocket may send; more are delayed.
    """

    proven: int = 128
    unproven: int = 64
    head_s: float = 5.0
    exchange_s: float = 30.0
    stall_s: float = 10.0
    closing_s: float = 3.0
    bytes_per_s: float = 256 * 1024
    bytes_burst: float = 1024 * 1024
    requests_per_s: float = 200.0
    requests_burst: float = 400.0
    messages_per_s: float = 500.0
    messages_burst: float = 500.0


@dataclass(slots=True)
class Address:
    """One address and what it has left. `connections` counts its open ones."""

    incoming: Allowance
    requests: Allowance
    connections: int = 0


def address_key(peer: Any) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, which one machine has whole.

    Args:
        peer: the peer's name as asyncio gives it, a tuple that begins with the address; anything else gives "".
    """
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Connection(asyncio.Protocol, asyncio.Transport):
    """One connection: a protocol for the socket's transport, and the transport of uvicorn's protocol.

    Attributes:
        address: see `address_key`.
        proven: whether the application has answered a request of this connection with success.
        opened_s: when it was opened, by `time.monotonic`.
        messages: what its WebSocket may send.
    """

    def __init__(self, all_connections: Connections) -> None:
        super().__init__()
        self._all = all_connections
        self._loop = asyncio.get_running_loop()
        self._inner: asyncio.BaseProtocol | None = None
        self._socket: asyncio.Transport | None = None
        self.address = ""
        self.proven = False
        self.messages = Allowance(all_connections.limits.messages_per_s, all_connections.limits.messages_burst)
        self._requests = 0  # two for a moment, when one follows directly on another
        self._is_websocket = False
        self.opened_s = time.monotonic()
        self._head_since_s: float | None = self.opened_s
        self._request_since_s: float | None = None
        self._closing_since_s: float | None = None
        self._stalled_since_s: float | None = None
        self._written = 0
        self._taken = 0
        self._reading_paused = False  # by uvicorn
        self._over_allowance = False
        self._writing_paused = False

    # The state, as the application's wrapper and `Connections` see it

    @property
    def in_request(self) -> bool:
        """Whether the application works on a request of this connection."""
        return self._requests > 0

    @property
    def idle(self) -> bool:
        """Whether it is only kept open for a later request."""
        return not self._requests and not self.get_write_buffer_size()

    def begin(self, websocket: bool) -> None:
        """The head of a request has come."""
        self._requests += 1
        self._is_websocket = websocket
        self._head_since_s = None
        self._request_since_s = time.monotonic()

    def accepted(self) -> None:
        """The application has accepted the WebSocket: it may last."""
        self._request_since_s = None

    def finish(self) -> None:
        """The application has answered; the peer may not have taken the whole answer yet."""
        self._requests -= 1
        if self.idle:
            self._request_since_s = None

    def overdue(self, now_s: float) -> bool:
        """Whether the peer has missed a deadline."""
        limits = self._all.limits
        unsent = self.get_write_buffer_size()
        taken = self._written - unsent
        if not unsent or taken != self._taken:
            self._taken, self._stalled_since_s = taken, None
        elif self._stalled_since_s is None:
            self._stalled_since_s = now_s
        if self.idle:
            self._request_since_s = None
        deadlines = (
            (self._head_since_s, limits.head_s),
            (self._request_since_s, limits.exchange_s),
            (self._stalled_since_s, limits.stall_s),
            (self._closing_since_s, limits.closing_s),
        )
        return any(since is not None and now_s - since > limit for since, limit in deadlines)

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or refuse."""
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport
        self.address = address_key(transport.get_extra_info("peername"))
        self._all.enter(self)
        assert self._inner is not None
        self._inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Hand on what came; an address that sends too much is read more slowly."""
        if not self._requests and self._head_since_s is None:
            self._head_since_s = time.monotonic()
        wait_s = self._all.of(self.address).incoming.take(len(data))
        if wait_s > 0 and not self._over_allowance:
            self._over_allowance = True
            self._update_reading()
            self._loop.call_later(min(wait_s, 1.0), self._read_again)
        assert isinstance(self._inner, asyncio.Protocol)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The peer sends no more."""
        assert isinstance(self._inner, asyncio.Protocol)
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place."""
        self._all.leave(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer reads too slowly: what it sends is not read either, for every ping makes an answer."""
        self._writing_paused = True
        self._update_reading()
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._writing_paused = False
        self._update_reading()
        if self._inner is not None:
            self._inner.resume_writing()

    # The transport of uvicorn's protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """uvicorn changes its protocol when a request becomes a WebSocket."""
        self._inner = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """uvicorn's protocol."""
        assert self._inner is not None
        return self._inner

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the socket's transport."""
        return default if self._socket is None else self._socket.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send, without waiting."""
        if self._socket is not None:
            self._written += len(data)
            self._socket.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send several pieces."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the peer."""
        return 0 if self._socket is None else self._socket.get_write_buffer_size()

    def pause_reading(self) -> None:
        """uvicorn wants no more data for now."""
        self._reading_paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        """uvicorn wants data again."""
        self._reading_paused = False
        self._update_reading()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._socket is None or self._socket.is_closing()

    def close(self) -> None:
        """Close when everything is sent; for a peer that does not read, `overdue` sets an end to that."""
        if self._closing_since_s is None:
            self._closing_since_s = time.monotonic()
        if self._socket is not None:
            self._socket.close()

    def abort(self) -> None:
        """Close at once."""
        if self._socket is not None:
            self._socket.abort()

    def _read_again(self) -> None:
        self._over_allowance = False
        self._update_reading()

    def _update_reading(self) -> None:
        if self._socket is None or self._socket.is_closing():
            return
        if self._reading_paused or self._over_allowance or self._writing_paused:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()


@dataclass
class Connections:
    """Every connection of one server."""

    limits: Limits = field(default_factory=Limits)
    _open: dict[Connection, None] = field(default_factory=dict)  # in the order in which they came
    _addresses: dict[str, Address] = field(default_factory=dict)

    def accept(self, protocol: Callable[[Connection], asyncio.BaseProtocol]) -> Connection:
        """A new connection.

        Args:
            protocol: makes the protocol that is served, given its connection.
        """
        connection = Connection(self)
        connection.set_protocol(protocol(connection))
        return connection

    def start(self) -> None:
        """Watch the deadlines from now on; call on the loop's thread."""
        self._sweep()

    def of(self, address: str) -> Address:
        """The record of an address."""
        if address not in self._addresses:
            limits = self.limits
            self._addresses[address] = Address(
                Allowance(limits.bytes_per_s, limits.bytes_burst),
                Allowance(limits.requests_per_s, limits.requests_burst),
            )
        return self._addresses[address]

    def enter(self, new: Connection) -> None:
        """Count a new connection; when there are too many that were not answered, one of them is closed."""
        waiting = [connection for connection in self._open if not connection.proven]
        if len(waiting) >= self.limits.unproven:
            self._evict(self._most_from_one_address(waiting, new.address))
        self._open[new] = None
        self.of(new.address).connections += 1

    def leave(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection in self._open:
            del self._open[connection]
            self.of(connection.address).connections -= 1

    def may_serve(self, connection: Connection) -> bool:
        """Whether there is a place for a connection that asks for something; idle ones make way."""
        if connection.proven:
            return True
        proven = [other for other in self._open if other.proven]
        own = [other for other in proven if other.address == connection.address]
        for full, crowd in ((len(own) >= self.limits.proven // 2, own), (len(proven) >= self.limits.proven, proven)):
            if not full:
                continue
            idle = [other for other in crowd if other.idle]
            if not idle:
                return False
            self._evict(self._most_from_one_address(idle, connection.address))
        return True

    def abort_all(self) -> None:
        """Close every connection at once."""
        for connection in tuple(self._open):
            connection.abort()

    def _evict(self, connection: Connection) -> None:
        connection.abort()
        self.leave(connection)  # at once, because asyncio tells that it is lost only later

    def _most_from_one_address(self, candidates: list[Connection], preferred: str) -> Connection:
        """The connection that has to go: of the address with the most candidates, `preferred` among equals, the oldest
        of those that ask for nothing."""
        counts = Counter(connection.address for connection in candidates)
        crowd = max(counts, key=lambda address: (counts[address], address == preferred))
        return min((c for c in candidates if c.address == crowd), key=lambda c: (c.in_request, c.opened_s))

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in tuple(self._open):
            if connection.overdue(now):
                connection.abort()
        forgettable = [key for key, record in self._addresses.items() if not record.connections]
        for at, key in enumerate(forgettable):
            record = self._addresses[key]
            if len(forgettable) - at > MAX_IDLE_ADDRESSES or (record.incoming.full and record.requests.full):
                del self._addresses[key]
        asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
