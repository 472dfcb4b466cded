"""A small OSC client, with which the command line talks to a running Tidecast."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bridge.control.osc.gate import WORD
from bridge.control.osc.packet import Message, PacketError, build, parse
from bridge.control.osc.subscribers import SILENCE_SECONDS
from engine.control import PREFIX
from engine.errors import ConfigError

RENEW_S = SILENCE_SECONDS / 3


class OscClient:
    """Sends to one server and receives its answers on the same port.

    Args:
        host, port: where Tidecast listens.

    Raises:
        ConfigError: if the host name cannot be resolved.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 9000) -> None:
        try:
            self._server = (socket.gethostbyname(host), port)
        except OSError as error:
            raise ConfigError(f"There is no host {host!r} ({error.strerror}).", "Give its IP address.") from error
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1" if self._server[0].startswith("127.") else "", 0))

    def __enter__(self) -> OscClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, address: str, args: Sequence[Any] = ()) -> None:
        """Send one message.

        Raises:
            PacketError: if a value has no OSC type.
        """
        self._socket.sendto(build(address, args), self._server)

    def receive(self, seconds: float) -> Iterator[Message]:
        """Every message that comes within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                for message in parse(self._socket.recv(65536)):
                    if message.address == WORD:  # returned, so that Tidecast knows that this host asked
                        self.send(WORD, message.args)
                    else:
                        yield message
            except TimeoutError:
                return
            except PacketError:  # not from Tidecast
                continue
            except OSError:  # no program listens on the server's port; Windows and some other systems report that
                time.sleep(min(left, 0.05))

    def ask(self, wanted: Callable[[Message], bool], seconds: float) -> Message | None:
        """The first message within this time for which `wanted` is true, or None."""
        return next((m for m in self.receive(seconds) if wanted(m)), None)

    def answers(self, seconds: float = 1.0) -> bool:
        """Whether a Tidecast answers within this time."""
        word = f"{time.monotonic_ns()}"
        self.send(PREFIX + "/ping", (word,))
        return self.ask(lambda m: m.address == PREFIX + "/pong" and word in m.args, seconds) is not None

    def watch(self, seconds: float = math.inf) -> Iterator[Message]:
        """Subscribe, and yield every message that comes within this time."""
        port = int(self._socket.getsockname()[1])
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.send(PREFIX + "/subscribe", (port,))
            yield from self.receive(min(RENEW_S, left))
