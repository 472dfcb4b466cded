"""What the endpoints share: who asks, the JSON of a request, and the answer to a bad one."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from bridge.control.origin import Trust, trust_of
from engine.errors import ControlError

MAX_MESSAGE = 64 * 1024
"""Longest request body or WebSocket message, in bytes."""


def trust_in(connection: HTTPConnection) -> Trust:
    """The trust in the peer of a connection. TCP's handshake has proved its address."""
    return trust_of(connection.client.host) if connection.client is not None else Trust.NETWORK


async def body(request: Request) -> Any:
    """The JSON body of a request.

    Raises:
        ControlError: if it is too long, not JSON, or incomplete.
    """
    return decode(await read_body(request, MAX_MESSAGE))


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        ControlError: if it has more than `most` bytes, or is incomplete.
    """
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > most:
                raise ControlError("/api", f"A message may have {most} bytes at most.")
    except ClientDisconnect:  # nobody reads the answer
        raise ControlError("/api", "The message ended too early.") from None
    return bytes(data)


def decode(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ControlError: if it is not JSON, or holds half a surrogate pair, which cannot be encoded.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ControlError("/api", "This is not JSON.") from None
    return value


def refusal(error: ControlError, status: int = 400) -> Response:
    """The answer to a request that cannot be carried out."""
    return JSONResponse({"error": error.message, "remedy": error.remedy, "address": error.address}, status)
