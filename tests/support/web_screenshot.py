"""Takes the pictures of the control room in the documents: `python -m tests.support.web_screenshot docs/pictures`.

Runs `tidecast demo` and headless Chromium, types a prompt, waits until the latency plot is full. This Chromium draws
without a GPU; its priority is the lowest, so that Tidecast gets the processor first, as beside a browser with one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

from tests.bridge.web.test_demo import Demo
from tests.support.browser import Browser

SIZES = {
    "control-room": (1280, 800),
    "control-room-tablet": (1024, 768),
    "control-room-upright": (768, 1024),
    "control-room-phone": (390, 844),
}
"""Width and height in pixels of each picture's page, by the picture's name."""

SETTLE_S = 10.0
"""From opening a page after the first to its picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", default="neon")
    parser.add_argument("--second", default="gold")
    parser.add_argument("--seconds", type=float, default=125.0, help="from the prompt to the picture")
    options = parser.parse_args()
    demo = Demo(Path(tempfile.mkdtemp(prefix="tidecast-screenshot-")))
    try:
        with Browser() as browser:
            for number, (name, (width, height)) in enumerate(SIZES.items()):
                tab = browser.tab()
                tab.size(width, height, mobile=width < 1200)
                tab.open(demo.url)
                for child in psutil.Process().children(recursive=True):
                    if "chrom" in child.name():
                        child.nice(19)
                ready = "document.body?.dataset.state === 'running' && tidecast.state.readings.fps_engine > 0"
                tab.until(f"window.tidecast && {ready}", "", 180)
                if not number:
                    for slot, words in enumerate((options.prompt, options.second), 1):
                        tab.click(f"#w-prompt_{slot}")
                        tab.js(f"document.getElementById('w-prompt_{slot}').select()")
                        tab.type(words)
                        tab.key("Enter")
                    tab.js("document.activeElement.blur(); scrollTo(0, 0)")
                time.sleep(options.seconds if not number else SETTLE_S)
                shot = options.folder / f"{name}.png"
                tab.screenshot(shot)
                Image.open(shot).convert("RGB").save(shot.with_suffix(".jpg"), quality=86)
                shot.unlink()
                tab.close()
    finally:
        demo.stop()


if __name__ == "__main__":
    main()
