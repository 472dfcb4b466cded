"""A rank that ends, at any time, leaves nobody waiting; computers that cannot run several GPUs are told so at once."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from engine.distributed import launch, transport
from engine.distributed.link import Link, RankLostError, connect
from engine.distributed.message import Message, Op
from engine.distributed.rendezvous import open_store
from engine.distributed.ring import Job, Ring
from engine.distributed.transport import TorchTransport, _NcclDelivery
from engine.errors import ModelError
from engine.models import registry
from engine.stream.kv_cache import Rule
from tests.support.fake_cuda import FakeCuda

CPU = torch.device("cpu")
JOB = Job("wan21-tiny", 32, 32, ((0, 2), (2, 4)), 4, 4, "reference", "full", "float32", False, threads=1)


def test_a_rank_that_ends_before_it_joins_is_noticed_at_once() -> None:
    with pytest.raises(RankLostError, match="Rank 1 of the pipeline ended with status 1"):
        Ring(JOB, ["cpu", "no such device"])


def test_a_rank_that_never_comes_is_awaited_for_a_bounded_time() -> None:
    store = open_store("127.0.0.1", 0, 2, host=True)
    for rank, said in ((0, "rank 1 did not join within 0.2 s"), (1, "did not connect")):
        with pytest.raises(RankLostError, match=said):
            connect(rank, 2, CPU, store, join=datetime.timedelta(seconds=0.2))
        assert not dist.is_initialized()


def test_a_rank_that_cannot_load_the_model_is_noticed_before_the_first_chunk() -> None:
    ring = Ring(replace(JOB, model="no such model"), ["cpu", "cpu"])
    try:
        with pytest.raises(RankLostError, match="is gone"):
            ring.await_ready()
        assert ring.lost() == (1,)
    finally:
        ring.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_a_rank_that_waits_for_a_dead_one_forever_is_ended() -> None:
    """Stopped, it stands for one whose GPU waits for the dead rank, so that it cannot read that its neighbour left."""
    ring = Ring(replace(JOB, split=((0, 1), (1, 2), (2, 4))), ["cpu"] * 3)
    try:
        ring.await_ready()
        ring.processes[2].send_signal(signal.SIGSTOP)
        ring.tell(Message(Op.READY))
        ring.processes[1].kill()
        with pytest.raises(RankLostError, match="Rank 2 of the pipeline is gone"):
            ring.receive()
        assert ring.lost() == (1,)
    finally:
        ring.close()


class Work:
    """A message between GPUs: complete after some looks, or never.

    Attributes:
        looks_to_come: looks until it is complete; below 0 it never is.
        error: why it failed; empty if it did not.
        looks, waits: how often the host looked, and made the compute stream wait.
    """

    def __init__(self) -> None:
        self.looks_to_come = -1
        self.error = ""
        self.looks = self.waits = 0

    def is_completed(self) -> bool:
        """See `torch.distributed.Work`."""
        self.looks += 1
        self.looks_to_come -= 1
        return self.looks_to_come == -1

    def wait(self) -> None:
        """See `torch.distributed.Work`."""
        self.waits += 1
        if self.error:
            raise RuntimeError(self.error)


class Dying:
    """Stands for `Ring._check`: the other rank is found dead after some looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> None:
        self.looks -= 1
        if self.looks == 0:
            raise RankLostError("Rank 1 ended.")


class Group:
    """A NCCL group that records what is asked of it."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def abort(self) -> None:
        self.log.append("abort")


def gpu_transport(log: list[str]) -> TorchTransport:
    made = object.__new__(TorchTransport)
    made._device, made._gpus, made._check = torch.device("cuda:1"), Group(log), lambda: None  # type: ignore[assignment]
    return made


def test_nccl_is_aborted_before_the_groups_are_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: log.append(f"device {device}"))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: log.append("destroy"))
    gpu_transport(log).close()
    assert log == ["device cuda:1", "abort", "destroy"]


def test_connections_that_do_not_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: hung.wait(60))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(transport, "CLOSE_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(RankLostError, match="cannot be closed") as lost:
        Link(0, 2, CPU, gpu_transport([])).close()
    hung.set()
    assert time.monotonic() - began < 10 and "Restart" in lost.value.remedy


def test_a_send_between_gpus_that_nobody_receives_ends_when_a_rank_is_known_to_be_dead() -> None:
    with pytest.raises(RankLostError, match="Rank 1 ended"):
        _NcclDelivery(Work(), torch.zeros(1), Dying(looks=3)).wait()  # type: ignore[arg-type]


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What stands for every message between GPUs."""
    FakeCuda(monkeypatch, 2)  # its streams cannot be synchronised: the host would wait without looking
    work = Work()
    monkeypatch.setattr(dist, "irecv", lambda data, source, group: work)
    monkeypatch.setattr(dist, "isend", lambda data, to, group: work)
    return work


def test_a_rank_whose_peer_dies_during_a_rebalance_does_not_wait_for_it_on_its_gpu(nccl: Work) -> None:
    """Rank 0 is the only one that takes blocks and is not ended by another process when a rank dies."""
    end = gpu_transport([])
    end._check = Dying(looks=3)
    with pytest.raises(RankLostError, match="Rank 1 ended"):
        Link(0, 3, torch.device("cuda:0"), end).take([torch.zeros(3)], 1)
    assert not nccl.waits, "the compute stream would wait for a dead rank"


def test_blocks_that_arrive_are_there_for_the_work_that_follows(nccl: Work) -> None:
    nccl.looks_to_come = 2
    Link(0, 3, torch.device("cuda:0"), gpu_transport([])).take([torch.zeros(3)], 1)
    assert nccl.waits == 1


@pytest.mark.parametrize("way", ["give", "take"])
def test_a_message_between_gpus_that_failed_is_not_taken_for_one_that_arrived(nccl: Work, way: str) -> None:
    """torch calls it completed; only `Work.wait` raises its error."""
    nccl.looks_to_come, nccl.error = 1, "NCCL error: remote process exited"
    link = Link(0, 3, torch.device("cuda:0"), gpu_transport([]))
    with pytest.raises(RankLostError, match=r"Rank 1 of the pipeline is gone \(NCCL error"):
        getattr(link, way)([torch.zeros(3)], 1)


def test_a_message_in_the_stream_is_awaited_by_the_gpu_and_not_by_the_host(nccl: Work) -> None:
    gpu_transport([]).receive_device(torch.zeros(3), 0)
    assert nccl.waits == 1 and not nccl.looks


@pytest.mark.parametrize("users", [None, "3"])
def test_torch_does_not_end_rank_0_when_a_peer_is_gone(users: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reads the variable when it makes the group. What the user has set is left as it is."""
    name, found = "TORCH_NCCL_ASYNC_ERROR_HANDLING", []
    monkeypatch.setenv(name, users or "")
    if users is None:
        monkeypatch.delenv(name)
    monkeypatch.setattr(transport, "_meet", lambda *_: None)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: found.append((backend, os.environ[name])))
    TorchTransport(0, 2, torch.device("cuda:0"), None)  # type: ignore[arg-type]
    assert found == [("nccl", users or "0")]
    monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "devices, platform, nccl, said, remedy",
    [
        (("cuda:0", "cuda:1"), "win32", False, "on Windows", "WSL 2"),
        (("cuda:0", "remote"), "win32", False, "on Windows", "one GPU"),
        (("cuda:0", "cuda:1"), "linux", False, "has no NCCL", "build of torch for CUDA"),
    ],
)
def test_gpus_without_nccl_are_refused_before_anything_is_loaded(devices, platform, nccl, said, remedy) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        launch.refuse_without_nccl(devices, platform, nccl=nccl)
    assert remedy in refused.value.remedy


class Started(Exception):
    """The ranks would be started now."""


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs of rings, none of which is started."""
    found: list[Job] = []

    def ring(job: Job, *_: object, **__: object) -> None:
        found.append(job)
        raise Started

    monkeypatch.setattr(launch, "Ring", ring)
    return found


def opened(*devices: str, warmup: bool = True) -> None:
    """Open a pipeline as far as the start of its ranks."""
    spec = registry.get("wan21-tiny")
    settings: Any = {"height": 32, "width": 32, "max_steps": 2, "rule": Rule.HONEST}
    launch.open_pipeline(spec, devices, torch.float32, {}, "tiny", settings, warmup=warmup)


def test_no_rank_is_started_where_gpus_cannot_send_to_each_other(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(ModelError, match="Several GPUs cannot share a model"):
        opened("cuda:0", "cuda:1")
    assert not jobs
    with pytest.raises(Started):
        opened("cpu", "cpu")


def test_ranks_on_gpus_are_tuned_if_there_is_a_warm_up(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    for devices, warmup in ((("cuda:0", "cuda:1"), True), (("cuda:0", "cuda:1"), False), (("cpu", "cpu"), True)):
        with pytest.raises(Started):
            opened(*devices, warmup=warmup)
    assert [job.tuned for job in jobs] == [True, False, False]


def test_what_can_exchange_data_is_not_refused() -> None:
    launch.refuse_without_nccl(("cuda:0", "cuda:1"), "linux", nccl=True)
    launch.refuse_without_nccl(("cpu", "cpu"), "win32", nccl=False)
