"""The TCP port of the page and of OSCQuery, bound in the bridge process so that a taken port is reported at once."""

from __future__ import annotations

import errno
import socket

from engine.errors import ConfigError, PortInUseError

BACKLOG = 128
"""Connections that wait until they are accepted."""

WSAEACCES = 10013
"""Windows' error for a port that another program holds exclusively."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Args:
        host: IPv4 or IPv6 address, or a name of this machine.
        port: TCP port; 0 takes a free one.

    Raises:
        PortInUseError: if the port is taken.
        ConfigError: if the host is not an address of this machine, or the port may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR would allow two listeners
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if is_taken(error):
            raise PortInUseError(
                f"TCP port {port} is already in use.",
                "Stop the other program, or choose another port with --web-port; 0 takes a free one.",
            ) from error
        raise ConfigError(
            f"TCP {host}:{port} cannot be opened: {error}.",
            "Choose an address of this machine with --web-host, and a port with --web-port.",
        ) from error
    return bound


def is_taken(error: OSError) -> bool:
    """Whether a port could not be bound because another program has it."""
    return error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == WSAEACCES
