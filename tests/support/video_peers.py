"""Programs at the other end of a video connection, each run in a process of its own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from bridge.video.base import Options
from bridge.video.opening import open_sink, open_source
from bridge.video.synthetic.pattern import bars, read_counter
from engine.frame import Frame, PixelFormat

SPAWN = multiprocessing.get_context("spawn")
LOOPBACK = ",".join(f"127.0.0.{n}" for n in range(1, 17))


def unique(name: str) -> str:
    """A source name that no other test run on this machine uses."""
    return f"video test {name} {os.getpid()} {time.monotonic_ns() % 1_000_000}"


def solid(colour: tuple[int, ...], width: int = 64, height: int = 48) -> Frame:
    kind = PixelFormat.RGB if len(colour) == 3 else PixelFormat.RGBA
    return Frame(np.full((height, width, len(colour)), colour, np.uint8), kind)


def serve(conn: Connection, name: str, width: int, height: int, fps: int, colour: tuple[int, int, int] | None) -> None:
    """Send bars with a counter (or one colour) over NDI until told to stop.

    ("size", w, h) changes the size, ("number",) asks for the number sent last, ("receivers",) for what the sink says.
    """
    rate = Fraction(fps)
    with open_sink(f"ndi:{name}", Options(fps=rate)) as sink:
        conn.send("open")
        number, start = 0, time.monotonic()
        while True:
            if conn.poll():
                message = conn.recv()
                if message[0] == "stop":
                    return
                if message[0] == "size":
                    width, height = message[1:]
                elif message[0] == "number":
                    conn.send(number - 1)
                elif message[0] == "receivers":
                    conn.send(sink.receivers)
            pixels = bars(number, width, height, rate) if colour is None else solid(colour, width, height).pixels
            frame = Frame(pixels, seq=number, captured_ns=time.monotonic_ns())
            sink.send(
                frame, {"controls": json.dumps({"strength": number / 1000, "prompt_1": 'a <wärm> & "dark" sky\n'})}
            )
            number += 1
            time.sleep(max(0.0, start + number / fps - time.monotonic()))


def watch(conn: Connection, name: str, frames: int) -> None:
    """Receive over NDI and answer (numbers, last pixels, last metadata) of the frames."""
    with open_source(f"ndi:{name}") as source:
        conn.send("open")
        numbers, last = [], None
        deadline = time.monotonic() + 90.0
        while len(numbers) < frames and time.monotonic() < deadline:
            frame = source.read(0.2)
            if frame is not None:
                numbers.append(read_counter(frame.pixels))
                last = frame
        conn.send((numbers, last.pixels if last else None, dict(last.metadata) if last else {}))


def _other_binding(folder: str) -> None:
    """Make the other binding find sources on loopback, because its finder takes no addresses."""
    (Path(folder) / "ndi-config.v1.json").write_text(json.dumps({"ndi": {"networks": {"ips": LOOPBACK}}}))
    os.environ["NDI_CONFIG_DIR"] = folder


def serve_with_cyndilib(
    conn: Connection, name: str, folder: str, colour: tuple[int, int, int, int] | None = None
) -> None:
    """Send bars, or one colour with alpha, over NDI with the other binding.

    ("tally",) asks whether some receiver has the picture on air.
    """
    _other_binding(folder)
    from cyndilib.sender import Sender
    from cyndilib.video_frame import VideoSendFrame
    from cyndilib.wrapper.ndi_structs import FourCC

    sender, video = Sender(name), VideoSendFrame()
    video.set_resolution(320, 192)
    video.set_frame_rate(Fraction(25))
    video.set_fourcc(FourCC.RGBX if colour is None else FourCC.RGBA)
    sender.set_video_frame(video)
    sender.open()
    conn.send("open")
    number = 0
    while True:
        if conn.poll():
            if conn.recv()[0] != "tally":
                break
            sender.update_tally(0.0)
            conn.send(sender.program_tally)
        if colour is None:
            picture = np.insert(bars(number, 320, 192, Fraction(25)), 3, 255, axis=2)
        else:
            picture = np.full((192, 320, 4), colour, np.uint8)
        sender.write_video(np.ascontiguousarray(picture).ravel())
        number += 1
        time.sleep(1 / 25)
    sender.close()


def sing_with_cyndilib(conn: Connection, name: str, folder: str, hz: float) -> None:
    """Send a tone over NDI with the other binding, in blocks of 10 ms and without pictures, until told to stop.

    ("level", 0.1) sets its root mean square; 0 is silence.
    """
    _other_binding(folder)
    from cyndilib.audio_frame import AudioSendFrame
    from cyndilib.sender import Sender

    sender, audio = Sender(name, clock_audio=False), AudioSendFrame(480)
    audio.sample_rate, audio.num_channels = 48000, 2
    sender.set_audio_frame(audio)
    sender.open()
    conn.send("open")
    level, number, start = 0.1, 0, time.monotonic()
    while True:
        if conn.poll():
            message = conn.recv()
            if message[0] != "level":
                break
            level = message[1]
        times = (np.arange(480) + 480 * number) / 48000
        tone = (level * np.sqrt(2.0) * np.sin(2.0 * np.pi * hz * times)).astype(np.float32)
        sender.write_audio(np.stack((tone, tone)))
        number += 1
        time.sleep(max(0.0, start + number / 100 - time.monotonic()))
    sender.close()


@contextlib.contextmanager
def _cyndilib_receiver(name: str, folder: str) -> Iterator[Callable[[], np.ndarray | None]]:
    """A receiver of the other binding; what it yields gives the picture of this moment, RGBA, None before the first.

    Its finder lives as long as it does: libndi 6.3 can end other programs when one is destroyed at once.
    """
    _other_binding(folder)
    from cyndilib.finder import Finder
    from cyndilib.receiver import Receiver
    from cyndilib.video_frame import VideoFrameSync
    from cyndilib.wrapper.ndi_recv import RecvBandwidth, RecvColorFormat

    finder = Finder()
    finder.open()
    deadline = time.monotonic() + 90.0
    source = None
    while source is None:
        assert time.monotonic() < deadline, f"{name} was not found"
        finder.wait_for_sources(0.5)
        finder.update_sources()
        source = next((s for s in finder.iter_sources() if name in s.name), None)
    receiver = Receiver(color_format=RecvColorFormat.RGBX_RGBA, bandwidth=RecvBandwidth.highest)
    video = VideoFrameSync()
    receiver.frame_sync.set_video_frame(video)
    receiver.set_source(source)

    def picture() -> np.ndarray | None:
        receiver.frame_sync.capture_video()
        if min(video.xres, video.yres) == 0:
            return None
        return np.array(video.get_array()).reshape(video.yres, video.xres, 4)

    yield picture
    receiver.disconnect()
    finder.close()


def watch_with_cyndilib(conn: Connection, name: str, frames: int, folder: str) -> None:
    """Receive over NDI with the other binding; answers as `watch`, without metadata."""
    with _cyndilib_receiver(name, folder) as picture:
        conn.send("open")
        numbers: list[int | None] = []
        pixels = None
        deadline = time.monotonic() + 90.0
        while len(set(numbers)) < frames and time.monotonic() < deadline:
            if (got := picture()) is not None:
                pixels = got
                numbers.append(read_counter(pixels))
            time.sleep(1 / 60)
        conn.send((numbers, pixels, {}))


def mix_with_cyndilib(conn: Connection, name: str, folder: str) -> None:
    """Receive over NDI with the other binding; ("picture",) is answered with the picture of that moment or None."""
    with _cyndilib_receiver(name, folder) as picture:
        conn.send("open")
        while conn.recv()[0] == "picture":
            conn.send(picture())


def watch_colour_with_cyndilib(conn: Connection, name: str, folder: str) -> None:
    """Receive over NDI with the other binding until a picture comes; answers one pixel, RGBA."""
    with _cyndilib_receiver(name, folder) as picture:
        conn.send("open")
        deadline = time.monotonic() + 90.0
        while time.monotonic() < deadline:
            if (got := picture()) is not None:
                conn.send([int(value) for value in got[20, 20]])
                break
            time.sleep(1 / 60)


class Peer:
    """A peer process and the pipe to it; killed when it does not end by itself."""

    def __init__(self, program, *arguments) -> None:
        self.conn, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=program, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self, timeout_s: float = 40.0):
        assert self.conn.poll(timeout_s), "the peer does not answer"
        return self.conn.recv()

    def ready(self) -> Peer:
        assert self.answer() == "open"
        return self

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it may have ended by itself, even just now
            self.conn.send(("stop",))
        self.process.join(5.0)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.conn.close()

    def __enter__(self) -> Peer:
        return self.ready()

    def __exit__(self, *exc: object) -> None:
        self.stop()
