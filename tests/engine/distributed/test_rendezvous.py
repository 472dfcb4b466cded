"""The ranks' store listens at one address, and a job that somebody else wrote is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import psutil
import pytest
import torch.distributed as dist

from engine.config import Config
from engine.distributed import rendezvous
from engine.distributed.link import RankLostError
from engine.distributed.rendezvous import SECRET, open_store, signed, verified
from engine.distributed.ring import Job, Ring
from engine.errors import ModelError
from engine.session import Session
from tests.support.platforms import constants_on

JOB = Job("wan21-tiny", 64, 64, ((0, 2), (2, 4)), 4, 4, "reference", "full", "float32", False, threads=1)


def listening(process: psutil.Process) -> set[str]:
    """Addresses at which a process listens for TCP."""
    return {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}


def others() -> list[str]:
    """Addresses of this machine other than 127.0.0.1."""
    found = ["127.0.0.2"] if sys.platform == "linux" else []
    for entries in psutil.net_if_addrs().values():
        found += [e.address for e in entries if e.family == socket.AF_INET and not e.address.startswith("127.")]
    return found


def test_the_store_listens_at_its_address_and_no_other() -> None:
    store = open_store("127.0.0.1", 0, 2, host=True)
    with socket.create_connection(("127.0.0.1", store.port), timeout=5.0):
        pass
    for address in others():
        with pytest.raises(OSError), socket.create_connection((address, store.port), timeout=5.0):
            pass


def test_a_port_that_is_taken_or_an_address_of_another_machine_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RankLostError, match="cannot listen at"):
        open_store("127.0.0.1", taken.getsockname()[1], 2, host=True)
    with pytest.raises(RankLostError, match=r"cannot listen at 192\.0\.2\.77:0"):
        open_store("192.0.2.77", 0, 2, host=True)


def test_the_store_of_builds_without_libuv_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's builds for Windows raise when they are asked for libuv."""
    store, asked = dist.TCPStore, []

    def without_libuv(*args: Any, use_libuv: bool, **settings: Any) -> dist.TCPStore:
        asked.append(use_libuv)
        return store(*args, use_libuv=use_libuv, **settings)

    monkeypatch.setattr(dist, "TCPStore", without_libuv)
    monkeypatch.setattr(rendezvous, "LIBUV", False)
    host = open_store("127.0.0.1", 0, 2, host=True)
    other = open_store("127.0.0.1", host.port, 2, host=False)
    host.set("job", "play")
    assert other.get("job") == b"play"
    assert asked == [False, False]


def test_libuv_is_not_asked_for_on_windows() -> None:
    assert constants_on("win32", rendezvous)["LIBUV"] is False
    assert constants_on("linux", rendezvous)["LIBUV"] is True


def test_nothing_of_a_ring_on_one_machine_listens_beyond_loopback() -> None:
    before = listening(psutil.Process())
    config = Config(model="wan21-tiny", width=64, height=64, devices=("cpu", "cpu"), threads=1)
    with Session.open(config, files={}) as session:
        (rank,) = session._stream.ring.processes.values()
        found = (listening(psutil.Process()) - before) | listening(psutil.Process(rank.pid))
        assert found and all(address.startswith("127.") or address == "::1" for address in found)


def test_a_job_is_only_what_the_ring_signed() -> None:
    data = signed(JOB.dumps(), "the ring's own secret").encode()
    assert Job.loads(verified(data, "the ring's own secret")) == JOB
    for forged in (data.replace(b"wan21-tiny", b"wan21-evil"), data[64:], b"", b"\xff" * 200):
        with pytest.raises(ModelError, match="not signed"):
            verified(forged, "the ring's own secret")
    with pytest.raises(ModelError, match="not signed"):
        verified(data, "another ring's secret")


def test_a_rank_refuses_a_forged_job_and_says_so() -> None:
    store = open_store("127.0.0.1", 0, 2, host=True)
    store.set("job", signed(JOB.dumps(), "what the stranger guessed"))
    command = [sys.executable, "-m", "engine.distributed.rank", "--rank", "1", "--world", "2", "--port"]
    secret = {SECRET: "what only the ranks know"}
    done = subprocess.run(
        [*command, str(store.port)], capture_output=True, text=True, env=os.environ | secret, timeout=120
    )
    assert done.returncode == 1 and "not signed" in done.stderr and "Traceback" not in done.stderr


def test_a_rank_on_another_machine_needs_an_address_and_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(ModelError, match="cannot reach this one at 127"):
        Ring(JOB, ["cpu", None])
    for secret in ("", "short"):
        monkeypatch.setenv(SECRET, secret)
        with pytest.raises(ModelError, match="at least 16 characters"):
            Ring(JOB, ["cpu", None], address="192.0.2.77", port=29500)
    with pytest.raises(ModelError, match="ring_address"):
        Session.open(Config(model="wan21-tiny", width=64, height=64, devices=("cpu", "remote")), files={})


def test_the_interface_is_that_of_the_address_and_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "mine")
    rendezvous.use_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] in ("lo", "lo0")
    assert os.environ["NCCL_SOCKET_IFNAME"] == "mine"
