"""A window of SDL: opened, painted and watched. The seam to the library: its errors become a `TransportError`.

Everything here belongs to one thread, the main thread of the window's process (macOS allows no other).
"""

from __future__ import annotations

import ctypes
import enum
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from bridge.video.errors import foreign_errors
from bridge.video.pixels import converted
from engine.errors import TransportError

LARGEST_SHARE = 0.8
"""Largest share of the display that an ordinary window takes at first."""

GL_RENDERER = 0x1F01
"""OpenGL's constant of this name."""

COMPUTED = ("llvmpipe", "softpipe", "swrast", "software", "swiftshader")
"""Words in the names of OpenGL drivers that compute pictures on the processor."""

HINTS = {
    "SDL_APP_NAME": "Tidecast",
    "SDL_NO_SIGNAL_HANDLERS": "1",  # Ctrl+C belongs to the bridge process
    "SDL_RENDER_SCALE_QUALITY": "linear",
    "SDL_VIDEO_ALLOW_SCREENSAVER": "0",
    "SDL_VIDEO_MINIMIZE_ON_FOCUS_LOSS": "0",  # else the wall goes away when something else is clicked
    "SDL_WINDOW_NO_ACTIVATION_WHEN_SHOWN": "1",  # the keyboard stays where it was
    "SDL_WINDOWS_DPI_AWARENESS": "permonitorv2",  # pixels of the display, not scaled ones
}


class Event(enum.Enum):
    """What happened to the window."""

    TOGGLED = enum.auto()
    """Full screen was asked for, or to leave it."""

    EXPOSED = enum.auto()
    """It has to be painted again."""


@dataclass(frozen=True, slots=True)
class Display:
    """A display of this machine.

    Attributes:
        number: 1 is the main display.
        name: the system's name for it.
        width, height: pixels.
        hz: refresh rate; 0 when unknown.
    """

    number: int
    name: str
    width: int
    height: int
    hz: int

    def __str__(self) -> str:
        rate = f" at {self.hz} Hz" if self.hz else ""
        return f"display {self.number} ({self.name}, {self.width}x{self.height}{rate})"


class Screen:
    """A window that shows pictures, with black around them where the proportions differ.

    Args:
        number: the display to fill; 0 for an ordinary window.
        width, height: size of the pictures, pixels.

    Attributes:
        where: the display or window, in words.

    Raises:
        TransportError: there is no desktop, no such display, or no window can be opened.
    """

    def __init__(self, number: int, width: int, height: int) -> None:
        self._sdl = sdl = library()
        self._number = number
        self._window = self._renderer = self._texture = None
        self._texture_size = (0, 0)
        self._newest: np.ndarray | None = None
        self._scaler = VideoReformatter()
        for name, value in HINTS.items():
            sdl.SDL_SetHint(name.encode(), value.encode())
        self._check(sdl.SDL_Init(sdl.SDL_INIT_VIDEO) == 0, "There is no desktop that could show a window")
        display = self._find(number)
        self.where = str(display) if number else "a window"
        flags = sdl.SDL_WINDOW_RESIZABLE | sdl.SDL_WINDOW_ALLOW_HIGHDPI
        shrink = min(1.0, LARGEST_SHARE * display.width / width, LARGEST_SHARE * display.height / height)
        self._small = max(1, round(width * shrink)), max(1, round(height * shrink))
        size = self._small
        if number:  # of the display's size from the start: a desktop without a window manager never changes it
            flags |= sdl.SDL_WINDOW_FULLSCREEN_DESKTOP
            size = display.width, display.height
        at = sdl.SDL_WINDOWPOS_CENTERED_DISPLAY(display.number - 1)
        self._window = sdl.SDL_CreateWindow(b"Tidecast", at, at, *size, flags)
        self._check(self._window, "No window can be opened")
        self._renderer = sdl.SDL_CreateRenderer(self._window, -1, sdl.SDL_RENDERER_PRESENTVSYNC)
        if not self._renderer:  # a driver without vsync
            self._renderer = sdl.SDL_CreateRenderer(self._window, -1, 0)
        self._check(self._renderer, "Nothing can be painted into a window")
        self._by_cpu = self._opengl_is_computed()
        if self._by_cpu:
            sdl.SDL_SetHint(b"SDL_FRAMEBUFFER_ACCELERATION", b"0")  # else it still goes through OpenGL
            sdl.SDL_DestroyRenderer(self._renderer)
            self._renderer = sdl.SDL_CreateRenderer(self._window, -1, sdl.SDL_RENDERER_SOFTWARE)
            self._check(self._renderer, "Nothing can be painted into a window")
        self._full = bool(number)
        sdl.SDL_ShowCursor(not self._full)
        self.show(None)

    def show(self, picture: np.ndarray | None) -> None:
        """Paint a picture and wait until the display takes it (vsync).

        Args:
            picture: uint8 [height, width, 3], RGB; None for black.

        Raises:
            TransportError: it cannot be painted.
        """
        sdl = self._sdl
        self._newest = picture
        self._check(sdl.SDL_SetRenderDrawColor(self._renderer, 0, 0, 0, 255) == 0, "The window cannot be painted")
        self._check(sdl.SDL_RenderClear(self._renderer) == 0, "The window cannot be painted")
        if picture is not None:
            height, width = picture.shape[:2]
            target = self._fitted(width, height)
            self._upload(picture, *((target.w, target.h) if self._by_cpu else (width, height)))
            copied = sdl.SDL_RenderCopy(self._renderer, self._texture, None, ctypes.byref(target)) == 0
            self._check(copied, "The window cannot be painted")
        sdl.SDL_RenderPresent(self._renderer)

    def again(self) -> None:
        """Paint the newest picture again."""
        self.show(self._newest)

    def toggle(self) -> None:
        """Fill the display, or become an ordinary window."""
        self._full = not self._full
        mode = self._sdl.SDL_WINDOW_FULLSCREEN_DESKTOP if self._full else 0
        self._sdl.SDL_SetWindowFullscreen(self._window, mode)
        if not self._full:
            self._sdl.SDL_SetWindowSize(self._window, *self._small)
        self._sdl.SDL_ShowCursor(not self._full)

    def events(self) -> set[Event]:
        """What happened since the last call. A request to close the window is ignored: the show decides that."""
        sdl, found = self._sdl, set[Event]()
        event = sdl.SDL_Event()
        while sdl.SDL_PollEvent(ctypes.byref(event)):
            match event.type:
                case sdl.SDL_KEYDOWN if event.key.keysym.sym == sdl.SDLK_F11 and not event.key.repeat:
                    found ^= {Event.TOGGLED}
                case sdl.SDL_MOUSEBUTTONDOWN if event.button.clicks == 2:
                    found ^= {Event.TOGGLED}
                case sdl.SDL_WINDOWEVENT:
                    found.add(Event.EXPOSED)
                case sdl.SDL_RENDER_TARGETS_RESET | sdl.SDL_RENDER_DEVICE_RESET:  # the driver has lost what it had
                    self._forget_texture()
                    found.add(Event.EXPOSED)
        return found

    def look(self) -> None:
        """See whether the window still stands where it should.

        Raises:
            TransportError: its display is gone.
        """
        if not self._number or not self._full:
            return
        self._find(self._number)
        if self._sdl.SDL_GetWindowDisplayIndex(self._window) != self._number - 1:
            raise TransportError(f"The window has left display {self._number}.", "It is opened there again.")

    def close(self) -> None:
        """Close the window."""
        self._forget_texture()
        if self._renderer:
            self._sdl.SDL_DestroyRenderer(self._renderer)
        if self._window:
            self._sdl.SDL_DestroyWindow(self._window)
        self._sdl.SDL_Quit()

    def _find(self, number: int) -> Display:
        """The display of that number; the main one for 0.

        Raises:
            TransportError: there is none.
        """
        displays = self._displays()
        if len(displays) < max(1, number):
            there = "; ".join(map(str, displays)) or "none"
            raise TransportError(f"There is no display {number}.", f"There are: {there}.")
        return displays[max(0, number - 1)]

    def _displays(self) -> list[Display]:
        sdl, found = self._sdl, []
        for index in range(sdl.SDL_GetNumVideoDisplays()):
            mode = sdl.SDL_DisplayMode()
            if sdl.SDL_GetDesktopDisplayMode(index, ctypes.byref(mode)) == 0:
                name = (sdl.SDL_GetDisplayName(index) or b"").decode(errors="replace")
                found.append(Display(index + 1, name, mode.w, mode.h, mode.refresh_rate))
        return found

    def _opengl_is_computed(self) -> bool:
        """Whether the window is painted by OpenGL and that by the processor: SDL alone is faster then."""
        found = self._sdl.SDL_GL_GetProcAddress(b"glGetString")
        if not found:  # Direct3D or Metal
            return False
        get = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(found)
        name = (get(GL_RENDERER) or b"").decode(errors="replace").lower()
        return any(word in name for word in COMPUTED)

    def _upload(self, picture: np.ndarray, width: int, height: int) -> None:
        """Copy a picture, scaled to this size, into the texture."""
        sdl = self._sdl
        if self._texture is None or self._texture_size != (width, height):
            self._forget_texture()
            kind = sdl.SDL_PIXELFORMAT_ARGB8888, sdl.SDL_TEXTUREACCESS_STREAMING
            self._texture = sdl.SDL_CreateTexture(self._renderer, *kind, width, height)
            self._check(self._texture, f"A picture of {width}x{height} cannot be shown")
            self._texture_size = width, height
        # Every driver takes this order of the channels as it is; SDL's own conversion takes several times as long.
        pixels = converted(self._scaler, picture, "rgb24", width, height, "bgra", 4)
        address = pixels.ctypes.data_as(ctypes.c_void_p)
        done = sdl.SDL_UpdateTexture(self._texture, None, address, pixels.strides[0]) == 0
        self._check(done, "The window cannot be painted")

    def _fitted(self, width: int, height: int) -> Any:
        """The largest part of the window with a picture's proportions, an `SDL_Rect`."""
        across, down = ctypes.c_int(), ctypes.c_int()
        self._sdl.SDL_GetRendererOutputSize(self._renderer, ctypes.byref(across), ctypes.byref(down))
        scale = min(across.value / width, down.value / height)
        w, h = round(width * scale), round(height * scale)
        return self._sdl.SDL_Rect((across.value - w) // 2, (down.value - h) // 2, w, h)

    def _forget_texture(self) -> None:
        if self._texture is not None:
            self._sdl.SDL_DestroyTexture(self._texture)
        self._texture = None

    def _check(self, done: Any, what: str) -> None:
        if not done:
            error = self._sdl.SDL_GetError().decode(errors="replace") or "no reason given"
            raise TransportError(f"{what}: {error}.", "Check the displays and the graphics driver.")


def library() -> Any:
    """SDL's functions.

    Raises:
        TransportError: the library is not there, or does not load.
    """
    with (
        foreign_errors("SDL, which opens windows, cannot be used", "Install Tidecast again."),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # it says where its library comes from
        import sdl2
    return sdl2
