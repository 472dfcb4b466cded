"""`tidecast osc` and `tidecast midi`: list the controls, send and watch messages, bind knobs."""

from __future__ import annotations

import difflib
import math
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from bridge.cli.terminal import PrintableConsole, cell
from bridge.control.document import arguments_text, range_text
from bridge.control.files import state_dir
from bridge.control.midi.backend import open_backend
from bridge.control.midi.bindings import load, resolve
from bridge.control.midi.input import MidiInput
from bridge.control.origin import INTERNAL
from bridge.control.osc.address_pattern import is_pattern
from bridge.control.osc.client import OscClient
from bridge.control.osc.packet import Message
from bridge.control.store import Caller, ControlStore
from bridge.printable import one_line
from bridge.table import TABLE
from engine.control import PREFIX
from engine.errors import TidecastError

osc_app = typer.Typer(help="Controls over OSC: list, send, watch.", no_args_is_help=True, add_completion=False)
midi_app = typer.Typer(help="MIDI controllers: list, learn.", no_args_is_help=True, add_completion=False)
console = PrintableConsole()

Host = Annotated[str, typer.Option(help="Where Tidecast runs.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Its OSC port.")]
StateDir = Annotated[str, typer.Option(help="Folder of the bindings; empty for the user's own.")]

ANSWER_S = 1.0
INPUTS_S = 8.0
"""Longest wait for the list of sources: searching a network takes a while."""


def _fail(error: TidecastError | str) -> typer.Exit:
    console.print(f"[red]{escape(str(error))}[/red]", highlight=False, soft_wrap=True)
    return typer.Exit(1)


def _table(title: str, *columns: str) -> Table:
    """A table whose first column has addresses, which are never cut off."""
    return Table(Column("address", no_wrap=True), *columns, title=title)


@osc_app.command("list")
def list_osc() -> None:
    """Every control, command and reading with its OSC address."""
    group = ""
    table = _table(f"Controls, below {PREFIX}", "type", "range, default", "what it does")
    for c in TABLE.controls:
        table.add_section() if c.group != group else None
        group = c.group
        table.add_row(c.address, c.kind.value, range_text(c), c.help)
    console.print(table)
    console.print(f"Every numeric control has the twins {PREFIX}/.../norm (0 to 1) and {PREFIX}/.../midi (0 to 127).")
    table = _table("Commands", "arguments", "what it does")
    for command in TABLE.commands:
        table.add_row(command.address, escape(arguments_text(command)), command.help)
    console.print(table)
    table = _table("Telemetry, to subscribers", "type", "unit", "what it tells")
    for r in TABLE.readings:
        table.add_row(r.address, r.kind.value, r.unit, r.help)
    console.print(table)


@osc_app.command(context_settings={"ignore_unknown_options": True})
def send(
    address: Annotated[str, typer.Argument(help="OSC address; /tidecast may be left out.")],
    values: Annotated[list[str] | None, typer.Argument(help="Numbers or texts.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 9000,
) -> None:
    """Send one message to a running Tidecast and show its answer."""
    full = address if address.startswith(PREFIX + "/") else PREFIX + "/" + address.lstrip("/")
    try:
        with OscClient(host, port) as client:
            if not client.answers(ANSWER_S):
                raise _fail(f"Nothing answers at {host}:{port}. Start it with: tidecast run")
            client.send(full, [argument(v) for v in values or ()])
            answer = _effect(client, full)
    except TidecastError as error:
        raise _fail(error) from None
    if answer is None:
        console.print(f"sent {full}", highlight=False)
    elif answer.address == PREFIX + "/error":
        raise _fail(f"{answer.args[0]}: {answer.args[1]}{meant(full)}")
    else:
        console.print(f"{answer.address} {_words(answer)}", highlight=False, soft_wrap=True, markup=False)


def _effect(client: OscClient, full: str) -> Message | None:
    """The effect of the message: its error, its answer, or the effective value; None for a command without an answer.

    An error is sent before the values that are requested after it, so the first answer is the right one.
    """
    target = TABLE.targets.get(full)
    replies = {PREFIX + "/error", PREFIX + "/pong", PREFIX + "/inputs"}
    if target is not None and target.control is not None:
        client.send(PREFIX + "/resend")
        replies.add(full)
    seconds = INPUTS_S if full == PREFIX + "/inputs" else ANSWER_S
    return client.ask(lambda m: m.address in replies, seconds)


def meant(full: str) -> str:
    """The addresses that an unknown one resembles, as a question that follows the error; empty if there are none."""
    if full in TABLE.targets or is_pattern(full):
        return ""
    ending = full.rpartition("/")[2]
    known = [address for address, target in TABLE.targets.items() if target.twin in ("", None, ending)]
    near = difflib.get_close_matches(full, known, n=2, cutoff=0.8)
    words = " or ".join(address.removeprefix(PREFIX + "/") for address in near)
    return f" Did you mean {words}?" if near else " See: tidecast osc list"


def argument(text: str) -> int | float | str:
    """The OSC argument for a word of the command line: an int or float if it reads as one, else a text."""
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        if kind is float or -(2**63) <= number < 2**63:
            return number
    return text


def _words(message: Message) -> str:
    return " ".join(f"{a:g}" if isinstance(a, float) else one_line(str(a)) for a in message.args)


@osc_app.command()
def watch(
    host: Host = "127.0.0.1",
    port: Port = 9000,
    all: Annotated[bool, typer.Option("--all", help="Also twins, and values that did not change.")] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help="Stop after this time; 0 waits for Ctrl+C.")] = 0.0,
) -> None:
    """Show every change of a control or reading of a running Tidecast, and its errors."""
    last: dict[str, tuple[Any, ...]] = {}
    try:
        with OscClient(host, port) as client:
            if not client.answers(ANSWER_S):
                raise _fail(f"Nothing answers at {host}:{port}. Start it with: tidecast run")
            for message in client.watch(seconds or math.inf):
                target = TABLE.targets.get(message.address)
                if target is not None and target.twin and not all:
                    continue
                if all or message.address == PREFIX + "/error" or last.get(message.address) != message.args:
                    last[message.address] = message.args
                    console.print(
                        f"{one_line(message.address)} {_words(message)}", highlight=False, soft_wrap=True, markup=False
                    )
    except TidecastError as error:
        raise _fail(error) from None
    except KeyboardInterrupt:
        return


def bindings_file(setting: str) -> Path:
    """The file of MIDI bindings in a state folder."""
    return state_dir(setting) / "midi.toml"


@midi_app.command("list")
def list_midi(state_dir: StateDir = "") -> None:
    """The controllers that are plugged in, and which knob controls what."""
    path = bindings_file(state_dir)
    try:
        bindings = load(path, TABLE)
    except TidecastError as error:
        raise _fail(error) from None
    title = escape(f"Bindings ({path if path.exists() else 'the defaults; there is no file'})")
    table = Table("knob", "controls", title=title)
    for binding in bindings:
        args = " ".join(str(a) for a in binding.args)
        table.add_row(cell(binding.words), cell(f"{binding.address} {args}".strip()))
    console.print(table)
    try:
        names = open_backend().get_input_names()
    except TidecastError as error:
        raise _fail(error) from None
    console.print("Plugged in: " + (", ".join(names) or "nothing"), highlight=False, markup=False)


@midi_app.command()
def learn(
    address: Annotated[str, typer.Argument(help="Address or name of a control or command, such as strength.")],
    host: Host = "127.0.0.1",
    port: Port = 9000,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to wait for a knob.")] = 30.0,
    state_dir: StateDir = "",
) -> None:
    """Bind the next knob that moves to a control: in a running Tidecast, or in its file if none is running."""
    try:
        full = resolve(address, TABLE)
        with OscClient(host, port) as client:
            running = client.answers(ANSWER_S)
            console.print(f"Move the knob for {full} ...", highlight=False)
            answer = _learn_there(client, full, seconds) if running else _learn_here(full, seconds, state_dir)
    except TidecastError as error:
        raise _fail(error) from None
    console.print(f"{answer[1]} moves {answer[0]}", highlight=False, markup=False)


def _learn_there(client: OscClient, full: str, seconds: float) -> tuple[str, str]:
    client.send(PREFIX + "/midi/learn", (full,))
    replies = (PREFIX + "/midi/learned", PREFIX + "/error")
    answer = client.ask(lambda m: m.address in replies, seconds)
    if answer is None:
        client.send(PREFIX + "/midi/learn", ("",))
        raise TidecastError(f"No knob moved within {seconds:g} s.", "Is the controller listed by: tidecast midi list?")
    if answer.address == PREFIX + "/error":
        raise TidecastError(f"{answer.args[0]}: {answer.args[1]}")
    return str(answer.args[0]), str(answer.args[1])


def _learn_here(full: str, seconds: float, setting: str, backend: Any = None) -> tuple[str, str]:
    answers: list[tuple[str, Any]] = []
    trouble: list[str] = []
    caller = Caller(INTERNAL, reply=lambda address, args: answers.append((address, args)))
    midi = MidiInput(
        ControlStore(TABLE),
        bindings_file(setting),
        lambda topic, reason: trouble.append(reason),
        backend or open_backend(),
    ).start()
    try:
        midi.learn(full, caller)
        end = time.monotonic() + seconds
        while not answers and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        midi.stop()
    if trouble:
        raise TidecastError(trouble[0])
    if not answers:
        raise TidecastError(f"No knob moved within {seconds:g} s.", "Is the controller listed by: tidecast midi list?")
    learned_address, knob = answers[0][1]
    return str(learned_address), str(knob)
