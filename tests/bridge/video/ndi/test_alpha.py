"""Transparency over real NDI, from our output to a receiver of another binding in another process."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bridge.video.opening import open_sink, open_source
from engine.frame import Frame
from tests.support.video_peers import Peer, mix_with_cyndilib, unique

WIDTH, HEIGHT = 320, 192
COLOURS = ((200, 60, 60), (60, 180, 90), (70, 80, 200), (210, 210, 205))
ALPHAS = (0, 255, 128, 40)
LOSS = 6
"""Largest error of a level in the middle of an area of one colour: 4:2:2 in video range, twice."""

ALPHA_LOSS = 2


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Columns of several colours, and rows of several alphas."""
    pixels, alpha = np.empty((HEIGHT, WIDTH, 3), np.uint8), np.empty((HEIGHT, WIDTH), np.uint8)
    for number, (colour, level) in enumerate(zip(COLOURS, ALPHAS, strict=True)):
        pixels[:, number * WIDTH // 4 : (number + 1) * WIDTH // 4] = colour
        alpha[number * HEIGHT // 4 : (number + 1) * HEIGHT // 4] = level
    return pixels, alpha


def middles(picture: np.ndarray) -> np.ndarray:
    """The middle of every area, by alpha and colour: int [4, 4, channels]."""
    rows, columns = (2 * np.arange(4) + 1) * HEIGHT // 8, (2 * np.arange(4) + 1) * WIDTH // 8
    return picture[rows][:, columns].astype(int)


def test_another_binding_gets_both_kinds_of_alpha_and_the_whole_picture_under_it(tmp_path) -> None:
    name = unique("cut out")
    pixels, alpha = picture()
    whole, wanted = middles(pixels), middles(alpha[..., None])
    darkened = np.rint(whole * wanted / 255.0)
    with open_sink(f"ndi:{name}") as sink, Peer(mix_with_cyndilib, name, str(tmp_path)) as peer:

        def received(frame: Frame, colours: np.ndarray, alphas: np.ndarray) -> None:
            """Send it until it arrives with these colours and alphas."""
            deadline, got = time.monotonic() + 60.0, None
            while time.monotonic() < deadline:
                sink.send(frame)
                peer.conn.send(("picture",))
                seen = peer.answer()
                if seen is not None and seen.shape == (HEIGHT, WIDTH, 4):
                    got = middles(seen)
                    near = np.abs(got[..., :3] - colours).max() <= LOSS
                    if near and np.abs(got[..., 3:] - alphas).max() <= ALPHA_LOSS:
                        return
                time.sleep(0.02)
            raise AssertionError(f"the last picture was {got}")

        # A receiver that ignores the alpha shows what `colours` are: with straight alpha, the whole picture.
        received(Frame(pixels, alpha=alpha), whole, wanted)
        received(Frame(pixels, alpha=alpha, premultiply=True), darkened, wanted)
        received(Frame(pixels, alpha=alpha), whole, wanted)
        received(Frame(pixels), whole, np.full_like(wanted, 255))


@pytest.mark.parametrize(("premultiply", "word"), [(False, "straight"), (True, "premultiplied"), (None, "")])
def test_the_metadata_says_which_kind_it_is(premultiply, word) -> None:
    import socket

    name = unique("kind")
    pixels, alpha = picture()
    frame = Frame(pixels) if premultiply is None else Frame(pixels, alpha=alpha, premultiply=premultiply)
    own = f"ndi:{socket.gethostname().split('.')[0].upper()} ({name})"
    with open_sink(f"ndi:{name}") as sink, open_source(own) as source:
        deadline, got = time.monotonic() + 60.0, None
        while got is None and time.monotonic() < deadline:
            sink.send(frame)
            got = source.read(0.05)
    assert got is not None and got.metadata.get("alpha", "") == word
    assert got.format.channels == (4 if word else 3)
