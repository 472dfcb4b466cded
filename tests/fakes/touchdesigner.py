"""A strict stand-in for TouchDesigner's Python: enough to build the component, run its scripts and talk OSC.

With it the component can be developed without TouchDesigner. It is strict where the real one is forgiving: an operator
type, parameter, menu word or attribute that is neither in `names.json` nor below raises. It proves that scripts and
builder use documented names, not that TouchDesigner accepts them. OSC goes over real UDP, on loopback only; there are
no pictures.

    world = FakeTouchDesigner(folder)
    world.run_script(text_of_build_in_td)
    world.frame()                       # OSC in, parameter callbacks, frame callbacks
"""

from __future__ import annotations

import socket
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_message import OscMessage

from tests.fakes.touchdesigner_operators import COMP, DAT, NAMES, OpClass, Par, ParMode


class TdModule(types.ModuleType):
    """The module `td`, with nothing in it that is not documented."""

    def __init__(self, world: FakeTouchDesigner) -> None:
        super().__init__("td")
        self.op = world.root.op
        self.project = world.project
        self.ParMode = ParMode
        for kind, name in NAMES.classes.items():
            setattr(self, name, OpClass(kind))


class FakeTouchDesigner:
    """A running TouchDesigner with a root and a /project1.

    Args:
        folder: folder of the project; `save` and reports write there.
    """

    def __init__(self, folder: Path) -> None:
        self.project = types.SimpleNamespace(folder=str(folder), name="fake.toe")
        self.root = COMP(self, "COMP:base", "", None)
        self.td = TdModule(self)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.changes: list[tuple[Par, bool]] = []
        self.printed: list[str] = []
        self.frames = 0
        self.bpm = 120.0
        self._counted = (time.monotonic(), 0.0)  # a time, and the beats since the start
        self.root.create(self.td.baseCOMP, "project1")

    def run_script(self, text: str) -> dict[str, Any]:
        """Run a text as a Text DAT does, and return its names."""
        names: dict[str, Any] = {"__name__": "script", "print": lambda *a: self.printed.append(" ".join(map(str, a)))}
        names["__builtins__"] = {**vars(__import__("builtins")), "__import__": self._import}
        exec(compile(text, "build_in_td.py", "exec"), names)
        return names

    def _import(self, name: str, *args: Any) -> Any:
        return self.td if name == "td" else __import__(name, *args)

    def changed(self, par: Par) -> None:
        """A parameter was changed; its callback follows at the next frame."""
        self.changes.append((par, False))

    def pulsed(self, par: Par) -> None:
        """A pulse was pressed; its callback follows at the next frame."""
        if par.name == "reinitextensions":
            par.owner.initialise()
        else:
            self.changes.append((par, True))

    def beats(self) -> float:
        """The beats of the project's tempo since the start."""
        since, beats = self._counted
        return beats + (time.monotonic() - since) * self.bpm / 60.0

    def set_tempo(self, bpm: float) -> None:
        """Change the project's tempo; the beat goes on from where it is."""
        self._counted, self.bpm = (time.monotonic(), self.beats()), bpm

    def all(self, op_type: str) -> Iterator[DAT]:
        """Every operator of a class, at any depth."""
        waiting = [self.root]
        while waiting:
            for child in waiting.pop().children.values():
                if child.OPType == op_type:
                    yield child  # type: ignore[misc]
                if child.isCOMP:
                    waiting.append(child)  # type: ignore[arg-type]

    def frame(self) -> None:
        """One frame: OSC that came, then changed parameters, then the frame callbacks."""
        self.frames += 1
        for dat in list(self.all("oscinDAT")):
            self._receive(dat)
        changes, self.changes = self.changes, []
        for dat in list(self.all("parameterexecuteDAT")):
            self._tell(dat, changes)
        for dat in list(self.all("executeDAT")):
            if dat.pars["active"].eval() is not False and dat.pars["framestart"].eval():
                dat.module.onFrameStart(self.frames)

    def call(self, name: str) -> None:
        """Call onStart or onExit of every Execute DAT that listens to it."""
        trigger = {"onStart": "start", "onExit": "exit"}[name]
        for dat in list(self.all("executeDAT")):
            if dat.pars[trigger].eval():
                getattr(dat.module, name)()

    def ndi(self, sources: list[str]) -> None:
        """Let every NDI DAT list these sources."""
        for dat in self.all("ndiDAT"):
            dat.rows = [["name"], *([s] for s in sources)]

    def close(self) -> None:
        """Close every socket."""
        self.sender.close()
        for dat in self.all("oscinDAT"):
            if dat.socket is not None:
                dat.socket.close()

    def _receive(self, dat: DAT) -> None:
        port = int(dat.pars["port"].eval())
        if dat.socket is not None and (dat.socket.getsockname()[1] != port or not dat.pars["active"].eval()):
            dat.socket.close()
            dat.socket = None
        if dat.socket is None:
            if not dat.pars["active"].eval():
                return
            dat.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            dat.socket.bind(("127.0.0.1", port))
            dat.socket.setblocking(False)
        callbacks = dat.parent().op(dat.pars["callbacks"].eval())
        assert isinstance(callbacks, DAT)
        while True:
            try:
                packet, peer = dat.socket.recvfrom(65535)
            except BlockingIOError:
                return
            for message in _messages(packet):
                callbacks.module.onReceiveOSC(
                    dat, 0, message.address, packet, 0.0, message.address, list(message.params), peer
                )

    def _tell(self, dat: DAT, changes: list[tuple[Par, bool]]) -> None:
        watched = dat.parent().op(dat.pars["op"].eval()) if dat.pars["op"].eval() != ".." else dat.parent()
        for par, pulse in changes:
            if par.owner is not watched or (par.name in watched.custom) is not dat.pars["custom"].eval():
                continue
            if pulse and dat.pars["onpulse"].eval():
                dat.module.onPulse(par)
            elif not pulse and dat.pars["valuechange"].eval():
                dat.module.onValueChange(par, None)


def _messages(packet: bytes) -> Iterator[OscMessage]:
    if not OscBundle.dgram_is_bundle(packet):
        yield OscMessage(packet)
        return
    for part in OscBundle(packet):
        yield from _messages(part.dgram)
