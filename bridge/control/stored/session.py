"""What a restart of the program brings back: a few values in one small JSON file, and the tempo among them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bridge.control.files import locked, remove_unfinished, set_aside, write_atomically
from bridge.control.origin import INTERNAL
from bridge.control.store import ControlStore
from bridge.service import Service
from engine.errors import ControlError

PERIOD_S = 1.0
"""Shortest time between two writes: a tempo that follows its source changes all the time."""

MAX_BYTES = 64 * 1024

CONTROLS = "controls"
"""Key of the values of controls."""


class Session:
    """One file of plain values by key, written on a thread of its own. Thread-safe.

    Args:
        path: the file; made with its folder at the first change.
        report: called with (topic, reason) when it cannot be read or written.
    """

    def __init__(self, path: Path, report: Callable[[str, str], None]) -> None:
        self._path = path
        self._report = report
        self._change = threading.Condition()
        self._values: dict[str, Any] = {}
        self._unwritten = False
        self._service = Service("session", self._run, report, self._notice)
        self._undo: list[Callable[[], None]] = []

    def start(self) -> Session:
        """Read the file and begin to write. A damaged file is renamed and reported."""
        remove_unfinished(self._path)
        self._values = self._read()
        self._service.start()
        return self

    def stop(self) -> None:
        """Write what is not written yet, and end."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._service.stop()

    def get(self, key: str) -> Any:
        """The value of a key; None if there is none."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value, which must be plain data; it is written soon."""
        with self._change:
            if self._values.get(key) != value:
                self._values = {**self._values, key: value}
                self._unwritten = True
                self._change.notify_all()

    def keep(self, store: ControlStore, names: Collection[str], chosen: Collection[str] = ()) -> None:
        """Set these controls to what they were when the program ended, and keep their values from now on.

        Args:
            store: the live controls.
            names: the controls.
            chosen: those of them that the configuration sets; they stay as they are.
        """
        found = self.get(CONTROLS)
        kept: Mapping[str, Any] = found if isinstance(found, dict) else {}
        for name in names:
            if name in kept and name not in chosen:
                try:
                    store.set_now({name: kept[name]}, INTERNAL)
                except ControlError as error:
                    self._report("session", f"{name} is not as it was before the restart: {error.message}")

        def note(name: str, *_: object) -> None:
            if name in names:
                now = store.snapshot
                self.put(CONTROLS, {name: now.value(name) for name in names})

        self._undo.append(store.listen(note))

    def _notice(self) -> None:
        with self._change:
            self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._unwritten or self._service.stopping.is_set())
                values, unwritten, self._unwritten = self._values, self._unwritten, False
            if unwritten:
                self._write(values)
            if self._service.stopping.wait(PERIOD_S) and not self._unwritten:
                return

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._report("session", f"{self._path} cannot be read ({error.strerror}).")
            return {}
        try:
            content = json.loads(data) if len(data) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            return content
        try:
            aside = set_aside(self._path)
            self._report("session", f"{self._path} is damaged; it was set aside as {aside.name}.")
        except OSError as error:
            self._report("session", f"{self._path} is damaged and cannot be set aside ({error.strerror}).")
        return {}

    def _write(self, values: Mapping[str, Any]) -> None:
        data = json.dumps(values, ensure_ascii=True, indent=1).encode()
        if len(data) > MAX_BYTES:
            self._report("session", f"What a restart brings back has {len(data):,} bytes and was not written.")
            return
        try:
            with locked(self._path):
                write_atomically(self._path, data)
        except OSError as error:
            self._report("session", f"{self._path} cannot be written ({error.strerror}).")
