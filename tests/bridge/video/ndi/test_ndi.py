"""Real NDI between processes on loopback, with our own and with another binding at the other end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from bridge.video.base import Options
from bridge.video.ndi.metadata import from_xml, to_xml
from bridge.video.ndi.runtime import choose, short_name
from bridge.video.ndi.transport import NdiSource
from bridge.video.opening import open_sink, open_source
from bridge.video.synthetic.pattern import BARS, bars, read_counter
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat
from tests.support.video_peers import (
    Peer,
    serve,
    serve_with_cyndilib,
    solid,
    unique,
    watch,
    watch_with_cyndilib,
)

TOLERANCE = 24


def frames_of(source, count: int, seconds: float = 60.0) -> list[Frame]:
    got: list[Frame] = []
    deadline = time.monotonic() + seconds
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} frames came; {source.problem}"
        frame = source.read(0.1)
        if frame is not None:
            got.append(frame)
    return got


def until_lost(source) -> float:
    started = time.monotonic()
    while source.connected:
        assert time.monotonic() - started < 30.0
        source.read(0.05)
    return time.monotonic() - started


def assert_bars(pixels: np.ndarray) -> None:
    columns = (2 * np.arange(8) + 1) * pixels.shape[1] // 16
    got = pixels[pixels.shape[0] // 4, columns, :3].astype(int)
    assert np.abs(got - np.asarray(BARS)).max() <= TOLERANCE, got


def test_frames_and_metadata_from_process_to_process():
    name = unique("ride")
    with Peer(serve, name, 320, 192, 30, None) as peer, open_source(f"ndi:{name}") as source:
        frames = frames_of(source, 20)
        peer.conn.send(("receivers",))
        assert peer.answer() == 1
        assert source.info.title.endswith(f"({name})")
        assert (source.info.width, source.info.height, source.info.fps) == (320, 192, 30.0)
    for frame in frames:
        assert_bars(frame.pixels)
        assert read_counter(frame.pixels) == int(frame.metadata["seq"])
        controls = json.loads(frame.metadata["controls"])
        assert controls == {
            "strength": int(frame.metadata["seq"]) / 1000,
            "prompt_1": 'a <wärm> & "dark" sky\n',
        }
        assert 0 < time.time_ns() - int(frame.metadata["captured"]) < 60e9
        assert frame.format is PixelFormat.RGB
    numbers = [int(frame.metadata["seq"]) for frame in frames]
    assert numbers == sorted(set(numbers))
    # The source's own times come along: those between two frames are the ones at which it made them.
    made = np.diff([int(frame.metadata["captured"]) for frame in frames])
    assert np.median(np.abs(np.diff([frame.pts_ns for frame in frames]) - made)) < 1e7


def test_alpha_arrives(tmp_path):
    name, colour = unique("alpha"), (200, 100, 50, 90)
    with Peer(serve_with_cyndilib, name, str(tmp_path), colour), open_source(f"ndi:{name}") as source:
        frame = frames_of(source, 3)[-1]
    assert frame.format is (PixelFormat.BGRA if sys.platform == "win32" else PixelFormat.RGBA)
    pixels = frame.pixels[..., [2, 1, 0, 3]] if frame.format is PixelFormat.BGRA else frame.pixels
    assert np.abs(pixels[20, 20].astype(int) - (200, 100, 50, 90)).max() <= TOLERANCE


@pytest.mark.parametrize(("fourcc", "wanted"), [("RGBA", PixelFormat.RGBA), ("BGRA", PixelFormat.BGRA)])
def test_the_order_of_channels_is_what_the_library_says(fourcc, wanted):
    """NDI for Windows answers BGRA where RGBA was asked for."""
    freed = []
    ndi = SimpleNamespace(
        FOURCC_VIDEO_TYPE_BGRA="BGRA", RECV_TIMESTAMP_UNDEFINED=2**63 - 1, recv_free_video_v2=lambda *a: freed.append(a)
    )
    pixels = np.full((48, 64, 4), (50, 100, 200, 90), np.uint8)
    video = SimpleNamespace(
        FourCC=fourcc, data=pixels, metadata="", timestamp=1, xres=64, yres=48, frame_rate_N=30, frame_rate_D=1
    )
    source = NdiSource("", Options())
    frame = source._frame(source._copy(ndi, video))
    assert (frame.format, len(freed)) == (wanted, 1)
    assert (frame.pixels == pixels).all()


@pytest.mark.parametrize("size", [(64, 48), (320, 192), (1280, 720)])
def test_colours_arrive_as_they_were_sent_at_every_size(size):
    """NDI's pictures travel as BT.709 whatever their size; another matrix would be off by more than twenty."""
    name, (width, height) = unique("colour"), size
    colours = np.asarray([(235, 20, 20), (20, 235, 20), (20, 20, 235), (255, 255, 255), (0, 0, 0)], np.uint8)
    sent = Frame(np.broadcast_to(colours[np.arange(width) * 5 // width], (height, width, 3)).copy())
    own = f"ndi:{socket.gethostname().split('.')[0].upper()} ({name})"  # our own outputs have to be named in full
    with open_sink(f"ndi:{name}") as sink, open_source(own) as source:
        deadline = time.monotonic() + 90.0
        while (frame := source.read(0.02)) is None:
            assert time.monotonic() < deadline
            sink.send(sent)
    assert (frame.width, frame.height, frame.format) == (width, height, PixelFormat.RGB)
    middles = (2 * np.arange(5) + 1) * width // 10
    assert np.abs(frame.pixels[height // 2, middles].astype(int) - colours).max() <= 8


def test_a_sender_that_is_killed_is_found_again_when_it_comes_back():
    name = unique("kill")
    with Peer(serve, name, 320, 192, 30, None) as peer, open_source(f"ndi:{name}") as source:
        frames_of(source, 5)
        os.kill(peer.process.pid, signal.SIGKILL)
        until_lost(source)
        assert name in source.problem
        with Peer(serve, name, 256, 128, 30, None):
            frame = frames_of(source, 5)[-1]
            assert (frame.width, frame.height) == (256, 128)
            assert source.connected


def test_another_source_whose_name_contains_it_does_not_take_the_place_of_a_lost_one():
    name = unique("cam")
    with Peer(serve, name, 320, 192, 30, None) as peer, open_source(f"ndi:{name}") as source:
        frames_of(source, 5)
        with Peer(serve, f"{name} wide", 192, 128, 30, None):
            os.kill(peer.process.pid, signal.SIGKILL)
            until_lost(source)
            deadline = time.monotonic() + 10.0
            while f"{name} wide" not in source.problem:
                assert source.read(0.1) is None
                assert time.monotonic() < deadline, "the other one is seen"
            with Peer(serve, name, 256, 128, 30, None):
                assert frames_of(source, 1)[0].width == 256


def test_size_changes_in_mid_stream_between_processes():
    name = unique("size")
    with Peer(serve, name, 320, 192, 30, None) as peer, open_source(f"ndi:{name}") as source:
        frames_of(source, 3)
        for size in ((640, 360), (256, 128)):
            peer.conn.send(("size", *size))
            deadline = time.monotonic() + 90.0
            while (frame := frames_of(source, 1)[0]).width != size[0]:
                assert time.monotonic() < deadline
            assert (frame.width, frame.height) == size and read_counter(frame.pixels) is not None


def test_two_senders_are_told_apart():
    red, blue = unique("red"), unique("blue")
    with Peer(serve, red, 64, 48, 30, (220, 20, 20)), Peer(serve, blue, 64, 48, 30, (20, 20, 220)):
        with open_source(f"ndi:{red}") as one, open_source(f"ndi:{blue}") as two:
            for _ in range(2):
                a, b = frames_of(one, 3)[-1].pixels[20, 20], frames_of(two, 3)[-1].pixels[20, 20]
                assert a[0] > 150 > 60 > a[2] and b[2] > 150 > 60 > b[0]
        with open_source(f"ndi:{blue}") as one:  # swapped
            pixel = frames_of(one, 3)[-1].pixels[20, 20]
            assert pixel[2] > 150 > 60 > pixel[0]


def test_a_slow_reader_stays_at_the_newest_frame():
    name = unique("slow")
    with Peer(serve, name, 320, 192, 60, None) as peer, open_source(f"ndi:{name}") as source:
        first = int(frames_of(source, 3)[-1].metadata["seq"])
        behind = []
        for _ in range(6):
            time.sleep(0.3)  # eighteen frames come meanwhile; the SDK would queue ten
            peer.conn.send(("number",))
            newest = peer.answer()
            behind.append(newest - int(frames_of(source, 1)[0].metadata["seq"]))
        assert np.median(behind) < 5
        assert source.skipped >= (newest - first) // 3


def test_our_output_is_read_by_another_process():
    name = unique("out")
    with open_sink(f"ndi:{name}", Options()) as sink, Peer(watch, name, 15) as peer:
        number = 0
        while not peer.conn.poll():
            sink.send(Frame(bars(number, 320, 192, 30), seq=number), {"note": "hello"})
            number += 1
            time.sleep(1 / 30)
        numbers, pixels, metadata = peer.answer()
    assert None not in numbers and len(numbers) == 15 and numbers == sorted(set(numbers))
    assert_bars(pixels)
    assert metadata["note"] == "hello" and int(metadata["seq"]) == numbers[-1]


def test_another_binding_reads_our_output(tmp_path):
    name = unique("cyndi out")
    with open_sink(f"ndi:{name}", Options()) as sink, Peer(watch_with_cyndilib, name, 10, str(tmp_path)) as peer:
        number = 0
        while not peer.conn.poll():
            sink.send(Frame(bars(number, 320, 192, 30), seq=number))
            number += 1
            time.sleep(1 / 30)
        numbers, pixels, _ = peer.answer()
    assert len({n for n in numbers if n is not None}) >= 9
    assert pixels is not None and pixels.shape[:2] == (192, 320)
    assert_bars(pixels)


def test_we_read_the_output_of_another_binding(tmp_path):
    name = unique("cyndi in")
    with Peer(serve_with_cyndilib, name, str(tmp_path)) as peer, open_source(f"ndi:{name}") as source:
        frames = frames_of(source, 10)
        assert source.info.fps == 25.0
        peer.conn.send(("tally",))
        assert peer.answer() is True, "the sender hears that its picture is on air"
    assert_bars(frames[-1].pixels)
    numbers = [read_counter(frame.pixels) for frame in frames]
    assert None not in numbers and numbers == sorted(set(numbers))


def test_odd_sizes_are_cut_to_even_ones_and_nothing_is_too_small():
    name = unique("odd")
    with open_sink(f"ndi:{name}") as sink:
        sink.send(solid((1, 2, 3), 251, 131))
        with pytest.raises(TransportError, match="2x2"):
            sink.send(solid((1, 2, 3), 1, 50))


HASTY = """
import sys, time
from bridge.video.opening import open_sink, open_source
from tests.support.video_peers import solid
sink = open_sink(f"ndi:{sys.argv[1]}")
source = open_source(f"ndi:{sys.argv[1]} of nobody")
sink.send(solid((1, 2, 3)))
source.read(0.05)
print("done")  # and end with everything open
"""


def test_a_process_that_ends_with_everything_open_ends_cleanly():
    done = subprocess.run(
        [sys.executable, "-c", HASTY, unique("hasty")], capture_output=True, text=True, timeout=60, cwd=os.getcwd()
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("rounds", [25])
def test_short_lived_receivers_do_not_end_the_sender(rounds):
    name = unique("churn")
    with Peer(serve, name, 64, 48, 60, (9, 9, 9)) as peer:
        for _ in range(rounds):
            with open_source(f"ndi:{name}") as source:
                frames_of(source, 1)
        assert peer.process.is_alive()


# Names and strings


def test_exact_names_come_before_partial_ones():
    names = ["HOST (OBS)", "HOST (OBS 2)", "OTHER (Camera)", "OTHER (obs)"]
    assert choose("HOST (OBS 2)", names) == "HOST (OBS 2)"
    assert choose("obs", names) == "HOST (OBS)"
    assert choose("camera", names) == "OTHER (Camera)"
    assert choose("other (*obs*)", names) == "OTHER (obs)"
    assert choose("*2*", names) == "HOST (OBS 2)"
    assert choose("amer", names) == "OTHER (Camera)"
    assert choose("amer", names, whole=True) is None and choose("*2*", names, whole=True) is None
    assert choose("camera", names, whole=True) == "OTHER (Camera)"
    assert choose("", names) == "OTHER (Camera)"
    assert choose("nothing", names) is None
    assert choose("", []) is None
    assert short_name("HOST (A (b))") == "A (b)"
    assert short_name("plain") == "plain"


@pytest.mark.parametrize("text", ["", "plain", "a\"b'c", "<&>", "line\nbreak\ttab", "ünï 日本 🎉", "x" * 5000])
def test_strings_survive_xml(text):
    assert from_xml(to_xml({"controls": text, "seq": "1"})) == {"controls": text, "seq": "1"}


def test_what_xml_cannot_hold_becomes_a_space():
    assert from_xml(to_xml({"a": "x\x00\x1b\ud800y"})) == {"a": "x   y"}
    with pytest.raises(ValueError, match="metadata key"):
        to_xml({"a b": "x"})


@pytest.mark.parametrize(
    "text",
    [
        "<ndi_product long_name='x'/>",
        "<tidecast broken",
        "no xml",
        "<tidecast a='1'><!ENTITY x 'y'></tidecast>",
    ],
)
def test_metadata_of_other_programs_is_passed_on_unchanged(text):
    assert from_xml(text) == {"ndi": text}


def test_metadata_that_is_too_long_or_empty_is_ignored():
    assert from_xml("") == {} and from_xml("<tidecast a='" + "x" * 70000 + "'/>") == {}
