"""Transparency over real NDI, from our output to a receiver of another binding in another process."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

from bridge.video.opening import open_sink, open_source
from engine.frame import Frame
from tests.support.video_peers import Peer, mix_with_cyndilib, unique

WIDTH, HEIGHT = 320, 192
COLOURS = ((200, 60, 60), (60, 180, 90), (70, 80, 200), (210, 210, 205))
ALPHAS = (0, 255, 128, 40)
NDI_LOSS = 17
"""Largest error of a level that was seen over NDI."""


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
    """The colours are those that arrive when the same picture is sent without an alpha, to 1 of 255."""
    name = unique("cut out")
    pixels, alpha = picture()
    darkened = np.rint(pixels * (alpha[..., None] / 255.0)).astype(np.uint8)
    alphas = middles(alpha[..., None])
    with open_sink(f"ndi:{name}") as sink, Peer(mix_with_cyndilib, name, str(tmp_path)) as peer:

        def received(frame: Frame, colours: np.ndarray, alphas: np.ndarray | int, loss: int) -> np.ndarray:
            """Send it until it arrives with these alphas and about these colours; returns the middles of its areas."""
            deadline, got = time.monotonic() + 60.0, None
            while time.monotonic() < deadline:
                sink.send(frame)
                peer.conn.send(("picture",))
                seen = peer.answer()
                if seen is not None and seen.shape == (HEIGHT, WIDTH, 4):
                    got = middles(seen)
                    if np.abs(got[..., :3] - colours).max() <= loss and (got[..., 3:] == alphas).all():
                        return got[..., :3]
                time.sleep(0.02)
            raise AssertionError(f"the last picture was {got}")

        whole = received(Frame(pixels), middles(pixels), 255, NDI_LOSS)
        dark = received(Frame(darkened), middles(darkened), 255, NDI_LOSS)
        # A receiver that ignores the alpha shows the colours alone: with straight alpha, the whole picture.
        received(Frame(pixels, alpha=alpha), whole, alphas, 1)
        received(Frame(pixels, alpha=alpha, premultiply=True), dark, alphas, 1)
        received(Frame(pixels, alpha=alpha), whole, alphas, 1)
        received(Frame(pixels), whole, 255, 1)


@pytest.mark.parametrize(("premultiply", "word"), [(False, "straight"), (True, "premultiplied"), (None, "")])
def test_the_metadata_says_which_kind_it_is(premultiply, word) -> None:
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
