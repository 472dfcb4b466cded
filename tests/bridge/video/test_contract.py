"""One suite over every transport: what `bridge.video.base` promises.

NDI is the real library. Spout and Syphon are replaced by strict fakes that raise on misuse.
"""

from __future__ import annotations

import importlib
import itertools
import socket
import sys
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from bridge.video import table
from bridge.video.address import parse_uri
from bridge.video.base import Options, Sink, Source
from bridge.video.devices.live import Device, LiveSource
from bridge.video.opening import list_sources, open_sink, open_source, unavailable
from bridge.video.synthetic import pattern
from engine.errors import NameTakenError, TransportError
from engine.frame import Frame, PixelFormat
from tests.fakes import spoutgl
from tests.fakes import syphon as syphon_fake
from tests.support.video_peers import solid, unique

LOSSY = 22
"""NDI's colours are video range 4:2:2: the largest error that was seen, plus one step."""

FPS = Fraction(30)


class Loop:
    """A sink and a source of the same transport, to be connected with each other."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.name = unique(scheme)
        full = f"{socket.gethostname().split('.')[0].upper()} ({self.name})" if scheme == "ndi" else self.name
        self.sink_uri, self.source_uri = f"{scheme}:{self.name}", f"{scheme}:{full}"
        self.exact = scheme != "ndi"

    def meet(self, sink: Sink, source: Source, frame: Frame | None = None) -> Frame:
        """Send until a frame of the same size arrives."""
        frame = frame or solid((200, 40, 90))
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            sink.send(frame)
            got = source.read(0.05)
            if got is not None and (got.width, got.height) == (frame.width, frame.height):
                return got
        raise AssertionError(f"no frame of {frame.width}x{frame.height} came; {source.problem}")

    def same(self, got: np.ndarray, sent: np.ndarray) -> bool:
        return int(np.abs(got.astype(int) - sent.astype(int)).max()) <= (0 if self.exact else LOSSY)


@pytest.fixture(params=["ndi", "spout", "syphon"])
def loop(request, monkeypatch):
    if request.param == "spout":
        monkeypatch.setitem(sys.modules, "SpoutGL", spoutgl)
        monkeypatch.setattr(spoutgl, "counts_frames", True)
    if request.param == "syphon":
        for name in ("syphon", "syphon.utils", "syphon.utils.numpy", "syphon.utils.raw"):
            monkeypatch.setitem(sys.modules, name, syphon_fake)
        monkeypatch.setattr("bridge.video.textures.syphon._LOOK_EVERY_S", 0.1)
    yield Loop(request.param)
    assert spoutgl.contexts == 0, "a GL context was left open"


@pytest.fixture(params=["pattern", "file", "live"])
def source(request, tmp_path):
    """A source that needs no sender, not yet open."""
    if request.param == "pattern":
        made = pattern.PatternSource("counter", Options(width=128, height=96, fps=FPS))
    elif request.param == "file":
        made = importlib.import_module("bridge.video.files.file").source(
            str(make_file(tmp_path / "clip.mp4", 20)), Options()
        )
    else:
        made = LiveSource("camera:test", "Test", Device("lavfi", "testsrc=size=128x96:rate=30,realtime"))
    yield made
    made.close()


def make_file(path, frames: int, fps: int = 30):
    container = av.open(str(path), "w")
    stream = container.add_stream("libx264", rate=fps)
    stream.width, stream.height, stream.pix_fmt = 256, 128, "yuv420p"
    for number in range(frames):
        picture = av.VideoFrame.from_ndarray(pattern.bars(number, 256, 128, Fraction(fps)), format="rgb24")
        container.mux(stream.encode(picture))
    container.mux(stream.encode())
    container.close()
    return path


def colours_of_bars(pixels: np.ndarray) -> np.ndarray:
    """Colour in the middle of each bar, from the upper half."""
    columns = (2 * np.arange(8) + 1) * pixels.shape[1] // 16
    return pixels[pixels.shape[0] // 4, columns, :3]


# Sinks and sources


@pytest.mark.parametrize("kind", list(PixelFormat))
def test_colour_bars_arrive_in_their_places(loop, kind):
    rgb = pattern.bars(123, 256, 128, FPS)
    rgb[:64, :, 1] = rgb[:64, :, 1] // 2 + 60  # tell top from bottom
    pixels = rgb if kind is PixelFormat.RGB else np.insert(rgb, 3, 255, axis=2)
    if kind is PixelFormat.BGRA:
        pixels = pixels[:, :, [2, 1, 0, 3]]
    with open_sink(loop.sink_uri) as sink, open_source(loop.source_uri) as source:
        got = loop.meet(sink, source, Frame(np.ascontiguousarray(pixels), kind))
    assert loop.same(colours_of_bars(got.rgb()), colours_of_bars(rgb))
    assert pattern.read_counter(got.rgb()) == 123
    assert got.pixels.flags.c_contiguous and got.pixels.flags.writeable


@pytest.mark.parametrize("premultiply", [False, True], ids=["straight", "premultiplied"])
def test_alpha_is_sent_straight_or_premultiplied(loop, premultiply):
    assert table.sends_alpha(loop.sink_uri)
    pixels = np.full((48, 64, 3), (200, 100, 40), np.uint8)
    alpha = np.full((48, 64), 128, np.uint8)
    alpha[:, :32] = 0
    frame = Frame(pixels, alpha=alpha, premultiply=premultiply)
    with open_sink(loop.sink_uri) as sink, open_source(loop.source_uri) as source:
        got = loop.meet(sink, source, frame)
    assert got.format is not PixelFormat.RGB
    wanted = np.rint(pixels * (alpha[..., None] / 255.0)) if premultiply else pixels
    for column, level in ((16, 0), (48, 128)):
        assert loop.same(got.rgb()[24, column], wanted[24, column]) and abs(int(got.pixels[24, column, 3]) - level) <= 2


def test_frames_are_numbered_without_gaps_and_belong_to_the_receiver(loop):
    with open_sink(loop.sink_uri) as sink, open_source(loop.source_uri) as source:
        first = loop.meet(sink, source)
        first.pixels[:] = 0
        frames = [loop.meet(sink, source) for _ in range(5)]
        numbers = [frame.seq for frame in frames]
        assert numbers == list(range(first.seq + 1, first.seq + 6))
        assert all(a.pts_ns < b.pts_ns and a.captured_ns < b.captured_ns for a, b in itertools.pairwise(frames))
        assert all(loop.same(frame.rgb()[10, 10], np.array((200, 40, 90))) for frame in frames)
        assert source.connected and source.problem == ""
        assert (source.info.width, source.info.height) == (64, 48)


def test_size_changes_in_mid_stream(loop):
    with open_sink(loop.sink_uri) as sink, open_source(loop.source_uri) as source:
        for width, height in ((64, 48), (320, 180), (130, 98), (64, 48)):
            got = loop.meet(sink, source, solid((30, 160, 220), width, height))
            assert loop.same(got.rgb()[height // 2, width // 2], np.array((30, 160, 220)))
            assert (source.info.width, source.info.height) == (width, height)


def test_only_the_newest_frame_is_seen(loop):
    with open_sink(loop.sink_uri) as sink, open_source(loop.source_uri) as source:
        loop.meet(sink, source)
        for level in range(20, 140, 20):
            sink.send(solid((level, level, level)))
            time.sleep(0.04)
        time.sleep(0.1)
        newest = source.read(0.5)
        assert newest is not None and abs(int(newest.pixels[10, 10, 0]) - 120) <= 8
        assert source.read(0.1) is None
        if loop.scheme == "ndi":
            assert source.skipped >= 3


def test_a_lost_sender_is_reported_and_found_again(loop):
    sink = open_sink(loop.sink_uri)
    with open_source(loop.source_uri) as source:
        loop.meet(sink, source)
        sink.close()
        deadline = time.monotonic() + 60.0
        while source.connected and time.monotonic() < deadline:
            source.read(0.1)
        assert not source.connected
        assert loop.name in source.problem
        sink.open()
        assert loop.meet(sink, source, solid((10, 10, 10), 96, 64)).width == 96
        assert source.connected
    sink.close()


def test_read_waits_for_its_timeout_and_no_longer(loop):
    with open_source(loop.source_uri) as source:
        started = time.monotonic()
        before = time.process_time()
        assert source.read(0.4) is None
        assert 0.35 < time.monotonic() - started < 3.0
        assert time.process_time() - before < 0.3  # it sleeps
        assert not source.connected and source.problem


def test_a_name_can_be_used_only_once(loop):
    with open_sink(loop.sink_uri) as sink:
        if loop.scheme != "ndi":
            sink.send(solid((1, 2, 3)))
        with pytest.raises(NameTakenError) as caught:
            open_sink(loop.sink_uri)
        free = caught.value.remedy.split("'")[1]
        assert loop.name in caught.value.message and free != loop.name
        open_sink(f"{loop.scheme}:{free}").close()
    open_sink(loop.sink_uri).close()  # free again


def test_open_and_close_may_be_repeated(loop):
    sink, source = open_sink(loop.sink_uri), open_source(loop.source_uri)
    for _ in range(3):
        sink.open(), sink.open()
        source.open(), source.open()
        assert loop.meet(sink, source).seq < 5  # numbered anew
        source.close(), source.close()
        sink.close(), sink.close()
        assert sink.receivers <= 0 and not source.connected


def test_a_closed_source_or_sink_raises(loop):
    sink, source = open_sink(loop.sink_uri), open_source(loop.source_uri)
    sink.close(), source.close()
    with pytest.raises(TransportError, match="not open"):
        sink.send(solid((0, 0, 0)))
    with pytest.raises(TransportError, match="not open"):
        source.read(0.1)


def test_close_from_another_thread_ends_a_read_cleanly(loop):
    if loop.scheme != "ndi":
        pytest.skip("only NDI's handles are shared between threads")
    source = open_source(loop.source_uri)
    outcome = []

    def read() -> None:
        try:
            while True:
                source.read(0.1)
        except TransportError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    source.close()
    thread.join(60.0)
    assert "not open" in outcome[0]


def test_senders_are_listed(loop):
    with open_sink(loop.sink_uri) as sink:
        sink.send(solid((9, 9, 9)))
        titles = [info.title for info in list_sources((loop.scheme,))]
    listed = any(loop.name in title for title in titles)
    assert listed is (loop.scheme != "ndi")  # our own NDI outputs are not offered as inputs


# Sources that need no sender


def test_a_source_gives_numbered_frames_at_its_rate(source):
    source.open()
    frames = []
    deadline = time.monotonic() + 60.0
    while len(frames) < 30 and time.monotonic() < deadline:
        frame = source.read(0.5)
        if frame is not None:
            frames.append(frame)
    assert [frame.seq for frame in frames] == list(range(30))
    steps = np.diff([frame.pts_ns for frame in frames])
    assert (steps > 0).all()
    assert np.median(steps) == pytest.approx(1e9 / 30, rel=0.01)
    assert source.connected and source.info.fps == pytest.approx(30.0) and source.info.width > 0


def test_a_slow_reader_gets_the_newest_and_the_rest_is_counted(source):
    source.open()
    first = None
    while first is None:
        first = source.read(0.5)
    time.sleep(0.5)
    late = source.read(0.5)
    assert late.pts_ns - first.pts_ns > 0.35e9
    assert source.skipped >= 9
    assert late.seq == first.seq + 1


def test_a_source_can_be_closed_and_opened_again(source):
    for _ in range(3):
        source.open(), source.open()
        deadline = time.monotonic() + 60.0
        frame = None
        while frame is None and time.monotonic() < deadline:
            frame = source.read(0.2)
        assert frame is not None and frame.seq == 0
        source.close(), source.close()
        with pytest.raises(TransportError, match="not open"):
            source.read(0.1)


def test_read_does_not_wait_longer_than_told():
    with open_source("pattern:bars", Options(width=64, height=64, fps=Fraction(1))) as slow:
        assert slow.read(0.0) is not None or slow.read(0.2) is not None
        started = time.monotonic()
        assert slow.read(0.1) is None
        assert time.monotonic() - started < 0.7


# Single transports


def test_a_file_loops_with_rising_times(tmp_path):
    path = make_file(tmp_path / "loop.mp4", 12)
    with open_source(f"file:{path}") as source:
        frames = []
        while len(frames) < 30:
            frame = source.read(0.5)
            if frame is not None:
                frames.append(frame)
    numbers = [pattern.read_counter(frame.pixels) for frame in frames]
    assert numbers[:13] == [*range(12), 0]
    steps = np.diff([frame.pts_ns for frame in frames])
    assert (steps > 0).all() and steps.max() < 2.6e9 / 30


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a%03d.jpeg", "a.bmp", "a.webp", "a.tif", "a.gif"])
def test_a_picture_is_given_again_and_again(tmp_path, name):
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(tmp_path / name)
    with open_source(f"file:{tmp_path / name}") as source:
        frames = [frame for frame in (source.read(0.5) for _ in range(5)) if frame is not None]
        assert len(frames) == 5 and source.problem == "" and source.connected
    assert all(abs(int(frame.pixels[20, 20, 0]) - 200) < 8 for frame in frames)
    assert (np.diff([frame.pts_ns for frame in frames]) > 0).all()


def test_a_file_that_is_damaged_goes_on_with_what_can_be_read(tmp_path):
    path = make_file(tmp_path / "good.mp4", 40)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    with open_source(f"file:{path}") as source:
        got = sum(source.read(0.2) is not None for _ in range(30))
    assert got > 5


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_a_missing_or_foreign_file_is_an_error_with_its_name(tmp_path, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TransportError, match=r"bad\.mp4"):
        open_source(f"file:{path}")


def test_a_device_that_ends_is_opened_again(monkeypatch):
    monkeypatch.setattr("bridge.video.devices.live.RETRY_S", 0.05)
    device = Device("lavfi", "testsrc=size=64x48:rate=30:duration=0.2,realtime")
    with LiveSource("camera:test", "Test", device) as source:
        frames, problems = 0, set()
        deadline = time.monotonic() + 60.0
        while frames < 15 and time.monotonic() < deadline:
            frames += source.read(0.05) is not None
            problems.add(source.problem)
    assert frames >= 15 and "Test has ended." in problems


def test_null_takes_everything_and_gives_nothing():
    with open_sink("null:") as sink, open_source("null:") as source:
        for _ in range(3):
            sink.send(solid((1, 2, 3)))
        assert sink.sent == 3 and sink.receivers == 0
        assert source.read(0.01) is None and not source.connected


@pytest.mark.parametrize("name", list(pattern.PATTERNS))
@pytest.mark.parametrize("size", [(16, 16), (250, 131), (640, 360)])
def test_patterns_are_pictures_that_move(name, size):
    draw = pattern.PATTERNS[name]
    a, again, b = draw(10, *size, FPS), draw(10, *size, FPS), draw(40, *size, FPS)
    assert a.shape == (size[1], size[0], 3) and a.dtype == np.uint8
    np.testing.assert_array_equal(a, again)
    assert (a != b).any()


@pytest.mark.parametrize("number", [0, 1, 255, 99999, 2**24 - 1])
def test_the_counter_survives_scaling_and_noise_and_damage_is_noticed(number):
    pixels = pattern.bars(number, 512, 288, FPS)
    assert pattern.read_counter(pixels) == number
    assert pattern.read_counter(pixels[::2, ::2]) == number
    noise = np.random.default_rng(0).integers(-40, 40, pixels.shape)
    assert pattern.read_counter(np.clip(pixels + noise, 0, 255).astype(np.uint8)) == number
    pixels[:, 256:] = 255 - pixels[:, 256:]
    assert pattern.read_counter(pixels) is None


# Names


def test_a_uri_is_a_transport_and_a_name():
    assert parse_uri("NDI:A (B: c)") == ("ndi", "A (B: c)")
    assert parse_uri(" file:C:\\clip.mp4 ") == ("file", "C:\\clip.mp4")
    for bad in ("", "camera", "rtsp:x", ":x"):
        with pytest.raises(TransportError, match="no video transport"):
            parse_uri(bad)


def test_a_transport_without_that_direction_is_an_error():
    with pytest.raises(TransportError, match="no output"):
        open_sink("file:/tmp/x.mp4")
    with pytest.raises(TransportError, match="bars, counter"):
        open_source("pattern:nothing")


def test_a_missing_library_is_reported_with_its_remedy(monkeypatch):
    for name in ("SpoutGL", "syphon"):
        monkeypatch.setitem(sys.modules, name, None)  # import fails
    assert "pip install SpoutGL" in unavailable("spout") and "ndi:" in unavailable("spout")
    assert "pip install syphon-python" in unavailable("syphon")
    assert unavailable("pattern") == "" and unavailable("ndi") == ""
    assert list_sources(("spout", "syphon", "null")) == []
    with pytest.raises(TransportError, match="Spout cannot be loaded"):
        open_sink("spout:x")


def test_ndi_without_its_system_library_names_the_package(monkeypatch):
    from bridge.video.ndi import runtime

    def fails(name: str):
        raise ImportError("libavahi-client.so.3: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(runtime, "_loaded", None)
    monkeypatch.setattr(runtime, "importlib", SimpleNamespace(import_module=fails))
    assert "libavahi-client3" in unavailable("ndi")


def test_every_row_agrees_with_its_module():
    for row in table.rows():
        module = importlib.import_module(row.module)
        assert hasattr(module, "source") == bool(row.reads), row.scheme
        assert hasattr(module, "sink") == bool(row.writes), row.scheme


def test_a_file_is_no_output_and_the_error_says_what_is():
    with pytest.raises(TransportError, match=r"no output.*ndi:"):
        open_sink("file:show.mp4")
