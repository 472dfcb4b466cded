"""How the ranks of a ring find each other: a key-value store at one address, and a job that cannot be forged.

torch's store asks nobody who they are: whoever reaches its port reads and writes every key. So it listens at the given
address alone (torch by itself listens on every interface), which is loopback unless a rank runs on another machine; and
the job carries a message authentication code (HMAC-SHA-256) under a secret that only the ranks know. Ranks on this
machine get a fresh secret in their environment. For ranks on other machines, the user sets it on both.

What this does not do: it encrypts nothing, and the connections of gloo and NCCL have no authentication. They use the
interface of the given address only, but whoever reaches that network can disturb a ring, and read or change the frames.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import sys

import psutil
import torch.distributed as dist

from engine.distributed.link import RankLostError, first_line
from engine.errors import ModelError

SECRET = "TIDECAST_RING_SECRET"
"""Environment variable with the secret of a ring."""

LIBUV = sys.platform != "win32"
"""Whether the store uses libuv, which torch's builds for Windows lack."""

MIN_SECRET = 16
"""Least characters of a secret that a user sets."""


def new_secret() -> str:
    """A secret for a ring whose ranks all run on this machine."""
    return secrets.token_hex(32)


def given_secret() -> str:
    """The secret that was set for a ring over several machines.

    Raises:
        ModelError: if there is none, or it is too short.
    """
    secret = os.environ.get(SECRET, "")
    if len(secret) < MIN_SECRET:
        raise ModelError(
            f"A rank on another machine needs a secret of at least {MIN_SECRET} characters; {len(secret)} were set.",
            f"Set {SECRET} to the same value on every machine, for instance the output of: openssl rand -hex 32",
        )
    return secret


def signed(job: str, secret: str) -> str:
    """The job with its authentication code in front."""
    return _code(job.encode(), secret) + job


def verified(data: bytes, secret: str) -> bytes:
    """The job of which `signed` made this data.

    Raises:
        ModelError: if it was made with another secret, or changed since.
    """
    length = hashlib.sha256().digest_size * 2
    code, job = data[:length], data[length:]
    if not hmac.compare_digest(code, _code(job, secret).encode()):
        raise ModelError(
            "The job in the ring's store is not signed with this ring's secret.",
            f"Set {SECRET} to the same value on every machine. If it is, somebody else writes to the store.",
        )
    return job


def _code(job: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), job, hashlib.sha256).hexdigest()


def open_store(address: str, port: int, world: int, *, host: bool, seconds: float = 300.0) -> dist.TCPStore:
    """The key-value store through which the ranks of a ring find each other.

    Args:
        address, port: where the store is served, and nowhere else; port 0 chooses a free one (host only).
        world: number of ranks.
        host: whether this process serves the store; rank 0 does.
        seconds: how long to wait for the host.

    Raises:
        RankLostError: if the host does not answer, or cannot listen at this address.
    """
    wait = datetime.timedelta(seconds=seconds)
    try:
        if not host:
            return dist.TCPStore(address, port, world, timeout=wait, wait_for_workers=False, use_libuv=LIBUV)
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((address, port), family=family) as listening:
            port = listening.getsockname()[1]
            return dist.TCPStore(
                address,
                port,
                world,
                is_master=True,
                timeout=wait,
                wait_for_workers=False,
                master_listen_fd=listening.detach(),
                use_libuv=LIBUV,
            )
    except (RuntimeError, ValueError, OSError) as error:
        does = "This machine cannot listen" if host else "No pipeline answers"
        raise RankLostError(f"{does} at {address}:{port} ({first_line(error)}).") from None


def is_loopback(host: str) -> bool:
    """Whether a host is an address or a name of this machine that no other machine reaches."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # `open_store` says what is wrong with it
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def use_interface_of(host: str) -> None:
    """Let gloo and NCCL use only the network interface that has this address, or by which it is reached.

    Without this, gloo listens at whatever address the machine's name stands for. Variables that the user has set are
    left as they are.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing: it only chooses the route
            own = probe.getsockname()[0]
    except OSError:
        return  # `open_store` says that the address does not exist
    for name, entries in psutil.net_if_addrs().items():
        held = [e.address.partition("%")[0] for e in entries if e.family in (socket.AF_INET, socket.AF_INET6)]
        if own in held or (is_loopback(own) and any(map(is_loopback, held))):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return
