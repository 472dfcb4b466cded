"""The process that feeds one target: `python -m bridge.drills.fuzzing.worker FOLDER < job as JSON`.

It writes every input into `FOLDER/current` before it feeds it, so that its parent knows which input ended it, and every
finding into `FOLDER/findings`. An input on which it works for `HANG_S` ends it.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import json
import mmap
import os
import random
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

LIMIT_MS = 20.0
"""Longest time that one input may take, in ms of processor time, so that other programs do not matter."""

TRIES = 3
"""How often a replayed input is timed."""

HANG_S = 3.0
MAX_BYTES = 4096
"""Longest input that is made up; replayed ones may be longer."""

MEMORY_MIB = 4096
_HEAD = struct.Struct("<QI")
_ROOM = 1 << 17

TELLING = (
    *(bytes([code]) for code in b"\0/,*{}[]()\"'\\:;~9-%#!?=<>\n\xff"),
    b"\r\n",
    b"{,}",
    b"{a,a}",
    b"*/",
    b"[a-z]",
    b"[!",
    b"#bundle\0",
    b"../",
    b"\xed\xa0\x80",
)
"""Bytes that mean something to some target; they are inserted, often many times in a row."""

MEASURED = ("bridge", "engine.co", "pythonosc")
"""First parts of the names of the modules whose coverage guides: the code of the targets that can be steered by it."""

Check = Callable[[bytes], object]


class Feeder:
    """Feeds inputs to a check and keeps what is found.

    Args:
        check: the target.
        folder: see the module.
        limit_ms: longest time for one input.
        tries: an input is too slow if it is in every one of so many tries: the first use of something takes longer.
    """

    def __init__(self, check: Check, folder: Path, limit_ms: float, tries: int = 1) -> None:
        self._check = check
        self._findings = folder / "findings"
        self._limit_ms = limit_ms
        self._tries = tries
        self._slowest_ms = 0.0
        self._seen: set[str] = set()
        with (folder / "current").open("r+b") as file:
            self._current = mmap.mmap(file.fileno(), _ROOM)
        self._count = 0
        self._armed = 0.0

    def feed(self, data: bytes) -> None:
        """Feed one input. Exceptions and times over the limit are findings."""
        self._count += 1
        self._current[: _HEAD.size + len(data)] = _HEAD.pack(self._count, len(data)) + data
        now = time.monotonic()
        if now - self._armed > HANG_S / 6:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            self._armed = now
        took_ms = 0.0
        for _ in range(self._tries):
            began = time.thread_time()
            try:
                self._check(data)
            except Exception as error:  # this is what the fuzz looks for
                self._keep(data, f"{type(error).__name__} at {_place(error)}", traceback.format_exc())
                return
            took_ms = (time.thread_time() - began) * 1e3
            if took_ms <= max(self._limit_ms, 1.5 * self._slowest_ms):
                return
        self._slowest_ms = took_ms
        self._keep(data, f"slow {took_ms:.0f}", f"{took_ms:.0f} ms of processor time")

    def _keep(self, data: bytes, key: str, text: str) -> None:
        if key in self._seen:
            return
        self._seen.add(key)
        name = hashlib.sha256(data).hexdigest()[:12]
        (self._findings / name).write_bytes(data)
        (self._findings / f"{name}.txt").write_text(f"{key}\n{text}", encoding="utf-8")


def current(folder: Path) -> tuple[int, bytes]:
    """How many inputs a worker has been fed, and the last of them."""
    content = (folder / "current").read_bytes()
    count, length = _HEAD.unpack_from(content)
    return count, content[_HEAD.size : _HEAD.size + length]


def prepare(folder: Path) -> None:
    """Make what a worker needs in its folder."""
    (folder / "findings").mkdir(parents=True, exist_ok=True)
    (folder / "current").write_bytes(bytes(_ROOM))


def _place(error: BaseException) -> str:
    """The innermost line of this repository that the exception passed."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    own = [f for f in lines if "/bridge/" in f.filename.replace("\\", "/") or "/engine/" in f.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"


def mutations(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """Endless changed copies of the seeds: bytes flipped, removed, repeated and inserted, seeds joined."""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            to = min(len(data), at + rng.randint(1, 16))
            kind = rng.randrange(6)
            if kind == 0 and at < len(data):
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at:to]
            elif kind == 2:
                data[at:at] = rng.choice(TELLING) * rng.choice((1, 1, 2, 8, 60, 300))
            elif kind == 3:
                data[at:at] = data[at:to] * rng.choice((1, 4, 30))
            elif kind == 4:
                other = rng.choice(seeds)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
        yield bytes(data[:MAX_BYTES])


def guided(feed: Callable[[bytes], None], seeds: Path, found: Path, seconds: float, seed: int) -> None:
    """Run atheris, which ends this process when the time is over."""
    import atheris

    words = found.parent / "words.dict"
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word * n) + '"' for word in TELLING for n in (1, 20))
    words.write_text("\n".join(lines), encoding="ascii")
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_BYTES}",
        f"-seed={seed}",
        "-timeout=0",
        "-rss_limit_mb=0",
        "-verbosity=0",
        "-use_value_profile=1",
        "-len_control=0",
        f"-dict={words}",
        f"-artifact_prefix={found.parent}/",  # else what ends it is also written into the checkout
    ]
    atheris.Setup([sys.argv[0], str(found), str(seeds), *options], feed)
    atheris.Fuzz()


def _open_target(job: dict[str, Any]) -> AbstractContextManager[Check]:
    """The target, imported here: with guidance, atheris must see every module of it being imported."""
    if job["guided"]:
        import atheris

        with atheris.instrument_imports(include=[*MEASURED, job["module"]]):
            module = importlib.import_module(job["module"])
    else:
        module = importlib.import_module(job["module"])
    opened: AbstractContextManager[Check] = module.TARGETS[job["target"]].open()
    return opened


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, resource.RLIM_INFINITY))


def logged(folder: Path, job: dict[str, Any]) -> None:
    """Carry out one job in a process that was forked for it, with its output in `FOLDER/log`."""
    with (folder / "log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    main(folder, job)


def main(folder: Path, job: dict[str, Any]) -> None:
    """Carry out one job, a dict with the keys that `campaign` writes; without seconds, feed each seed once."""
    faulthandler.enable()
    _limit_memory()
    with _open_target(job) as check:
        feeder = Feeder(check, folder, job["limit_ms"], TRIES if not job["seconds"] else 1)
        seeds = [path.read_bytes() for path in sorted((folder / "seeds").iterdir())]
        if not job["seconds"]:
            for data in seeds:
                feeder.feed(data)
        elif job["guided"]:
            guided(feeder.feed, folder / "seeds", folder / "found", job["seconds"], job["seed"])
        else:
            end = time.monotonic() + job["seconds"]
            for data in mutations(seeds, job["seed"]):
                feeder.feed(data)
                if time.monotonic() > end:
                    break
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
