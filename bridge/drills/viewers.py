"""Pages without a browser: a process that watches the previews as browsers do, for benchmarks and tests.

It takes both previews as fast as they come and acknowledges each picture. It imports little, so it starts quickly.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from bridge.service import Service


def watch(url: str, pages: int, pipe: Connection) -> None:
    """Main function of the process: open `pages` pages that watch both previews.

    Answers each "count" on the pipe with the number of pictures that all pages have received; another message ends it.
    """
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
def open_pages(url: str, pages: int) -> Iterator[Callable[[], int]]:
    """Run `pages` pages on the WebSocket `url`; gives a function that counts the pictures since its last call."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=watch, args=(url, pages, theirs), daemon=True)
    process.start()
    last = 0

    def count() -> int:
        nonlocal last
        ours.send("count")
        before, last = last, int(ours.recv())
        return last - before

    try:
        yield count
    finally:
        ours.send("stop")
        process.join()
