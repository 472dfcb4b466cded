"""The output to a display: real windows of SDL on Xvfb, seen by photographs of that desktop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest

from bridge.pipeline.endpoints.output import Output
from bridge.video.address import check_output
from bridge.video.base import Options
from bridge.video.opening import guides, open_sink, open_source, unavailable
from bridge.video.window import transport
from bridge.video.window.transport import WindowSink
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat
from tests.support.desktop import desktop, photograph, shows

WIDTH, HEIGHT = 640, 360
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def xvfb() -> Iterator[str]:
    with desktop(WIDTH, HEIGHT) as name:
        yield name


@pytest.fixture
def wall() -> Iterator[WindowSink]:
    made = WindowSink("1", Options(width=320, height=180))
    made.open()
    yield made
    made.close()


def quarters(width: int, height: int) -> np.ndarray:
    """Another colour in each corner, so that nothing can be swapped, turned or cut unnoticed."""
    picture = np.zeros((height, width, 3), np.uint8)
    up, left = height // 2, width // 2
    picture[:up, :left], picture[:up, left:] = (200, 30, 10), (20, 180, 60)
    picture[up:, :left], picture[up:, left:] = (40, 50, 220), (230, 220, 90)
    return picture


def keep_showing(sink: WindowSink, frame: Frame, expected: np.ndarray, tolerance: int = 2) -> None:
    """Send the frame until the desktop shows it."""
    deadline = time.monotonic() + 60.0
    while True:
        sink.send(frame)
        seen = photograph()
        wrong = np.abs(seen.astype(int) - expected.astype(int)).max()
        if wrong <= tolerance:
            return
        assert time.monotonic() < deadline, f"off by {wrong}"


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def window_processes(of: int | None = None) -> list[psutil.Process]:
    """The children of a process that serve a window."""
    children = psutil.Process(of).children() if of is None or psutil.pid_exists(of) else []
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_a_picture_fills_the_display_to_the_last_pixel(wall: WindowSink) -> None:
    assert wall.where.startswith("display 1 (") and f"{WIDTH}x{HEIGHT}" in wall.where
    picture = quarters(WIDTH, HEIGHT)
    keep_showing(wall, Frame(picture), picture)  # no label, no frame, no cursor
    for kind, channels in ((PixelFormat.RGBA, (0, 1, 2)), (PixelFormat.BGRA, (2, 1, 0))):
        turned = np.ascontiguousarray(picture[::-1])
        four = np.insert(turned[:, :, list(channels)], 3, 7, axis=2)
        keep_showing(wall, Frame(np.ascontiguousarray(four), kind), turned)


def test_a_picture_of_half_the_size_is_scaled_and_one_of_other_proportions_has_black_beside_it(
    wall: WindowSink,
) -> None:
    half = Frame(quarters(WIDTH // 2, HEIGHT // 2))
    until(lambda: wall.send(half) or photograph()[5, 5].tolist() == [200, 30, 10], "the scaled picture")
    seen = photograph()
    assert seen[-5, -5].tolist() == [230, 220, 90] and seen[5, -5].tolist() == [20, 180, 60]
    square = np.full((HEIGHT, HEIGHT, 3), 99, np.uint8)
    expected = BLACK.copy()
    left = (WIDTH - HEIGHT) // 2
    expected[:, left : left + HEIGHT] = 99
    keep_showing(wall, Frame(square), expected)  # another size: another window, and the desktop is not seen


def test_the_screen_is_an_input_too(wall: WindowSink) -> None:
    picture = quarters(WIDTH, HEIGHT)
    with open_source("screen:") as screen:
        seen: Frame | None = None

        def matches() -> bool:
            nonlocal seen
            wall.send(Frame(picture))
            seen = screen.read(1.0) or seen
            return seen is not None and np.abs(seen.rgb().astype(int) - picture).max() <= 2

        until(matches, "the picture by way of the screen")
        assert (screen.info.width, screen.info.height) == (WIDTH, HEIGHT) and screen.connected


def test_black_when_no_picture_comes_and_back_with_the_next(wall: WindowSink) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    keep_showing(wall, Frame(picture), picture)
    shows(BLACK)
    keep_showing(wall, Frame(picture), picture)


def test_the_desktop_is_seen_again_at_the_end(wall: WindowSink) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    keep_showing(wall, Frame(picture), picture)
    wall.close()
    assert not window_processes()
    shows(BLACK)
    with pytest.raises(TransportError, match="is not open"):
        wall.send(Frame(picture))


def test_the_output_comes_back_when_its_process_was_killed() -> None:
    told = list[tuple[str, str]]()
    output = Output("window:1", Options(width=320, height=180), lambda topic, text: told.append((topic, text)))
    output.start()
    picture = np.full((180, 320, 3), 150, np.uint8)
    full = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)

    def on_the_wall() -> bool:
        output.offer(Frame(picture), True)
        return bool((photograph() == full).all())

    try:
        until(on_the_wall, "the picture")
        (process,) = window_processes()
        process.kill()
        until(lambda: [on_the_wall(), output.trouble][1], "the trouble")
        assert output.trouble == "The window's process has ended. It is opened again."
        until(lambda: on_the_wall() and not output.trouble, "the picture again")
        assert [topic for topic, _ in told] == ["output"]
        assert window_processes() != [process]
    finally:
        output.end()
        assert output.join(30.0)
    assert not window_processes()


def test_a_window_that_hangs_is_said_and_replaced(wall: WindowSink, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    keep_showing(wall, Frame(picture), picture)
    (process,) = window_processes()
    monkeypatch.setattr(transport, "HANG_S", 1.0)  # not before: a busy machine may hold the window up for longer
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TransportError, match="The window does not answer"):
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            wall.send(Frame(picture))
            time.sleep(0.05)
    wall.close()  # although it is stopped
    assert not psutil.pid_exists(process.pid)
    wall.open()
    monkeypatch.undo()
    keep_showing(wall, Frame(picture), picture)


def test_it_ends_with_a_program_that_is_killed() -> None:
    program = (
        "import time\n"
        "from bridge.video.opening import open_sink\n"
        "if __name__ == '__main__':\n"
        "    open_sink('window:1')\n"
        "    print('open', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "open\n"
        (window,) = window_processes(owner.pid)
        owner.kill()
    until(lambda: not window.is_running() or window.status() == psutil.STATUS_ZOMBIE, "the window's end")


@pytest.mark.parametrize("name", ["2", "64"])
def test_a_display_that_is_not_there_is_refused_and_those_that_are_are_named(name: str) -> None:
    with pytest.raises(TransportError, match=rf"There is no display {name}\. There are: display 1 \(.*640x360"):
        open_sink(f"window:{name}")
    assert not window_processes()


@pytest.mark.parametrize("name", ["0", "-1", "two", "1 2", "٣", "65", "1" * 5000])
def test_what_names_no_display_is_refused_before_anything_is_opened(name: str) -> None:
    with pytest.raises(TransportError, match="names no display"):
        check_output(f"window:{name}")
    with pytest.raises(TransportError, match="names no display"):
        Output(f"window:{name}", Options(), lambda topic, text: None)


def test_without_a_desktop_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "There is no desktop" in unavailable("window")
    with pytest.raises(TransportError, match="There is no desktop that could show a window"):
        open_sink("window:1")


def test_an_ordinary_window_and_f11() -> None:
    """In this process, so that events can be made up; the driver of SDL that shows nothing."""
    program = (
        "import ctypes, os\n"
        "from bridge.video.window.screen import Event, Screen, library\n"
        "screen, sdl = Screen(0, 4000, 1000), library()\n"
        "def press(kind, **fields):\n"
        "    event = sdl.SDL_Event(); event.type = kind\n"
        "    if kind == sdl.SDL_KEYDOWN: event.key.keysym.sym = sdl.SDLK_F11\n"
        "    if kind == sdl.SDL_MOUSEBUTTONDOWN: event.button.clicks = fields['clicks']\n"
        "    assert sdl.SDL_PushEvent(ctypes.byref(event)) == 1\n"
        "def full():\n"
        "    flags = sdl.SDL_GetWindowFlags(screen._window)\n"
        "    return flags & sdl.SDL_WINDOW_FULLSCREEN_DESKTOP == sdl.SDL_WINDOW_FULLSCREEN_DESKTOP\n"
        "screen.events()\n"
        "assert not full()\n"
        "press(sdl.SDL_KEYDOWN); assert Event.TOGGLED in screen.events()\n"
        "screen.toggle(); assert full(); screen.toggle(); assert not full()\n"
        "press(sdl.SDL_MOUSEBUTTONDOWN, clicks=1); assert Event.TOGGLED not in screen.events()\n"
        "press(sdl.SDL_MOUSEBUTTONDOWN, clicks=2); assert Event.TOGGLED in screen.events()\n"
        "press(sdl.SDL_QUIT); assert Event.TOGGLED not in screen.events()\n"
        "press(sdl.SDL_RENDER_DEVICE_RESET); assert Event.EXPOSED in screen.events()\n"
        "screen.close()\n"
    )
    quiet = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run([sys.executable, "-c", program], env=quiet, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_window_of_a_program_without_display_number_leaves_room() -> None:
    with open_sink("window:", Options(width=1920, height=1080)) as sink:
        assert isinstance(sink, WindowSink) and sink.where == "a window"


def test_guides_name_the_output() -> None:
    (guide,) = guides("window:2")
    assert guide.copy == ("--output window:2",) and "display 2" in guide.steps[0]
