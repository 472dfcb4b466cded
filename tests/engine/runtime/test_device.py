"""Which devices can be chosen; streams of a GPU, their priorities, and what waits for what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

from engine.errors import ModelError
from engine.runtime import device as device_module
from engine.runtime.device import device_for, use_video_stream
from engine.runtime.transfers import CudaSideStream, HostSideStream, side_stream, transfers
from tests.support.fake_cuda import FakeCuda


def test_apples_gpu_is_refused_by_name_because_it_has_no_float64() -> None:
    with pytest.raises(ModelError, match=r"do not run on mps.*Choose auto, cpu"):
        device_for("mps")
    assert device_for("cpu") == torch.device("cpu")


CUDA = torch.device("cuda", 1)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    device_module._video_stream.cache_clear()
    yield FakeCuda(monkeypatch, 2)
    device_module._video_stream.cache_clear()


def test_the_video_has_a_stream_of_higher_priority_and_one_only(cuda: FakeCuda) -> None:
    """CUDA's default stream has the lowest priority; nothing could give way to it."""
    default = cuda.current
    use_video_stream(torch.device("cpu"))
    assert cuda.current is default
    use_video_stream(CUDA)
    video = cuda.current
    assert (video.device, video.priority) == (CUDA, -1)
    use_video_stream(CUDA)
    assert cuda.current is video, "freed memory is reused only in the stream that had it"


def test_work_beside_the_video_gives_way_to_it_and_its_host_thread_sleeps(cuda: FakeCuda) -> None:
    use_video_stream(CUDA)
    video, side = cuda.current, side_stream(CUDA)
    assert isinstance(side, CudaSideStream)
    with pytest.raises(ZeroDivisionError), side.active():
        beside = cuda.current
        assert (beside.device, beside.priority) == (CUDA, 0)
        raise ZeroDivisionError
    assert cuda.current is video
    with side.active():
        assert cuda.current is beside
    side.mark().synchronize()
    assert cuda.log == ["event in stream 2", "the host sleeps until stream 2 is there"]
    assert isinstance(side_stream(torch.device("cpu")), HostSideStream)


class Memory:
    """Stands for a tensor: a picture, or its copy, on the GPU or in the host's memory."""

    def __init__(self, cuda: FakeCuda, name: str, device: str, locked: bool = False) -> None:
        self.cuda, self.name, self.locked = cuda, name, locked
        self.device = torch.device(device)
        self.is_cuda = self.device.type == "cuda"

    def copy_(self, source: Memory, *, non_blocking: bool) -> None:
        """See `torch.Tensor`."""
        assert non_blocking and (self.locked or source.locked), "the host would wait for the copy"
        self.cuda.log.append(f"{self.name} is made in {self.cuda.current}")

    def record_stream(self, stream: object) -> None:
        """See `torch.Tensor`: its memory is not used again before this stream's work until now is done."""
        self.cuda.log.append(f"{self.name} stays for {stream}")


@pytest.fixture
def memory(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Memory]:
    def empty_like(source: Memory, *, device: torch.device | str, pin_memory: bool = False) -> Memory:
        return Memory(cuda, "the copy", str(device), pin_memory)

    monkeypatch.setattr(torch, "empty_like", empty_like)
    return partial(Memory, cuda)


def test_the_video_waits_for_an_upload_and_the_host_does_not(cuda: FakeCuda, memory: Callable[..., Any]) -> None:
    use_video_stream(CUDA)
    up, _ = transfers(CUDA)
    pending = up.send(memory("a picture", "cpu", locked=True))
    assert cuda.log == ["the copy is made in stream 2", "event in stream 2"], "beside the video, stream 1"
    cuda.log.clear()
    assert pending.wait().device == CUDA
    assert cuda.log == ["stream 1 waits for stream 2", "the copy stays for stream 1"]


def test_a_download_takes_what_the_video_has_computed_by_then_and_keeps_it(
    cuda: FakeCuda, memory: Callable[..., Any]
) -> None:
    use_video_stream(CUDA)
    _, down = transfers(CUDA)
    pending = down.send(memory("a picture", "cuda:1"))
    assert cuda.log == [
        "stream 3 waits for stream 1",
        "a picture stays for stream 3",
        "the copy is made in stream 3",
        "event in stream 3",
    ]
    cuda.log.clear()
    assert pending.wait().device.type == "cpu"
    assert cuda.log == ["the host spins until stream 3 is there"]


def test_what_the_side_stream_uploads_from_is_page_locked(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    asked: list[tuple[int, torch.dtype, bool]] = []
    monkeypatch.setattr(torch, "empty", lambda count, *, dtype, pin_memory: asked.append((count, dtype, pin_memory)))
    side_stream(CUDA).page_locked(100)
    assert asked == [(100, torch.uint8, True)]
