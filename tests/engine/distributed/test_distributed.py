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
from engine.distributed.chunk_plan import text_versions
from engine.distributed.link import Message, Op, RankLostError, RowOrder, pack, unpack
from engine.distributed.pipeline_stream import PipelineStream
from engine.distributed.ring import Job, Ring
from engine.errors import ModelError
from engine.frame import Frame
from engine.models import registry
from engine.models.wan21.build import WordVectors
from engine.network.protocol import keep_blocks
from engine.session import Session
from engine.stream.kv_cache import Rule
from engine.stream.noise import RULES, Gaussian
from engine.stream.stream import LocalStream
from engine.stream.timesteps import steps_for

SPEC = registry.get("wan21-tiny")
CPU = torch.device("cpu")
STEPS = (2, 2, 2, 3, 3, 1, 1, 4, 4, 4, 2, 2, 4, 4, 1, 3, 3, 3, 2, 2)
STRENGTHS = (0.8, 0.5, 1.0)
PROMPTS = (0, 5, 9, 10, 14)


def make(size: int, split=None, *, rule=Rule.REFERENCE, decodes=False):
    """A stream of the tiny model: in one process, or with one rank per interval of `split`."""
    noise = Gaussian((16, size // 8, size // 8), CPU, steps=4, fixed=False)
    parts = registry.builder(SPEC)
    dit = parts.build_network(SPEC, CPU, torch.float32, {})
    codec = parts.build_codec(SPEC, "full", CPU, torch.float32, {})
    settings = dict(
        height=size, width=size, noise=noise, rule=rule, noise_rule=RULES["released"], batch=True, max_steps=4
    )
    if split is None:
        return LocalStream(SPEC, dit, codec, **settings), noise
    job = Job(
        SPEC.name, size, size, split, 4, text_versions(4, len(split)), str(rule), "full", "float32", decodes, threads=1
    )
    ring = Ring(job, ["cpu"] * len(split))
    keep_blocks(dit, *split[0])
    return PipelineStream(ring, SPEC, dit, codec, **settings), noise


def play(stream: LocalStream | PipelineStream, noise: Gaussian, between=None):
    """A show with a change of steps, strength, prompt, seed or anchor at almost every chunk."""
    words, generator, out = WordVectors(SPEC), torch.Generator().manual_seed(3), []
    size = stream.ends.controller.last_frame.shape[-1]
    scene = torch.rand(3, 1, size, size, generator=generator) * 2 - 1
    for index, count in enumerate(STEPS):
        if between is not None:
            between(stream, index)
        if index in PROMPTS:
            stream.set_prompt(words.encode(f"prompt {index}").embedding)
        if index == 11:
            noise.set_seed(7)
        steps = steps_for(SPEC.schedule, STRENGTHS[index % 3], count)
        video = scene + 0.3 * torch.rand(3, 4 + (index == 0), size, size, generator=generator)
        noisy, first = stream.encode(video.clamp(-1, 1), steps)
        for ticket, clean in stream.denoise(noisy, first, steps.timesteps, index, anchor=index == 8):
            out.append((ticket, clean.clone(), stream.decode(clean).clone()))
    out += [(ticket, clean.clone(), stream.decode(clean).clone()) for ticket, clean in stream.flush()]
    stream.reset()
    return out


def largest_difference(got, want) -> float:
    assert [g[0] for g in got] == [w[0] for w in want] == list(range(len(STEPS)))
    pairs = [(g[i], w[i]) for g, w in zip(got, want, strict=True) for i in (1, 2)]
    return max((g - w).abs().max().item() for g, w in pairs)


@pytest.fixture(scope="module")
def single():
    """The results of a single process, by rule."""
    return {rule: play(*make(64, rule=rule)) for rule in (Rule.REFERENCE, Rule.HONEST)}


@pytest.mark.parametrize(
    "rule, split, decodes",
    [
        (Rule.REFERENCE, ((0, 1), (1, 4)), True),
        (Rule.HONEST, ((0, 2), (2, 3), (3, 4)), False),
        (Rule.REFERENCE, ((0, 1), (1, 2), (2, 3), (3, 4)), True),
    ],
    ids=["2-ranks", "3-ranks", "4-ranks"],
)
def test_several_processes_equal_one_for_every_split(single, rule, split, decodes):
    splits = [
        tuple(zip((0, *cuts), (*cuts, 4), strict=True))
        for cuts in {2: [(2,), (3,), (1,)], 3: [(1, 2), (1, 3), (2, 3)], 4: [(1, 2, 3)]}[len(split)]
    ]
    stream, noise = make(64, split, rule=rule, decodes=decodes)

    def move(stream: PipelineStream, index: int) -> None:
        if index in (4, 9, 13):
            stream.resplit(splits[(4, 9, 13).index(index) % len(splits)])

    try:
        assert largest_difference(play(stream, noise), single[rule]) <= 1e-5
        noise.set_seed(0)
        noise.reset()
        assert largest_difference(play(stream, noise, move), single[rule]) <= 1e-5
        assert stream.split == splits[2 % len(splits)]
    finally:
        stream.ring.close()


def test_a_thousand_chunks_a_rebalance_and_the_death_of_a_rank():
    stream, _ = make(32, ((0, 1), (1, 2), (2, 4)), rule=Rule.HONEST)
    try:
        stream.set_prompt(WordVectors(SPEC).encode("sea").embedding)
        first = torch.tensor(700)
        done = []
        for index in range(1000):
            steps = steps_for(SPEC.schedule, 0.8, 1 + index // 50 % 4)
            noisy = torch.randn(1, 16, 2 if index == 0 else 1, 4, 4)
            done += stream.denoise(noisy, first, steps.timesteps, index)
            if index == 500:
                stream.rebalance()
        assert [ticket for ticket, _ in done] == list(range(len(done))) and len(done) > 980
        assert all(torch.isfinite(clean).all() for _, clean in done[-20:])
        assert sum(end - start for start, end in stream.split) == 4

        victim = stream.ring.processes[2]
        victim.send_signal(signal.SIGKILL)
        with pytest.raises(RankLostError, match="is gone"):
            for index in range(20):
                stream.denoise(torch.randn(1, 16, 1, 4, 4), first, (700,), index)
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


def test_ranks_leave_signals_of_the_group_to_the_engine_and_outlive_the_thread_that_opened_them():
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
from tests.engine.distributed.test_distributed import make
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
