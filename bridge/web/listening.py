"""The TCP socket of the page server, bound by the bridge process so that a taken port is reported at once."""

from __future__ import annotations

import socket

from engine.errors import PortInUseError


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        PortInUseError: if the port is taken, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR would allow two listeners
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise PortInUseError(
            f"The control room cannot listen at {host}, TCP port {port}: {error.strerror}.",
            "Choose another with --web-port, or 0 for any free one.",
        ) from None
    return bound
