"""A desktop of its own for a test: Xvfb, a display server without a screen, and photographs of what it shows."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import av
import numpy as np
import pytest


@contextlib.contextmanager
def desktop(width: int, height: int) -> Iterator[str]:
    """A server with one display of this size; `DISPLAY` names it meanwhile. Skips where Xvfb is missing."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("Xvfb is missing: apt-get install xvfb")
    reading, writing = os.pipe()
    screen = ("-screen", "0", f"{width}x{height}x24")
    # Without -noreset it starts anew when its last client leaves, and refuses the next one meanwhile.
    command = [program, "-displayfd", str(writing), "-nolisten", "tcp", "-noreset", *screen]
    server = subprocess.Popen(command, pass_fds=(writing,), stderr=subprocess.DEVNULL)
    before = os.environ.get("DISPLAY")
    try:
        os.close(writing)
        with os.fdopen(reading) as told:
            name = f":{told.readline().strip()}"
        os.environ["DISPLAY"] = name
        yield name
    finally:
        if before is None:
            os.environ.pop("DISPLAY", None)
        else:
            os.environ["DISPLAY"] = before
        server.terminate()
        server.wait(30)


def photograph() -> np.ndarray:
    """What the desktop shows now: uint8 [height, width, 3], RGB."""
    with av.open(os.environ["DISPLAY"], format="x11grab", options={"draw_mouse": "0"}) as camera:
        return next(camera.decode(video=0)).to_ndarray(format="rgb24")


def shows(expected: np.ndarray, tolerance: int = 2, timeout_s: float = 60.0) -> None:
    """Wait until the whole desktop shows this picture."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = photograph()
        wrong = np.abs(seen.astype(int) - expected.astype(int)).max() if seen.shape == expected.shape else 255
        if wrong <= tolerance:
            return
        assert time.monotonic() < deadline, f"the desktop shows something else: off by {wrong}, {seen.shape}"
        time.sleep(0.05)
