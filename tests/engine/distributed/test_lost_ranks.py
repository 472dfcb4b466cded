"""A rank that ends, at any time, leaves nobody waiting; computers that cannot run several GPUs are told so at once."""

from __future__ import annotations

import datetime
import signal
import sys
import threading
import time
from dataclasses import replace

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
    class Work:
        def is_completed(self) -> bool:
            return False

        def wait(self) -> None:
            raise AssertionError("the compute stream would wait for a dead rank")

    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise RankLostError("Rank 1 ended.")

    with pytest.raises(RankLostError, match="Rank 1 ended"):
        _NcclDelivery(Work(), torch.zeros(1), check).wait()  # type: ignore[arg-type]


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


def test_what_can_exchange_data_is_not_refused() -> None:
    launch.refuse_without_nccl(("cuda:0", "cuda:1"), "linux", nccl=True)
    launch.refuse_without_nccl(("cpu", "cpu"), "win32", nccl=False)
