"""uvicorn on a thread, for the page and for OSCQuery. Knows nothing of either."""

from __future__ import annotations

import asyncio
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

MAX_HEAD = 64 * 1024
"""Longest request head, in bytes."""

STOP_TIMEOUT_S = 3.0


class HttpServer:
    """Serves an application on a thread of its own, so that signals stay with the main thread. Starts only once.

    Not a `Service`: uvicorn has a stop flag of its own, and a uvicorn server can run only once.

    Args:
        name: the thread's name.
        app: the ASGI application; it is not told of start and end (no lifespan).
        listening: the listening socket; `stop` closes it.
        max_message: longest WebSocket message that is received, in bytes.
        max_connections: with more connections at a time, requests are answered with 503.

    Attributes:
        loop: the event loop that the thread runs; calls can be scheduled on it before the start.
    """

    def __init__(
        self, name: str, app: ASGIApp, listening: socket.socket, *, max_message: int, max_connections: int
    ) -> None:
        config = uvicorn.Config(
            app,
            http="h11",  # limits the size of request heads; httptools does not
            h11_max_incomplete_event_size=MAX_HEAD,
            ws_max_size=max_message,
            ws_max_queue=16,
            ws_ping_interval=10.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,
            limit_concurrency=max_connections,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection, end the thread and free the port; waits three seconds at most."""
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)
        self._listening.close()

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._server.serve(sockets=[self._listening]))
