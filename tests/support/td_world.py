"""A fake TouchDesigner with the component built in it by build_in_td.py, for the tests of its scripts."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge.control.osc.server import OscServer
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from td_components.definition.spec import HERE
from tests.fakes.touchdesigner import FakeTouchDesigner
from tests.fakes.touchdesigner_operators import COMP


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """The fake TouchDesigner with the component in it; steps frames until a condition holds."""

    def __init__(self, folder: Path) -> None:
        self.td = FakeTouchDesigner(folder)
        self.td.run_script((HERE / "build_in_td.py").read_text(encoding="utf-8"))
        comp = self.td.root.op("/project1/Tidecast")
        assert isinstance(comp, COMP)
        self.comp = comp
        self.par = comp.par
        self.par.Listenport = free_port()

    def until(self, holds: Callable[[], object], seconds: float = 60.0, what: str = "") -> None:
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, f"{what or 'it'} did not come; log: {self.log()[-12:]}"
            self.td.frame()
            time.sleep(0.01)

    def frames(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            self.td.frame()
            time.sleep(0.01)

    def press(self, name: str) -> None:
        self.comp.pars[name].pulse()
        self.td.frame()

    def log(self) -> list[str]:
        return [row[1] for row in self.comp.op("log").rows]

    def online(self) -> bool:
        return bool(self.par.Online.eval())

    @property
    def index(self) -> int:
        """Which picture the switch lets through: 0 the input, 1 NDI, 2 Spout."""
        return int(self.comp.op("switch").par.index.eval())


class Bridge:
    """A real control store behind a real OSC server, which reports a state as a running Tidecast does."""

    def __init__(self, port: int = 0) -> None:
        self.store = ControlStore(TABLE)
        self.telemetry = Telemetry(TABLE)
        self.server = OscServer(self.store, self.telemetry, host="127.0.0.1", port=port).start()
        self.port = self.server.address[1]
        self.state("running")

    def state(self, state: str, **more: object) -> None:
        self.telemetry.update(state=state, **more)

    def stop(self) -> None:
        self.server.stop()


def end_the_greeting(world: World, bridge: Bridge) -> None:
    """Wait until the component has sent all its values to a Tidecast that is ready, and they have arrived: until then
    they overwrite the values of others."""
    arrived: list[object] = []
    world.until(lambda: world.par.Statusstate.eval() == "running", what="the state")
    world.td.frame()
    undo = bridge.store.on("snapshot_save", lambda args, caller: arrived.append(args))
    world.press("Snapshotsave")
    world.until(lambda: arrived, what="the last of the greeting")
    undo()


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[tuple[World, Bridge]]:
    world, bridge = World(folder), Bridge()
    try:
        world.par.Port = bridge.port
        end_the_greeting(world, bridge)
        yield world, bridge
    finally:
        bridge.stop()
        world.td.close()
