"""One UDP port that is drained quickly: of several values for one address its thread passes on only the newest.

Shared by the OSC server and the compatibility modes.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable, Iterable, Sequence

from bridge.control.osc.gate import Gate
from bridge.control.osc.packet import coalesce
from bridge.listening import is_taken
from bridge.service import Service
from engine.errors import ConfigError, PortInUseError

log = logging.getLogger(__name__)

Address = tuple[str, int]
"""Host and UDP port."""

RECEIVE_BUFFER = 4 << 20
"""Size of the socket's receive buffer that is requested, in bytes; the system may grant less."""

BATCH = 1024
"""Most datagrams read from the socket before they are obeyed."""

BUSY = 16
"""After a batch of this many datagrams or more, the thread waits for `GATHER_SECONDS`, so that a flood costs one change
per address and pause instead of one per message."""

GATHER_SECONDS = 0.003


class UdpPort:
    """A bound UDP port and the thread that reads from it. `start` and `stop` are idempotent.

    Args:
        host, port: address to listen at; port 0 lets the system choose (see `address`).
        gate: decides who is obeyed and how much is sent.
        latest_wins: whether an OSC address (as bytes) is that of a continuous value; see `packet.coalesce`.
        obey: called on the thread with every datagram that was not superseded, and its sender.
        remedy: what the user can do when the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        gate: Gate,
        *,
        latest_wins: Callable[[bytes], bool],
        obey: Callable[[bytes, Address], None],
        remedy: str,
    ) -> None:
        self._wanted = (host, port)
        self._gate = gate
        self._latest_wins = latest_wins
        self._obey = obey
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
        """Bind the port and start the thread.

        Raises:
            PortInUseError: if another program has the port.
            ConfigError: if the host is not an address of this machine or the port may not be used.
        """
        if self._socket is not None:
            return
        self._socket = _bind(*self._wanted, self._remedy)
        self._gate.ports.add(self.address[1])
        self._wake_out, self._wake_in = socket.socketpair()
        self._service.start()

    def stop(self) -> None:
        """End the thread and free the port."""
        if self._socket is None:
            return
        self._service.stop()
        self._gate.ports.discard(self.address[1])
        for end in (self._socket, self._wake_in, self._wake_out):
            end.close()
        self._socket = None

    def send(self, datagrams: Sequence[bytes], targets: Iterable[Address]) -> set[Address]:
        """Send from this port. A client that is gone, or a full buffer, does not delay the others.

        Returns:
            The targets that did not get all of it, because the gate let no more out.
        """
        sender = self._socket
        withheld: set[Address] = set()
        if sender is None:  # a reply that was ready only after `stop`
            return withheld
        sizes = [len(datagram) for datagram in datagrams]
        for target in targets:
            let_out = self._gate.takes(target[0], sizes)
            if let_out < len(datagrams):
                withheld.add(target)
            for datagram in datagrams[:let_out]:
                try:
                    sender.sendto(datagram, target)
                except OSError as error:
                    log.debug("UDP to %s:%d: %s", *target, error)
        return withheld

    def _end_wait(self) -> None:
        self._wake_in.send(b"\0")

    def _run(self) -> None:
        source, stopping = self._socket, self._service.stopping
        assert source is not None
        while True:
            select.select([source, self._wake_out], [], [])
            if stopping.is_set():
                return
            batch = [item for item in _drain(source) if self._gate.admits(item[1][0], len(item[0]))]
            for datagram, sender in coalesce(batch, self._latest_wins):
                try:
                    self._obey(datagram, sender)
                except Exception:  # a defect must not end the thread that serves all controls
                    log.exception("a message from %s:%d could not be handled", *sender)
            if len(batch) >= BUSY:
                stopping.wait(GATHER_SECONDS)


def _drain(source: socket.socket) -> list[tuple[bytes, Address]]:
    """The datagrams waiting at the socket, at most `BATCH`."""
    batch: list[tuple[bytes, Address]] = []
    while len(batch) < BATCH:
        try:
            datagram, sender = source.recvfrom(65536)
        except BlockingIOError:
            break
        except OSError as error:  # on Windows: a client to which something was sent has closed its port
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
        if is_taken(error):
            raise PortInUseError(f"UDP port {port} is already in use.", remedy) from error
        raise ConfigError(f"UDP {host}:{port} cannot be opened: {error}.", remedy) from error
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return bound
