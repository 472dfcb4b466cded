"""Announces OSCQuery (`_oscjson._tcp`) and OSC (`_osc._udp`) by mDNS, so that clients find them by name.

Must not know what is served there.
"""

from __future__ import annotations

import logging
import socket

import ifaddr
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, NonUniqueNameException, ServiceInfo, Zeroconf

from engine.errors import TidecastError

log = logging.getLogger(__name__)

SERVICES = (("_oscjson._tcp.local.", "tcp"), ("_osc._udp.local.", "udp"))


class AnnounceError(TidecastError):
    """mDNS could not be used."""


class Announcement:
    """Two mDNS services under one name. `start` and `stop` are idempotent.

    A service that listens on loopback only is announced on loopback only.

    Args:
        name: shown to people; made unique by a number if another machine has it.
        http: host and TCP port of OSCQuery.
        osc: host and UDP port of OSC.
    """

    def __init__(self, name: str, http: tuple[str, int], osc: tuple[str, int]) -> None:
        self._name = name
        self._ends = {"tcp": http, "udp": osc}
        self._zeroconf: list[Zeroconf] = []

    def start(self) -> Announcement:
        """Announce.

        Raises:
            AnnounceError: if mDNS cannot be used; everything but the announcement still works.
        """
        if self._zeroconf:
            return self
        try:
            for kind, end in SERVICES:
                self._register(kind, *self._ends[end])
        except (OSError, ZeroconfError) as error:
            self.stop()
            raise AnnounceError(
                f"OSCQuery cannot be announced by mDNS ({error}).", "Give clients the address instead."
            ) from error
        return self

    def _register(self, kind: str, host: str, port: int) -> None:
        addresses = _addresses(host)
        zeroconf = Zeroconf(interfaces=addresses, ip_version=IPVersion.V4Only)
        self._zeroconf.append(zeroconf)
        server = socket.gethostname().split(".")[0] + "-tidecast.local."
        packed = [socket.inet_aton(a) for a in addresses]
        for number in range(1, 100):
            name = self._name if number == 1 else f"{self._name} {number}"
            info = ServiceInfo(
                kind, f"{name}.{kind}", addresses=packed, port=port, server=server, properties={"txtvers": "1"}
            )
            try:
                zeroconf.register_service(info)
                return
            except NonUniqueNameException:
                log.info("the name %s is taken on this network", name)
        raise NonUniqueNameException

    def stop(self) -> None:
        """Take the services back."""
        for zeroconf in self._zeroconf:
            zeroconf.close()
        self._zeroconf = []


def _addresses(host: str) -> list[str]:
    """The IPv4 addresses at which a service that listens on `host` is reached."""
    if host == "localhost":
        return ["127.0.0.1"]
    if host not in ("", "0.0.0.0", "::"):
        return [host]
    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return [a for a in found if not a.startswith("127.")] or ["127.0.0.1"]
