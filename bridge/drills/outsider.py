"""Another machine, for `tidecast bench strangers`: a network namespace of this one, or else its own network address.

Nothing leaves this machine. In a namespace of its own, 127.0.0.1 is another one, so that a stranger cannot be taken for
a program of this machine; making one needs root and Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ifaddr
import psutil

T = TypeVar("T")

HERE, THERE = "198.51.100.1", "198.51.100.2"
"""Addresses of this machine and the other one; the network is reserved for documentation."""

NAME = "tidecast-drill-"
NAMESPACES = Path("/var/run/netns")
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Outsider:
    """Another machine.

    Attributes:
        here: the address at which it reaches this machine.
        address: its own address.
        unshown: what the figures do not show, because it is not really another machine; else empty.
        run: runs a function over there. Sockets that it makes stay over there.
    """

    here: str
    address: str
    unshown: str
    run: Callable[[Callable[[], object]], object]

    def udp(self, port: int = 0) -> socket.socket:
        """A UDP socket of the other machine, bound to its address."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            made.bind((self.address, port))
            return made

        return _socket(self.run(make))

    def tcp(self, port: int, timeout_s: float = 2.0) -> socket.socket:
        """A TCP connection from the other machine to a port of this one.

        Raises:
            OSError: if it is refused.
        """

        def make() -> socket.socket:
            return socket.create_connection((self.here, port), timeout_s, source_address=(self.address, 0))

        return _socket(self.run(make))

    def listen(self) -> socket.socket:
        """A TCP port of the other machine."""
        return _socket(self.run(lambda: socket.create_server((self.address, 0))))


def _socket(made: object) -> socket.socket:
    assert isinstance(made, socket.socket)
    return made


@contextlib.contextmanager
def outsider() -> Iterator[Outsider]:
    """Another machine; without root or Linux, one that shares this machine's network address.

    Raises:
        OSError: if this machine has no address but loopback either.
    """
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(_namespace())
            return
        except (OSError, subprocess.SubprocessError) as error:
            why = str(error)
        own = own_address()
        if own is None:
            raise OSError(f"There is neither a network namespace ({why}) nor an address besides loopback.")
        unshown = (
            f"No network namespace could be made ({why}). The stranger is a program of this machine at {own}, so these "
            "figures do not show that nothing crosses an interface."
        )
        yield Outsider(own, own, unshown, lambda make: make())


def own_address() -> str | None:
    """An IPv4 address of this machine besides loopback."""
    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return next((a for a in found if not ipaddress.ip_address(a).is_loopback), None)


@contextlib.contextmanager
def _namespace() -> Iterator[Outsider]:
    """A network namespace, joined to this one by a pair of virtual interfaces; removed afterwards."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None or os.geteuid() != 0:
        raise OSError("that needs Linux, root and the program ip")
    _sweep()
    name = f"{NAME}{os.getpid()}"
    inside = f"tc{os.getpid() % 100_000}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", inside, "type", "veth", "peer", "name", f"{inside}p", "netns", name)
        _ip("addr", "add", f"{HERE}/30", "dev", inside)
        _ip("link", "set", inside, "up")
        _ip("-n", name, "addr", "add", f"{THERE}/30", "dev", f"{inside}p")
        _ip("-n", name, "link", "set", f"{inside}p", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        with ThreadPoolExecutor(1, "outsider") as over_there:
            over_there.submit(_enter, name).result()
            made = Outsider(HERE, THERE, "", lambda make: over_there.submit(make).result())
            _wait_for_link(made)
            yield made
    finally:
        _ip("netns", "del", name)  # and with it both interfaces


def _sweep() -> None:
    """Remove the namespaces of drills that were killed."""
    for path in NAMESPACES.glob(f"{NAME}*"):
        pid = path.name.removeprefix(NAME)
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _ip("netns", "del", path.name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _enter(name: str) -> None:
    """Move the calling thread, and every socket that it makes from now on, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / name).open("rb") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def _wait_for_link(made: Outsider) -> None:
    with socket.create_server((made.here, 0)) as server:
        for attempt in range(50):
            try:
                made.tcp(server.getsockname()[1], 1.0).close()
                return
            except OSError:
                if attempt == 49:
                    raise
                time.sleep(0.1)
