"""Recordings with transparency: ProRes 4444 from real processes, decoded by PyAV."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import Pipe
from pathlib import Path

import av
import av.codec.codec
import numpy as np
import pytest

from bridge.ipc.frame_ring import FrameRing
from bridge.video.files import encode
from engine.frame import Frame, PixelFormat
from tests.bridge.video.files.test_record import FPS, HEIGHT, WIDTH, Rig, frames_of, rig, written
from tests.support.browser import wait

__all__ = ["rig"]  # the fixture

LOSS = 6
"""Largest error of a level, away from edges."""


def cut_out(premultiply: bool = False) -> Frame:
    """A gradient, transparent on the left, half transparent in the middle, opaque on the right."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    pixels = np.stack([80 + x, 200 - y, 60 + x // 2], -1).astype(np.uint8)
    alpha = np.repeat(np.asarray([0, 128, 255], np.uint8), (WIDTH // 2, WIDTH // 4, WIDTH // 4))
    return Frame(pixels, alpha=np.tile(alpha, (HEIGHT, 1)), premultiply=premultiply)


def alpha_of(picture: av.VideoFrame) -> np.ndarray:
    """The alpha as it is in the file, of 8 bits: a conversion of the whole picture rounds it up by one in places."""
    plane, bits = picture.planes[3], picture.format.components[3].bits
    values = np.frombuffer(plane, np.uint16).reshape(picture.height, -1)[:, : picture.width]
    return np.rint(values * (255.0 / (2**bits - 1))).astype(np.uint8)


def decoded(path: Path) -> tuple[list[np.ndarray], str, str]:
    """All pictures as RGBA, the comment in the file, and the codec's profile."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = []
        for picture in container.decode(stream):
            rgba = picture.to_ndarray(format="rgba")
            rgba[..., 3] = alpha_of(picture)
            pictures.append(rgba)
        return pictures, container.metadata["comment"], str(stream.codec_context.profile)


@pytest.mark.parametrize("premultiply", [False, True])
def test_the_file_has_the_alpha_and_says_which_kind(rig: Rig, premultiply: bool) -> None:
    frame = cut_out(premultiply)
    rig.recorder.offer("output", frame)
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process")
    path = Path(rig.path)
    for _ in range(5):
        rig.recorder.offer("output", frame)
    rig.recorder.close()
    assert rig.troubles == [] and path.suffix == ".mov"
    pictures, comment, profile = decoded(path)
    assert len(pictures) == 5 and profile == "4444"
    assert comment == f"Tidecast: {'premultiplied' if premultiply else 'straight'} alpha"
    assert frame.alpha is not None
    shown = frame.pixels * (frame.alpha[..., None] / 255.0) if premultiply else frame.pixels
    inner = [np.s_[4:-4, a + 8 : b - 8] for a, b in ((0, WIDTH // 2), (WIDTH // 2, WIDTH - WIDTH // 4))]
    inner.append(np.s_[4:-4, WIDTH - WIDTH // 4 + 8 : -4])
    for picture in pictures:
        assert (picture[..., 3] == frame.alpha).all(), "alpha is lossless"
        for part in inner:
            assert np.abs(picture[part][..., :3].astype(float) - shown[part]).max() <= LOSS


def test_a_new_file_begins_when_the_alpha_comes_goes_or_changes_its_kind(rig: Rig) -> None:
    plain = Frame(cut_out().pixels)
    rig.recorder.offer("output", plain)
    rig.recorder.want(True, False)
    files: list[str] = []
    for frame in (plain, cut_out(), cut_out(True), plain):

        def next_file(frame: Frame = frame) -> bool:
            rig.recorder.offer("output", frame)
            return bool(rig.path) and rig.path not in files

        wait(next_file, "another file")
        files.append(rig.path)
        for _ in range(3):
            rig.recorder.offer("output", frame)
    rig.recorder.close()
    assert rig.troubles == [] and [Path(file).suffix for file in files] == [".mp4", ".mov", ".mov", ".mp4"]
    assert [decoded(Path(file))[1].split()[1] for file in files[1:3]] == ["straight", "premultiplied"]
    assert "" not in rig.statuses[:-1], "between the files the recording stays switched on"
    assert all(len(frames_of(Path(file))) >= 3 for file in files)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_process_leaves_a_playable_file_with_alpha(rig: Rig) -> None:
    frame = cut_out()
    rig.recorder.offer("output", frame)
    rig.recorder.want(True, False)
    wait(lambda: rig.recorder.pids, "the process")
    path = Path(rig.path)

    def a_second() -> bool:
        rig.recorder.offer("output", frame)
        return written(path) >= 5

    wait(a_second, "pictures in the file, while the recording runs")
    os.kill(rig.recorder.pids["output"], signal.SIGKILL)
    wait(lambda: rig.troubles, "the report")
    assert "died" in rig.troubles[0]
    pictures, _, _ = decoded(path)
    assert len(pictures) >= 5 and (pictures[0][..., 3] == frame.alpha).all()


def test_a_missing_encoder_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Container:
        def __init__(self) -> None:
            self.metadata: dict[str, str] = {}

        def __enter__(self) -> Container:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def add_stream(self, name: str, rate: object) -> None:
            raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av, "open", lambda *arguments, **options: Container())
    monkeypatch.setattr(encode.os, "nice", lambda more: None, raising=False)
    monkeypatch.setattr(encode.signal, "signal", lambda *arguments: None)
    ours, theirs = Pipe()
    with FrameRing(WIDTH, HEIGHT, format=PixelFormat.RGBA) as ring, ring.reader() as reader:
        encode.write(reader, tmp_path / "x.mov", encode.Form(WIDTH, HEIGHT, "straight"), FPS, theirs)
    said = ours.recv()
    assert "no encoder prores" in said and "output alpha to off" in said
