"""`tidecast bench modulation`: what ten modulators cost a running program, and whether they lose a frame."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

import psutil
import typer

from bridge.app import App
from bridge.bench.overhead import identity, wait_until_running
from bridge.config_file import load
from bridge.control.osc.client import OscClient
from engine.bench.report import say
from engine.control import PREFIX
from engine.errors import EngineError

SETTLE_S = 6.0
"""By then the frames that the start delayed have left the window of the output's clock."""

FADERS = ("strength", "motion", "mix", "weight_1", "weight_2", "weight_3", "weight_4", "lora_1", "lora_2", "lora_3")
SHAPES = ("sine", "triangle", "up", "square", "random", "hold", "drunk", "envelope", "down", "sine")


def modulation(
    seconds: Annotated[float, typer.Option(help="How long to measure, each without and with modulators.")] = 60.0,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 60,
) -> None:
    """Ten controls are modulated for the given time: lost frames, processor time, messages to a subscriber.

    Exit code 1 if a frame is lost that is not lost without them, a base value changes, or more messages come than
    eleven a second for each modulated value.
    """
    settings = identity("pattern:bars", "null:", 320, 192) | {"output.fps": float(fps), "osc.host": "127.0.0.1"}
    settings |= {"controls.slo_auto": False, "web.announce": False}
    with App(load(None, settings)) as app:
        wait_until_running(app)
        if app.osc is None:
            raise EngineError("There is no OSC.", "Leave it on.")
        time.sleep(SETTLE_S)
        with OscClient(*app.osc.address) as desk:
            without = measured(app, desk, seconds)
            base = app.store.values()
            for number, (fader, shape) in enumerate(zip(FADERS, SHAPES, strict=True), 1):
                app.store.set(f"mod_{number}", f"{fader} {shape} beats={number} depth=0.5")
            wanted = {name: value for name, value in base.items() if not name.startswith("mod_")}
            with_them = measured(app, desk, seconds)
            kept = wanted == {name: value for name, value in app.store.values().items() if name in wanted}
    rate = max((n for a, n in with_them["messages"].items() if a.startswith("/mod/value/")), default=0) / seconds
    echoes = sum(n for address, n in with_them["messages"].items() if address in {f"/{fader}" for fader in FADERS})
    passed = kept and with_them["lost"] <= without["lost"] and 0.0 < rate <= 11.0 and not echoes
    row: dict[str, Any] = {
        "seconds": seconds,
        "fps": fps,
        "sent_without": without["sent"],
        "sent": with_them["sent"],
        "lost_without": without["lost"],
        "lost": with_them["lost"],
        "cpu_percent_without": without["cpu"],
        "cpu_percent": with_them["cpu"],
        "evaluation_us": evaluation_us(app),
        "messages_a_second_for_each_value": round(rate, 2),
        "echoes_of_bases": echoes,
        "base_values_kept": kept,
        "passed": passed,
    }
    say(
        f"Ten modulators, {fps} frames a second, {seconds:g} s without and {seconds:g} s with them",
        [
            ("frames sent without / with", f"{without['sent']} / {with_them['sent']}"),
            ("frames lost without / with", f"{without['lost']} / {with_them['lost']}"),
            ("processor of the bridge without / with", f"{without['cpu']:.1f} / {with_them['cpu']:.1f} % of a core"),
            ("one evaluation of all ten", f"{row['evaluation_us']:.0f} us"),
            ("messages a second for each modulated value", f"{rate:.1f}"),
            ("echoes of base values", f"{echoes}"),
            ("base values unchanged", "yes" if kept else "NO"),
            ("passed", "yes" if passed else "NO"),
        ],
        [row],
    )
    raise typer.Exit(0 if passed else 1)


def measured(app: App, desk: OscClient, seconds: float) -> dict[str, Any]:
    """Frames sent and lost, processor time, and the messages that a subscriber gets, by address."""
    process = psutil.Process()
    sent, lost = app.publisher.main.sent, lost_frames(app)
    process.cpu_percent()
    messages = Counter(message.address.removeprefix(PREFIX) for message in desk.watch(seconds))
    return {
        "cpu": process.cpu_percent(),
        "sent": app.publisher.main.sent - sent,
        "lost": lost_frames(app) - lost,
        "messages": messages,
    }


def lost_frames(app: App) -> int:
    """Frames of the input that have not left, so far."""
    engine = app.supervisor
    return app.capture.skipped + engine.frames_replaced + engine.frames_lost + app.publisher.pacer.wet.late


def evaluation_us(app: App, times: int = 2000) -> float:
    """Time of one evaluation of all modulators, in us."""
    base, ns = app.store.snapshot, time.monotonic_ns()
    began = time.thread_time()
    for n in range(times):
        app.modulation.modulated(base, ns + n * 1_000_000)
    return (time.thread_time() - began) / times * 1e6
