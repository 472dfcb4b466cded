"""Which devices can be chosen, and that the video's work on a GPU precedes other work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine.errors import ModelError
from engine.runtime import device as device_module
from engine.runtime.device import device_for, use_video_stream
from engine.runtime.transfers import CudaSideStream, HostSideStream, side_stream
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
    assert cuda.log == ["event in a stream of priority 0", "the host sleeps"]
    assert isinstance(side_stream(torch.device("cpu")), HostSideStream)


def test_what_the_side_stream_uploads_from_is_page_locked(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    asked: list[tuple[int, torch.dtype, bool]] = []
    monkeypatch.setattr(torch, "empty", lambda count, *, dtype, pin_memory: asked.append((count, dtype, pin_memory)))
    side_stream(CUDA).page_locked(100)
    assert asked == [(100, torch.uint8, True)]
