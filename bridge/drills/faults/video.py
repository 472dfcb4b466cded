"""What breaks at both ends: sources, receivers, and inputs that cannot be opened."""

from __future__ import annotations

import functools
import socket
import time

from bridge.bench.peers import Receiver
from bridge.control.osc.packet import build
from bridge.drills.faults.drill import POISONED, Drill, wait_for
from engine.control import PREFIX


def source_killed(drill: Drill) -> None:
    """The source is gone and comes again."""
    drill.sender.kill()
    wait_for(lambda: drill.state == "no-input", "the loss was not reported")
    drill.errors.append("state no-input: " + str(drill.app.telemetry.snapshot()["message"]))
    drill.sender = drill.start_sender("A")


def sources_swapped(drill: Drill) -> None:
    """To another source and back."""
    with drill.start_sender("B"):
        for which in ("B", "A"):
            drill.app.store.set("input", drill.uri(which))
            wait_for(functools.partial(drill.connected_to, which), f"source {which} was not reached")
            time.sleep(drill.settle_s)


def size_changed(drill: Drill) -> None:
    """The source sends twice the size, and the old one again."""
    width, height, _ = drill.size

    def is_wide(wanted: int) -> bool:
        info = drill.app.capture.info
        return info is not None and info.width == wanted

    for factor in (2, 1):
        drill.sender.resize(width * factor, height * factor)
        wait_for(functools.partial(is_wide, width * factor), "the size did not change")
        time.sleep(drill.settle_s)


def receiver_killed(drill: Drill) -> None:
    """The mixer is gone, and another one comes."""
    drill.receiver.kill()
    time.sleep(2.0 * drill.settle_s)
    drill.receiver = Receiver(drill.uri("out"))
    wait_for(lambda: bool(drill.receiver.take()), "the new receiver got nothing")


def poisoned_by_osc(drill: Drill) -> None:
    """Addresses that cannot be opened, each of which once ended the input for good; then the source again."""
    secret = drill.folder / "locked" / "x.mp4"
    secret.parent.mkdir(exist_ok=True)
    secret.touch()
    secret.parent.chmod(0)
    poison = (
        "file:~nobody/x.mp4",
        "9" * 5000,
        "camera:" + "9" * 5000,
        "file:/" + "x" * 300,
        f"file:{secret}",
        "file:/dev/null",
        "file:a\0b",
        "²",
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
        for text in poison:
            drill.errors.clear()
            outlet.sendto(build(f"{PREFIX}/input", (text,)), drill.osc)
            wait_for(lambda: drill.reported("input"), f"{text[:30]!r} was not reported")
        secret.parent.chmod(0o700)
        outlet.sendto(build(f"{PREFIX}/input", (drill.uri("A"),)), drill.osc)
    wait_for(functools.partial(drill.connected_to, "A"), "the source was not reached again")


def poisoned_by_snapshot(drill: Drill) -> None:
    """A stored snapshot names an input that cannot be opened."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet:
        outlet.sendto(build(f"{PREFIX}/snapshot/recall", (POISONED,)), drill.osc)
        wait_for(lambda: bool(drill.errors), "an input that cannot be opened was not reported")
        outlet.sendto(build(f"{PREFIX}/input", (drill.uri("A"),)), drill.osc)
    wait_for(functools.partial(drill.connected_to, "A"), "the source was not reached again")
