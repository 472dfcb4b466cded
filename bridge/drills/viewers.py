"""Pages without a browser: a process that watches the previews as browsers do, for benchmarks and tests.

Takes both pictures as fast as they come and acknowledges them. Imports little, so that it is up at once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from bridge.service import Service


def watch(url: str, pages: int, pipe: Connection) -> None:
    """Process: `pages` pages that watch both pictures, until the pipe says stop; sends how many came."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    counts = [0] * pages

    def page(number: int) -> None:
        with contextlib.suppress(ConnectionClosed), connect(url, max_size=None, proxy=None) as socket:
            socket.send(json.dumps({"watch": ["output", "input"]}))
            for _ in socket:
                counts[number] += 1
                socket.send('"drawn"')

    for number in range(pages):
        Service(f"page {number}", functools.partial(page, number)).start()
    while pipe.recv() == "count":
        pipe.send(sum(counts))


@contextlib.contextmanager
def open_pages(url: str, pages: int) -> Any:
    """The pages' process; gives a function that tells how many pictures came since it was called last."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=watch, args=(url, pages, theirs), daemon=True)
    process.start()
    last = 0

    def count() -> int:
        nonlocal last
        ours.send("count")
        now = ours.recv()
        last, new = now, now - last
        return new

    try:
        yield count
    finally:
        ours.send("stop")
        process.join()
