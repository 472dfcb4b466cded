"""A running show: saved to a file, and replaced by one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bridge.control.cues.cue_list import CueList
from bridge.control.cues.service import Cues
from bridge.control.midi.bindings import Binding
from bridge.control.midi.switch import MidiSwitch
from bridge.control.origin import INTERNAL, Origin
from bridge.control.snapshots import Snapshots
from bridge.control.store import Caller, ControlStore
from bridge.control.stored.content import EXTRAS, stored_names
from bridge.show.show_file import Show, ShowError, pack, show_names, unpack
from engine.errors import ControlError, TidecastError

log = logging.getLogger(__name__)


class LiveShow:
    """Saves and opens show files while Tidecast runs.

    Args:
        store: the live controls.
        snapshots: the stored snapshots.
        midi: the MIDI bindings.
        report: called with (topic, reason) when bindings cannot be brought back.
        cues: the cue list; without it, shows have none.
    """

    def __init__(
        self,
        store: ControlStore,
        snapshots: Snapshots,
        midi: MidiSwitch,
        report: Callable[[str, str], None],
        cues: Cues | None = None,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._midi = midi
        self._report = report
        self._cues = cues
        self._opening = threading.Lock()

    def save(self) -> bytes:
        """The show of this moment as a file.

        Raises:
            TidecastError: if it is too large, or the bindings cannot be read.
        """
        values = self._store.values()
        controls = {name: values[name] for name in show_names(self._store.table)}
        cues = self._cues.cues if self._cues is not None else None
        return pack(Show(self._snapshots.all(), self._midi.bindings(), controls, cues=cues), self._store.table)

    def check(self, data: bytes, origin: Origin) -> Show:
        """The show in a file, after every check; changes nothing.

        Raises:
            ShowError: if it is not valid, or sets something that this sender may not set.
        """
        show = unpack(data, self._store.table)
        controls = self._allowed("Controls", show.controls, origin)
        snapshots = {}
        for number, stored in show.snapshots.items():
            recalled = stored_names(self._store.table, stored.get(EXTRAS, ()))
            values = {name: stored[name] for name in recalled if name in stored}
            snapshots[number] = {**stored, **self._allowed(f"Snapshot {number}", values, origin)}
        for number, binding in enumerate(show.bindings, 1):
            control = self._store.table.targets[binding.address].control
            if control is not None and binding.args:  # what a knob sends is sent by this machine, which may do more
                self._allowed(f"MIDI binding {number}", {control.name: binding.args[0]}, origin)
        cues = show.cues
        if cues is not None:
            rows = [
                cue.model_copy(update={"values": self._allowed(f"Cue {number}", cue.values, origin)})
                for number, cue in enumerate(cues.cue, 1)
            ]
            cues = cues.model_copy(update={"cue": tuple(rows)})
        return Show(snapshots, show.bindings, controls, show.program, cues)

    def open(self, data: bytes, origin: Origin) -> Show:
        """Replace snapshots, bindings and cues by those of a file and set its controls; `/snapshot/undo` takes it back.

        Raises:
            TidecastError: as `check`, or if the bindings cannot be written; nothing was changed.
        """
        with self._opening:
            show = self.check(data, origin)
            values = self._store.values()
            before = {name: values[name] for name in show.controls}
            bindings = self._midi.bindings()
            self._bind(show.bindings, bindings)
            try:
                self._store.set_now(show.controls, origin)
            except TidecastError:
                self._bind(bindings, show.bindings)
                raise
            listed = self._list(show.cues)
            self._snapshots.replace_all(
                show.snapshots,
                Caller(origin),
                lambda: self._take_back(before, show.controls, bindings, show.bindings, listed, show.cues),
            )
            return show

    def _list(self, cues: CueList | None) -> CueList | None:
        """Put this list in the place of the one that there is; returns that one, None if nothing is changed."""
        return self._cues.replace(cues) if self._cues is not None and cues is not None else None

    def _allowed(self, where: str, values: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
        """The values to set instead of these, by the rules for this sender."""
        try:
            return self._store.checked(values, origin)
        except ControlError as error:
            raise ShowError(f"{where}: {error.message}", error.remedy) from None

    def _bind(self, wanted: tuple[Binding, ...], now: tuple[Binding, ...]) -> None:
        if wanted != now:
            self._midi.replace(wanted)

    def _take_back(
        self,
        before: Mapping[str, Any],
        opened: Mapping[str, Any],
        old: tuple[Binding, ...],
        new: tuple[Binding, ...],
        listed: CueList | None,
        opened_list: CueList | None,
    ) -> None:
        """Bring back bindings, the cues if nobody has changed them since, and the controls that nobody has set since.
        Returns at once; the disk may be slow.

        The thread is no `Service`: it ends by itself, and there is one for each undo at most.
        """
        now = self._store.values()
        self._store.set_many({n: v for n, v in before.items() if now[n] == opened[n]}, INTERNAL)
        if self._cues is not None and self._cues.cues is opened_list:
            self._list(listed)

        def bind() -> None:
            try:
                self._bind(old, new)
            except Exception as error:  # the show goes on with the bindings that it has
                log.exception("MIDI bindings could not be brought back")
                self._report("midi", f"The MIDI bindings could not be brought back: {error}")

        threading.Thread(target=bind, name="show-undo", daemon=True).start()
