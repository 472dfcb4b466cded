"""The component starts, drives, loses, finds again and stops a real `tidecast demo`, over real UDP.

TouchDesigner is the strict fake; process, engine and OSC are the real ones.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Collection
from pathlib import Path

import psutil
import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from bridge.control.modulation.controls import SLOTS
from bridge.table import TABLE
from engine.control import PREFIX, Kind
from td_components.definition import pages
from tests.support.td_world import World, free_port

LONG = ("水晶の川 🌊 a river of glass, slowly, " * 600).encode()[:20_480].decode(errors="ignore")


NAMED = {
    "output_size": "288x256",
    "engine_size": "272x256",
    "engine_model": "ember",
    "audio_source": "ndi",
    "mask_key": "#0020ff",
    "mask_input": "pattern:bars",
    "mask_background_input": "pattern:counter",
    "mask_background_color": "#102030",
    **{f"mod_{number}": f"lora_1 sine hz={number}" for number in range(1, SLOTS + 1)},
}
"""Values of controls that do not take every text."""


class Observer:
    """Another client: asks Tidecast itself which values are in force."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.target = ("127.0.0.1", port)
        self.asked = 0.0
        self.heard: dict[str, object] = {}

    def send(self, address: str, *values: object) -> None:
        message = OscMessageBuilder(PREFIX + address)
        for value in values:
            message.add_arg(value)
        self.socket.sendto(message.build().dgram, self.target)

    def values(self) -> dict[str, object]:
        if time.monotonic() - self.asked > 1.0:
            self.asked = time.monotonic()
            self.send("/subscribe", self.socket.getsockname()[1])
            self.send("/resend")
        while True:
            try:
                message = OscMessage(self.socket.recv(65535))
            except (BlockingIOError, ConnectionRefusedError):
                return self.heard
            if message.params:
                self.heard[message.address.removeprefix(PREFIX)] = message.params[0]


def wanted(control):
    """A value for every control that a running demo can live with."""
    special = {
        "prompt_1": LONG,
        "prompt_2": "Fluß",
        "weight_2": 0.5,
        "input": "pattern:bars",
        "steps": 1,
        "black": False,
        "freeze": False,
        "bypass": False,
        "slo_latency": 1500.0,
        "tempo_source": "osc",  # link would join other people's sessions; a tempo that is set ends tap
    }
    if control.name in special:
        return special[control.name]
    if control.kind is Kind.BOOL:
        return not control.default
    if control.kind is Kind.CHOICE:
        return control.choices[-1]
    if control.name in NAMED:
        return NAMED[control.name]
    if control.kind is Kind.TEXT:
        return f"text of {control.name}"
    value = control.low + (control.high - control.low) / 4
    return round(value) if control.kind is Kind.INT else value


def missing(observer: Observer, without: Collection[str]) -> dict[str, object]:
    """The controls that have another value than was set, and their values."""
    values = observer.values()
    return {
        c.name: values.get(c.address)
        for c in TABLE.controls
        if c.name not in without
        and values.get(c.address) != (pytest.approx(wanted(c), rel=1e-5) if c.numeric else wanted(c))
    }


def until_held(world: World, observer: Observer, what: str, without: Collection[str] = ()) -> None:
    """Wait until every control has the value that was set."""
    try:
        world.until(lambda: not missing(observer, without), what=what)
    except AssertionError:
        raise AssertionError(f"{what}: {missing(observer, without)!s:.500}") from None


def children(world: World) -> list[psutil.Process]:
    engine = world.comp.op("engine_process").module.RUNNING[world.comp.id]
    return psutil.Process(engine.process.pid).children(recursive=True)


@pytest.fixture
def world(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = World(tmp_path)
    made.par.Port = free_port()
    made.par.Executable = sys.executable
    made.par.Arguments = (
        "demo --plain --no-web --web-port 0 --output null: --size 256x256 "
        "--set engine.threads=1 --set engine.warmup=false "
        f"--set storage.state_dir={tmp_path}/state --set storage.record_dir={tmp_path}/record"
    )
    made.comp.op("callbacks").text = "def onReady(comp):\n    comp.store('ready', comp.fetch('ready', 0) + 1)\n"
    yield made
    made.td.call("onExit")
    made.td.close()


@pytest.mark.long
@pytest.mark.timeout(700)
@pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")
def test_start_drive_lose_find_again_and_stop(world, monkeypatch):
    monkeypatch.setattr(world.comp.op("engine_process").module, "GRACE", 180.0)  # a busy machine may take its time
    world.press("Start")
    world.until(lambda: world.par.Statusstate.eval() == "running", seconds=200, what="a running Tidecast")
    world.until(lambda: world.comp.fetch("ready", 0) == 1 and world.index == 1, what="onReady")
    observer = Observer(world.par.Port.eval())

    for control in TABLE.controls:
        world.comp.pars[pages.control_name(control.name)].val = wanted(control)
    until_held(world, observer, "every parameter")
    world.until(lambda: "river of glass" in world.par.Statusprompt.eval(), seconds=200, what="the prompt in force")
    world.until(lambda: world.par.Statusfpsengine.eval() > 0, seconds=200, what="restyled frames")

    max(children(world), key=lambda process: process.memory_info().rss).kill()  # the engine is by far the largest
    world.until(lambda: world.comp.fetch("ready", 0) >= 2, seconds=200, what="the engine's return")
    assert world.online()
    until_held(world, observer, "every parameter, after the engine's death")

    whole = [
        psutil.Process(world.comp.op("engine_process").module.RUNNING[world.comp.id].process.pid),
        *children(world),
    ]
    for process in whole:
        process.kill()
    world.until(lambda: not world.online(), what="the offline sign")
    assert world.index == 0 and "see the log" in world.par.Process.eval()
    world.press("Start")
    world.until(lambda: world.par.Statusstate.eval() == "running", seconds=200, what="the return")
    observer.heard.clear()
    tempo = ("tempo_bpm", "tempo_bend")  # they may be those of other programs too
    until_held(world, observer, "every parameter, resent to the new process", tempo)

    observer.send("/quit", "guessed")
    world.frames(1.0)
    assert world.online() and world.par.Process.eval().startswith("running"), "a stranger must not end it"

    family = children(world)
    world.press("Stop")
    world.until(lambda: world.par.Process.eval() == "stopped", seconds=200, what="the end")
    assert not any("its processes are killed" in line for line in world.log()), "it should obey the OSC message"
    _, left = psutil.wait_procs(family, timeout=30)  # the resource tracker ends after those that it serves
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
