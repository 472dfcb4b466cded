"""The NDI library and its discovery of sources: loading, names, finders.

This module hides some peculiarities of discovery, all of them observed:

* Without an mDNS service a finder sees only the addresses that it is given. All NDI processes of a machine listen on
  the same port, so that one address reaches one of them at random; sixteen loopback addresses reach them all.
* A finder keeps to the processes that it reached first. While a source is missing, a new finder is made repeatedly.
* A finder must not be destroyed soon after it was made (see `_Search._round`).
* An NDI source's address changes each time its sender starts; only its name stays the same.
"""

from __future__ import annotations

import atexit
import fnmatch
import importlib
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Protocol

from bridge.service import Service
from engine.errors import TransportError

LOOPBACK = tuple(f"127.0.0.{n}" for n in range(1, 17))
"""Enough addresses of this machine to reach every NDI process on it."""

ROUND_S = 1.2
"""How long one finder is used."""

MIN_FINDER_AGE_S = 0.4
"""Youngest age at which a finder may be destroyed."""

_SEEN_S = 5.0  # a source is listed for this long after it was last seen
_STEP_MS = 50
_lock = threading.Lock()
_loaded: ModuleType | None = None
_own_names: set[str] = set()


def library() -> ModuleType:
    """The NDI binding, initialised.

    Raises:
        TransportError: the package or a system library that it needs is missing, or the processor is too old.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            try:
                module = importlib.import_module("NDIlib")
            except ImportError as error:
                missing = "avahi" in str(error)
                raise TransportError(
                    f"NDI cannot be loaded: {error}.",
                    "Install it with: sudo apt install libavahi-client3 libavahi-common3"
                    if missing
                    else "Install it with: pip install ndi-python",
                ) from error
            if not module.initialize():
                raise TransportError(
                    "NDI does not run on this processor.", "It needs a 64-bit processor with SSE4.2 or NEON."
                )
            _loaded = module
            atexit.register(_close_all)
        return _loaded


def add_own_output(name: str) -> None:
    """Note the full name of an output of this process, so that it is not chosen as an input by mistake."""
    with _lock:
        _own_names.add(name)


def remove_own_output(name: str) -> None:
    """Remove a name that `add_own_output` added."""
    with _lock:
        _own_names.discard(name)


def is_own_output(name: str) -> bool:
    """Whether an output of this process has this full name."""
    with _lock:
        return name in _own_names


def choose(pattern: str, names: list[str], whole: bool = False) -> str | None:
    """The source that matches a pattern, or None.

    A full name is `MACHINE (SOURCE)`. The pattern is compared in this order: with the full name, with the part in
    brackets, as a wildcard (`*`, `?`) with either, as a part of the full name. The first comparison with a match
    decides; of several matches the first in the alphabetical order of the part in brackets is taken. Case is ignored.
    Outputs of this process match by their full name only.

    Args:
        pattern: what the user wrote after `ndi:`; empty means any source.
        names: full names of the sources that can be seen.
        whole: whether only the first two comparisons count.
    """
    wanted = pattern.strip().casefold()
    for name in sorted(names):
        if name.casefold() == wanted:
            return name
    with _lock:
        others = sorted(set(names) - _own_names, key=lambda name: (short_name(name).casefold(), name))
    tests: tuple[Callable[[str], bool], ...] = (
        lambda name: short_name(name) == wanted,
        lambda name: fnmatch.fnmatchcase(name, wanted) or fnmatch.fnmatchcase(short_name(name), wanted),
        lambda name: wanted in name,
    )
    for test in tests[: 1 if whole else None]:
        for name in others:
            if test(name.casefold()):
                return name
    return None


def short_name(name: str) -> str:
    """The part in brackets of `MACHINE (SOURCE)`."""
    return name.partition("(")[2].rpartition(")")[0] or name


class Finder:
    """One user's search for sources. All `Finder`s of a process share one thread and one NDI finder.

    Args:
        extra_ips: addresses to search, in addition to this machine's and those that mDNS finds.
    """

    def __init__(self, extra_ips: tuple[str, ...] = ()) -> None:
        self._search = _search()
        self.extra_ips = extra_ips

    def start(self) -> None:
        """Start to search; does nothing while searching. Sources seen before this call do not count."""
        self._search.add(self)

    def stop(self) -> None:
        """Stop searching; idempotent."""
        self._search.remove(self)

    @property
    def searching(self) -> bool:
        """Whether the search is running."""
        return self._search.has(self)

    def sources(self) -> dict[str, str]:
        """Address by full name of the sources seen in the last seconds; empty while not searching."""
        return self._search.seen_by(self)

    def wait(self, pattern: str, timeout_s: float, lost: str = "") -> tuple[str, str] | None:
        """Wait for a source that matches a pattern; returns its full name and address, or None if none came in time.

        Args:
            pattern: see `choose`.
            timeout_s: longest wait.
            lost: full name of the source that is gone, if there was one. Where it had just the wanted name, one whose
                name only contains that does not take its place.
        """
        whole = bool(lost) and choose(pattern, [lost], whole=True) is not None
        deadline = time.monotonic() + timeout_s
        while True:
            with self._search.changed:
                seen = self.sources()
                name = choose(pattern, list(seen), whole)
                if name is not None:
                    return name, seen[name]
                left = deadline - time.monotonic()
                if left <= 0 or not self._search.changed.wait(left):
                    return None


class _Search:
    """Searches while there are users, with a new NDI finder every `ROUND_S`; otherwise its thread waits."""

    def __init__(self, ndi: ModuleType) -> None:
        self._ndi = ndi
        self._users: dict[Finder, float] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        self.changed = threading.Condition(threading.RLock())
        self._service = Service("ndi-finder", self._run, wake=self._notice)
        # libndi's clean-up at exit aborts if a thread is still inside it; one that hangs there is not waited for.
        atexit.register(self._service.stop, 2 * ROUND_S)

    def add(self, user: Finder) -> None:
        with self.changed:
            if user not in self._users and not self._service.stopping.is_set():
                self._users[user] = time.monotonic()
                self._service.start()
                self.changed.notify_all()

    def remove(self, user: Finder) -> None:
        with self.changed:
            self._users.pop(user, None)

    def has(self, user: Finder) -> bool:
        with self.changed:
            return user in self._users

    def seen_by(self, user: Finder) -> dict[str, str]:
        with self.changed:
            since = max(self._users.get(user, float("inf")), time.monotonic() - _SEEN_S)
            return {name: url for name, (url, seen) in self._seen.items() if seen > since}

    def _run(self) -> None:
        ending = self._service.stopping
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._users or ending.is_set())
                if ending.is_set():
                    return
                ips = dict.fromkeys((*LOOPBACK, *(ip for user in self._users for ip in user.extra_ips)))
            self._round(",".join(ips), ending)

    def _notice(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _round(self, ips: str, ending: threading.Event) -> None:
        """Search with one finder for `ROUND_S`, even if there are no users any more.

        If a finder is destroyed while it connects (about 20 ms after it was made), this can end the *other* process:
        libndi 6.3 aborts in a sender with `std::system_error: Invalid argument`.
        """
        ndi = self._ndi
        settings = ndi.FindCreate()
        settings.show_local_sources = True
        settings.extra_ips = ips
        finder = ndi.find_create_v2(settings)
        if finder is None:
            ending.wait(ROUND_S)
            return
        until = time.monotonic() + ROUND_S
        while (now := time.monotonic()) < until - (ROUND_S - MIN_FINDER_AGE_S) * ending.is_set():
            ndi.find_wait_for_sources(finder, _STEP_MS)
            found = {source.ndi_name: source.url_address for source in ndi.find_get_current_sources(finder)}
            with self.changed:
                self._seen = {name: entry for name, entry in self._seen.items() if entry[1] > now - _SEEN_S}
                self._seen |= {name: (url, time.monotonic()) for name, url in found.items()}
                self.changed.notify_all()
        ndi.find_destroy(finder)


_shared_search: _Search | None = None


def _search() -> _Search:
    global _shared_search
    ndi = library()
    with _lock:
        if _shared_search is None:
            _shared_search = _Search(ndi)
        return _shared_search


class Closable(Protocol):
    """Something that owns an NDI handle."""

    def close(self) -> None:
        """Destroy the handle; idempotent."""


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(owner: Closable) -> None:
    """Have a handle destroyed before the process exits: otherwise libndi's clean-up aborts."""
    with _lock:
        _open.add(owner)


def _close_all() -> None:
    for owner in tuple(_open):
        owner.close()
