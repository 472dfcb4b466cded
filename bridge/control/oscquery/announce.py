"""Announces OSCQuery (`_oscjson._tcp`) and OSC (`_osc._udp`) by mDNS, so that clients find them by name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import threading

import ifaddr
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from engine.errors import TidecastError

log = logging.getLogger(__name__)

OSCQUERY = "_oscjson._tcp.local."
OSC = "_osc._udp.local."

START_S = 5.0


class AnnounceError(TidecastError):
    """mDNS could not be used."""


class Announcement:
    """Two mDNS services under one name, on a thread of their own. `start` and `stop` are idempotent.

    Not a `Service`: the thread runs an event loop, which ends from inside, and an error while opening goes to `start`.

    A service that listens on loopback only is announced on loopback only. It takes a second or two until clients see
    the services; `start` does not wait for that.

    Args:
        name: shown to users; a number is added if another machine has the same name.
        http: host and TCP port of OSCQuery.
        osc: host and UDP port of OSC.
    """

    def __init__(self, name: str, http: tuple[str, int], osc: tuple[str, int]) -> None:
        self._name = name
        self._services = ((OSCQUERY, *http), (OSC, *osc))
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> Announcement:
        """Open mDNS and start to announce.

        Raises:
            AnnounceError: if mDNS cannot be used; everything but the announcement still works.
        """
        if self._thread is not None:
            return self
        opened: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._announce(opened)), name="mdns", daemon=True)
        self._thread.start()
        trouble = opened.get(timeout=START_S)
        if trouble is not None:
            self._thread.join()
            self._thread = None
            raise AnnounceError(
                f"OSCQuery cannot be announced by mDNS ({trouble}).", "Give clients the address instead."
            ) from trouble
        return self

    def stop(self) -> None:
        """Withdraw the services; takes about half a second."""
        if self._thread is None:
            return
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    async def _announce(self, opened: queue.SimpleQueue[Exception | None]) -> None:
        """Announce until stopped; puts None, or why mDNS cannot be used, into `opened`."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            responders: dict[tuple[str, ...], AsyncZeroconf] = {}
            registering = []
            try:
                for kind, host, port in self._services:
                    addresses = _addresses(host)
                    if addresses not in responders:
                        responder = AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
                        stack.push_async_callback(responder.async_close)
                        responders[addresses] = responder
                    registering.append(_register(responders[addresses], self._info(kind, addresses, port)))
            except OSError as error:
                for coroutine in registering:
                    coroutine.close()
                opened.put(error)
                return
            opened.put(None)
            tasks = [asyncio.create_task(r) for r in registering]
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _info(self, kind: str, addresses: tuple[str, ...], port: int) -> ServiceInfo:
        return ServiceInfo(
            kind,
            f"{self._name}.{kind}",
            addresses=[socket.inet_aton(a) for a in addresses],
            port=port,
            server=socket.gethostname().split(".")[0] + "-tidecast.local.",
            properties={"txtvers": "1"},
        )


async def _register(responder: AsyncZeroconf, info: ServiceInfo) -> None:
    try:
        await (await responder.async_register_service(info, allow_name_change=True))
    except (OSError, ZeroconfError) as error:
        log.warning("%s cannot be announced: %s", info.type, error)


def _addresses(host: str) -> tuple[str, ...]:
    """The IPv4 addresses at which a service that listens on `host` is reached."""
    if host == "localhost":
        return ("127.0.0.1",)
    if host not in ("", "0.0.0.0", "::"):
        return (host,)
    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return tuple(a for a in found if not a.startswith("127.")) or ("127.0.0.1",)
