"""The pipeline gives the results of a single process, through every change of the controls (gloo, on the CPU)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
import torch

from engine.config import Config
from engine.controls import Controls
from engine.distributed import ring
from engine.distributed.link import RankLostError
from engine.distributed.message import Message, Op, RowOrder, pack, unpack
from engine.distributed.pipeline_stream import PipelineStream
from engine.errors import ModelError
from engine.frame import Frame
from engine.models.wan21.build import WordVectors
from engine.session import Session
from engine.stream.kv_cache import Rule
from tests.engine.distributed.shows import SPEC, largest_difference, make, play, splits_over


def test_several_processes_equal_one_while_blocks_move_until_a_rank_dies():
    """Every split, number of ranks and rule: `test_strict_rendezvous`."""
    splits = splits_over(3)
    wanted = play(*make(32, rule=Rule.HONEST))
    stream, noise = make(32, splits[2], rule=Rule.HONEST, decodes=True)

    def move(stream: PipelineStream, index: int) -> None:
        if index in (4, 9, 13):
            stream.resplit(splits[(4, 9, 13).index(index)])

    try:
        assert largest_difference(play(stream, noise, move), wanted) <= 1e-5
        assert stream.split == splits[2]

        victim = stream.ring.processes[2]
        victim.send_signal(signal.SIGKILL)
        with pytest.raises(RankLostError, match="is gone"):
            for index in range(20):
                noisy = torch.randn(1, 16, 2 if index == 0 else 1, 4, 4)
                stream.denoise(noisy, torch.tensor(700), (700,), index)
        assert stream.ring.lost() == (2,)
    finally:
        stream.ring.close()


def test_session_refuses_to_save_a_distributed_stream_and_continues_when_a_rank_is_killed(tmp_path):
    config = Config(model=SPEC.name, width=64, height=64, devices=("cpu", "cpu"), threads=1)
    controls = Controls(prompt_1="sea", strength=0.8, steps=2)
    out, troubles = [], []
    with Session.open(config, files={}) as session:
        with pytest.raises(ModelError, match="caches of the other ranks") as refused:
            session.save(tmp_path / "stream")
        assert "one device" in refused.value.remedy
        assert list(tmp_path.iterdir()) == []
        for seq in range(61):
            session.feed(Frame(np.full((64, 64, 3), seq, np.uint8), pts_ns=seq * 33_333_333, seq=seq))
            if seq == 30:
                session._stream.ring.processes[1].kill()
            if session.ready:
                out += session.step(controls)
                troubles += [session.health.trouble] * bool(session.health.trouble)
        out += session.flush()
        assert session.health.devices == 1
    assert [frame.seq for frame in out] == list(range(61))
    assert len(troubles) == 1 and "cpu (rank 1)" in troubles[0]


def test_ranks_leave_signals_of_the_group_to_the_engine_and_outlive_the_thread_that_opened_them(monkeypatch):
    monkeypatch.setattr(ring, "STOP_SECONDS", 60.0)  # a busy machine may take its time
    opened = []
    thread = threading.Thread(target=lambda: opened.append(make(32, ((0, 2), (2, 4)))))
    thread.start()
    thread.join()
    stream, _ = opened[0]
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            stream.ring.processes[1].send_signal(number)
        stream.set_prompt(WordVectors(SPEC).encode("sea").embedding)
        done = []
        for index in range(12):
            noisy = torch.randn(1, 16, 2 if index == 0 else 1, 4, 4)
            done += stream.denoise(noisy, torch.tensor(700), (700,), index)
        assert len(done) >= 8
        assert stream.ring.processes[1].poll() is None
    finally:
        stream.ring.close()
    assert stream.ring.processes[1].returncode == 0


PARENT = """
import time
from tests.engine.distributed.shows import make
stream, _ = make(32, ((0, 2), (2, 4)))
print(stream.ring.processes[1].pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_stopped_rank_ends_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        rank = psutil.Process(int(parent.stdout.readline()))
        rank.suspend()
        parent.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.wait(60)
    assert not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE


def test_messages_survive_serialisation():
    parts = [torch.randn(2, 3, 5), torch.arange(3), torch.randn(1, 4, 1, 2, 2, dtype=torch.bfloat16)]
    rows = (RowOrder(7, 3, True, 2), RowOrder(6, 2, False, 0))
    sent = Message(Op.FORWARD, rows, 1, 6, False, True, (1, 2), text=4, finished=2, first=1, parts=parts)
    got, layouts = Message.read(sent.header())
    got.parts = unpack(pack(parts), layouts)
    assert all(torch.equal(a, b) for a, b in zip(got.parts, parts, strict=True))
    got.parts = sent.parts
    assert got == sent


def test_rank_without_a_ring_says_what_is_wrong():
    command = [sys.executable, "-m", "engine.distributed.rank", "--rank", "0", "--world", "2"]
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120)
    assert found.returncode == 2 and "rank 0 is the engine itself" in found.stderr
