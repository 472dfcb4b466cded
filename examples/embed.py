"""Embed the engine: frames in, restyled frames out. Ember needs no GPU and no download; `dance` is the test picture.

.venv/bin/python examples/embed.py restyled.jpg     # the test picture, then neon, fire and watercolor, side by side
"""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
from PIL import Image

from bridge.video.synthetic.dance import dance
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame
from engine.session import Session

SIZE = 256


def restyle(prompt: str, frames: list[np.ndarray]) -> list[Frame]:
    """Return every frame restyled, in order. Frames are (H, W, 3), 8 bits."""
    restyled: list[Frame] = []
    controls = Controls(prompt_1=prompt, strength=0.9, steps=2)
    with Session.open(Config(model="ember", width=SIZE, height=SIZE, device="cpu")) as session:
        for n, pixels in enumerate(frames):
            session.feed(Frame(pixels, pts_ns=n * 33_333_333, seq=n))
            if session.ready:
                restyled += session.step(controls)  # change any control between two steps
        return restyled + session.flush()


def main(out: str, count: int = 33) -> None:
    """Write the last frame and its three restyled versions side by side."""
    frames = [np.ascontiguousarray(dance(n * 3, SIZE, SIZE, Fraction(30))[..., :3]) for n in range(count)]
    pictures = [restyle(prompt, frames)[-1].pixels[..., :3] for prompt in ("neon", "fire", "watercolor")]
    Image.fromarray(np.concatenate([frames[-1], *pictures], axis=1)).save(out, quality=88)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "restyled.jpg", int(sys.argv[2]) if len(sys.argv) > 2 else 33)
