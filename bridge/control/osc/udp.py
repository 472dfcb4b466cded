"""One UDP port that is emptied fast: its thread lets the newest value of every address win and hands on the rest.

Shared by the server of the namespace and by the compatibility modes. Must not know the store or what messages mean.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Callable, Iterable, Sequence

from bridge.control.osc.packet import coalesce
from bridge.service import Service
from engine.errors import ConfigError, PortInUseError

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host and UDP port."""

RECEIVE_BUFFER = 4 << 20
"""Bytes asked of the system for datagrams that wait; the system may give less."""

BATCH = 1024
"""Most datagrams taken from the socket before they are obeyed."""

BUSY = 16
"""From this many datagrams at once on, the thread lets more gather for `GATHER_SECONDS`, so that a flood
costs one change per address and pause instead of one per message."""

GATHER_SECONDS = 0.003

WSAEACCES = 10013
"""Windows' error for a port that another program holds exclusively."""


class UdpPort:
    """A bound UDP port and the thread that empties it. `start` and `stop` are idempotent.

    Args:
        host, port: address to listen at; port 0 lets the system choose (`address` tells).
        latest_wins: whether an OSC address (as bytes) stands for a continuous value; see `packet.coalesce`.
        obey: called on the thread with every datagram that counts and its sender.
        heard: called on the thread with the hosts from which something came.
        remedy: what the user can do when the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        latest_wins: Callable[[bytes], bool],
        obey: Callable[[bytes, Address], None],
        heard: Callable[[Iterable[str]], None],
        remedy: str,
    ) -> None:
        self._wanted = (host, port)
        self._latest_wins = latest_wins
        self._obey = obey
        self._heard = heard
        self._remedy = remedy
        self._socket: socket.socket | None = None
        self._service = Service("osc-receive", self._run, wake=self._end_wait)

    @property
    def address(self) -> Address:
        """Host and port on which it listens."""
        if self._socket is None:
            return self._wanted
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Bind the port and begin to empty it.

        Raises:
            PortInUseError: if another program has the port.
            ConfigError: if the host is not an address of this machine or the port may not be used.
        """
        if self._socket is not None:
            return
        self._socket = _bind(*self._wanted, self._remedy)
        self._wake_out, self._wake_in = socket.socketpair()
        self._service.start()

    def stop(self) -> None:
        """End the thread and free the port."""
        if self._socket is None:
            return
        self._service.stop()
        for end in (self._socket, self._wake_in, self._wake_out):
            end.close()
        self._socket = None

    def send(self, datagrams: Sequence[bytes], targets: Iterable[Address]) -> None:
        """Send from this port. A client that is gone, or a full buffer, never holds up the others."""
        outlet = self._socket
        if outlet is None:  # an answer that was ready only after the stop
            return
        for target in targets:
            for datagram in datagrams:
                try:
                    outlet.sendto(datagram, target)
                except OSError as error:
                    log.debug("UDP to %s:%d: %s", *target, error)

    def _end_wait(self) -> None:
        self._wake_in.send(b"\0")

    def _run(self) -> None:
        source, stopping = self._socket, self._service.stopping
        assert source is not None
        while True:
            select.select([source, self._wake_out], [], [])
            if stopping.is_set():
                return
            batch = _drain(source)
            self._heard({sender[0] for _, sender in batch})
            for datagram, sender in coalesce(batch, self._latest_wins):
                try:
                    self._obey(datagram, sender)
                except Exception:  # whatever defect one message meets, the thread of all controls lives on
                    log.exception("a message from %s:%d met a defect", *sender)
            if len(batch) >= BUSY:
                stopping.wait(GATHER_SECONDS)


def _drain(source: socket.socket) -> list[tuple[bytes, Address]]:
    """Everything that waits at the socket, up to `BATCH` datagrams."""
    batch: list[tuple[bytes, Address]] = []
    while len(batch) < BATCH:
        try:
            datagram, sender = source.recvfrom(65536)
        except BlockingIOError:
            break
        except OSError as error:  # Windows reports here that a client's port is closed
            log.debug("UDP: %s", error)
            break
        batch.append((datagram, (sender[0], sender[1])))
    return batch


def _bind(host: str, port: int, remedy: str) -> socket.socket:
    """A bound, non-blocking UDP socket with a large receive buffer."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == WSAEACCES:
            raise PortInUseError(f"UDP port {port} is already in use.", remedy) from error
        raise ConfigError(f"UDP {host}:{port} cannot be opened: {error}.", remedy) from error
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return bound
