"""A transport of your own, `numbers:FOLDER`: writes the output as numbered PNG files, one a second.

.venv/bin/python examples/transport.py pictures     # three seconds of a test picture into the folder pictures

Further arguments are settings, for instance input.uri=camera:.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from bridge.app import App
from bridge.config_file import load
from bridge.video import table
from bridge.video.base import Options, Sink
from engine.frame import Frame

ROW = table.Transport("numbers", __name__, "numbered pictures", writes="the folder", run_on="Linux")


class NumberedPictures(Sink):
    """Keeps one picture a second. `send` must be quick, because the output waits for it."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"numbers:{folder}")
        self._folder = Path(folder)
        self._number = 0
        self._next = 0.0

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Write the frame if a second has passed since the last one."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1.0
            Image.fromarray(frame.rgb()).save(self._folder / f"{self._number:06d}.png", compress_level=1)
            self._number += 1

    def close(self) -> None:
        """Nothing was kept open."""

    @property
    def receivers(self) -> int:
        """A folder cannot tell how many programs read it: -1."""
        return -1


def sink(name: str, options: Options) -> NumberedPictures:
    """What the table calls to make an output."""
    return NumberedPictures(name)


if __name__ == "__main__":
    table.register(ROW)
    folder = sys.argv[1] if len(sys.argv) > 1 else "pictures"
    settings = {"process.kind": "identity", "input.uri": "pattern:dance", "output.uri": f"numbers:{folder}"}
    settings |= dict(text.split("=", 1) for text in sys.argv[2:])
    with App(load(None, settings)):
        time.sleep(3.0)
