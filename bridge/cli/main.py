"""The command line: `tidecast run`, `demo`, `sources` and `doctor`; further groups of commands stand in other modules.

Only reads arguments and prints; what it starts is in `bridge.app`. A `TidecastError` is shown as its message and its
remedy, without a traceback; the exit code is then 2.
"""

from __future__ import annotations

import io
import logging
import math
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

import typer
from rich.logging import RichHandler
from rich.table import Table

from bridge.cli.lazy import LateHelp, LazyGroup
from bridge.cli.size import parse_size
from bridge.cli.status import StatusLine, going_on, introduction
from bridge.cli.terminal import PrintableConsole, cell
from bridge.config import AppConfig
from bridge.config_file import load, presets
from bridge.ipc.group_signals import obeyed
from bridge.ipc.start_process import discard_broken_streams
from bridge.printable import PrintableFormatter
from bridge.process.engine.choice import AUTO
from bridge.process.priority import raised_session
from bridge.video.table import rows, schemes
from engine.errors import ConfigError, EngineError, TidecastError, TransportError
from engine.runtime.host_memory import keep_memory

if TYPE_CHECKING:
    from bridge.app import App


class Parts(LazyGroup):
    """The commands that stand in other modules; each is imported when it is used."""

    parts: ClassVar[dict[str, tuple[str, str, str]]] = {
        "osc": ("bridge.cli.control", "osc_app", "Send, list and watch OSC."),
        "midi": ("bridge.cli.control", "midi_app", "MIDI controllers."),
        "show": ("bridge.show.command", "app", "A show in one file: export and import."),
        "models": ("bridge.cli.models", "app", "The models, and their files."),
        "td": ("bridge.cli.td", "app", "The TouchDesigner component."),
        "bundle": ("bridge.bundle.command", "app", "A folder for Windows that runs without an installation."),
        "bench": ("bridge.cli.bench", "app", "Measure."),
        "plan": ("bridge.cli.plan", "plan", "What to expect from GPUs that are not here."),
    }


class Command(LateHelp):
    """A command of this module."""

    fills: ClassVar[Mapping[str, Callable[[], str]]] = {
        "presets": lambda: ", ".join(presets()),
        "inputs": schemes,
        "outputs": lambda: schemes(writes=True),
    }


app = typer.Typer(
    cls=Parts,
    name="tidecast",
    help="Restyle live video: NDI or Spout in, NDI or Spout out, every control live over OSC.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = PrintableConsole()
err = PrintableConsole(stderr=True)

ConfigFile = Annotated[
    str, typer.Option("--config", "-c", help="TOML file, or a preset: {presets}.", show_default=False)
]
Input = Annotated[str, typer.Option("--input", "-i", help="What to restyle: {inputs}, then a name.")]
Output = Annotated[
    list[str], typer.Option("--output", "-o", help="Where to send the result: {outputs}, then a name. Repeatable.")
]
Model = Annotated[str, typer.Option("--model", "-m", help="A model of `tidecast models list`.")]
Size = Annotated[
    str, typer.Option("--size", help="Size of the model's picture, for example 512x512; or auto, which measures it.")
]
OutputSize = Annotated[
    str, typer.Option("--output-size", help="Size of the output: for example 1920x1080, or input, or model.")
]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="The first prompt.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
OscPort = Annotated[int, typer.Option("--osc-port", min=0, max=65535, help="UDP port for OSC; 0 takes a free one.")]
WebPort = Annotated[int, typer.Option("--web-port", min=0, max=65535, help="TCP port of page and OSCQuery; 0: any.")]
OscHost = Annotated[str, typer.Option("--osc-host", help="Address to listen at; 0.0.0.0 for the whole network.")]
OscAllow = Annotated[
    list[str], typer.Option("--osc-allow", help="Machine or network that is obeyed over OSC: 192.168.1.20; or any.")
]
WebHost = Annotated[str, typer.Option("--web-host", help="The same for the page, which then needs a token.")]
ExtraIp = Annotated[list[str], typer.Option("--extra-ip", help="Machine whose NDI sources mDNS does not reach.")]
Midi = Annotated[bool, typer.Option("--midi", help="Listen to MIDI controllers.")]
Compat = Annotated[
    list[str],
    typer.Option("--compat", help="Also obey patches made for streamdiffusiontd, scope, resolume or abletonosc."),
]
CompatPort = Annotated[int, typer.Option("--compat-port", min=1, max=65535, help="UDP port for them; else their own.")]
NoWeb = Annotated[bool, typer.Option("--no-web", help="Serve no page, only OSCQuery.")]
Seconds = Annotated[float, typer.Option("--seconds", min=0.0, help="Stop after this time; else at Ctrl+C.")]
Plain = Annotated[bool, typer.Option("--plain", help="Log lines instead of the status line.")]
Setting = Annotated[list[str], typer.Option("--set", help="Any setting by its dotted name: --set output.fps=25")]

UNSET: Any = None


@app.command(cls=Command)
def run(
    config: ConfigFile = UNSET,
    input: Input = UNSET,
    output: Output = UNSET,
    model: Model = UNSET,
    size: Size = UNSET,
    output_size: OutputSize = UNSET,
    prompt: Prompt = UNSET,
    device: Device = UNSET,
    osc_port: OscPort = UNSET,
    web_port: WebPort = UNSET,
    osc_host: OscHost = UNSET,
    osc_allow: OscAllow = UNSET,
    web_host: WebHost = UNSET,
    extra_ip: ExtraIp = UNSET,
    midi: Midi = False,
    compat: Compat = UNSET,
    compat_port: CompatPort = UNSET,
    no_web: NoWeb = False,
    plain: Plain = False,
    seconds: Seconds = UNSET,
    set: Setting = UNSET,
) -> None:
    """Restyle a live source until Ctrl+C; without a configuration or model, with the preset that the GPU can hold."""
    chosen = given(locals())
    if config is None and not any(key.startswith("engine.") for key in chosen):
        from bridge.cli import card

        choice = card.for_this_machine()
        if choice.said:
            out.print(choice.said, markup=False, highlight=False)
        config = choice.preset
    serve(load(config, chosen), plain, seconds=seconds)


@app.command(cls=Command)
def demo(
    file: Annotated[Path | None, typer.Argument(help="A video to restyle; by default a moving test picture.")] = None,
    input: Input = UNSET,
    output: Output = UNSET,
    model: Model = UNSET,
    size: Size = UNSET,
    output_size: OutputSize = UNSET,
    prompt: Prompt = UNSET,
    device: Device = UNSET,
    osc_port: OscPort = UNSET,
    web_port: WebPort = UNSET,
    osc_host: OscHost = UNSET,
    osc_allow: OscAllow = UNSET,
    web_host: WebHost = UNSET,
    extra_ip: ExtraIp = UNSET,
    midi: Midi = False,
    compat: Compat = UNSET,
    compat_port: CompatPort = UNSET,
    no_web: NoWeb = False,
    plain: Plain = False,
    seconds: Seconds = UNSET,
    set: Setting = UNSET,
) -> None:
    """Show what Tidecast does: without a camera, a GPU or a download. Takes what `run` takes."""
    if file is not None and input is not None:
        raise ConfigError("A file and --input were given.", "Give one of them.")
    if file is not None and not file.is_file():
        raise ConfigError(f"There is no file {str(file)!r}.", "Give the path of a video.")
    options = given(locals())
    if file is not None:
        options["input.uri"] = f"file:{file}"
    serve(load("demo", options), plain, seconds=seconds, fall_back=not output)


@app.command()
def sources(
    extra_ip: Annotated[list[str], typer.Option(help="Machine whose NDI sources mDNS does not reach.")] = UNSET,
) -> None:
    """List the sources that can be seen, with size and rate."""
    from bridge.video.base import Options
    from bridge.video.opening import list_sources, unavailable

    table = Table("no.", "open it with", "what", "size", "fps")
    for number, source in enumerate(list_sources(options=Options(extra_ips=tuple(extra_ip or ())))):
        size = f"{source.width}x{source.height}" if source.width else ""
        table.add_row(str(number), cell(source.uri), cell(source.title), size, f"{source.fps:g}" if source.fps else "")
    out.print(table)
    for row in rows():
        if reason := unavailable(row.scheme):
            out.print(f"{row.scheme}: {reason}", style="dim", highlight=False, markup=False)


@app.command(cls=Command)
def doctor(
    config: ConfigFile = UNSET,
    model: Model = UNSET,
) -> None:
    """Check this machine; each finding comes with its remedy."""
    from bridge.cli.doctor import diagnose

    findings = diagnose(load(config, {"engine.model": model} if model else {}))
    table = Table("", "what", "found", "what to do", show_lines=False)
    marks = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "bad": "[red]bad[/red]"}
    for finding in findings:
        table.add_row(marks[finding.level], cell(finding.what), cell(finding.found), cell(finding.remedy))
    out.print(table)
    bad = sum(finding.level == "bad" for finding in findings)
    words = ["tidecast", "run", *(("-c", config) if config else ()), *(("-m", model) if model else ())]
    if bad:
        out.print(f"Not ready: mend what is marked bad ({bad}), then run tidecast doctor again.", markup=False)
        raise typer.Exit(1)
    out.print(f"Ready. Run this: {shlex.join(words)}", markup=False, highlight=False, soft_wrap=True)


def serve(config: AppConfig, plain: bool, *, seconds: float | None = None, fall_back: bool = False) -> None:
    """Run the bridge until Ctrl+C, SIGTERM or `/quit`, or for `seconds`.

    Args:
        config: the configuration.
        plain: log lines instead of a status line.
        seconds: stop after this time; None for never.
        fall_back: if the output cannot be opened, say so and go on without one.

    Raises:
        TidecastError: if a part cannot be started, or the model cannot be opened.
    """
    live = out.is_terminal and not plain
    start_logging(live)
    asked: list[int] = []  # a handler may interrupt this thread while it holds a lock, so it takes none
    with obeyed(asked.append), ExitStack() as session:
        bridge = _started(config, fall_back)
        try:
            with going_on(out):
                out.print(introduction(bridge), highlight=False, markup=False)
            end_s = math.inf if seconds is None else time.monotonic() + seconds
            raised = False
            with StatusLine(bridge, out, live) as status:
                while not (asked or bridge.quit.wait(status.period_s) or time.monotonic() >= end_s):
                    if bridge.failure:
                        raise EngineError(bridge.failure)
                    if not raised and bridge.supervisor.state == "running":
                        raised = True  # not before: loading would hold up other programs, perhaps another show
                        session.enter_context(raised_session())
                    status.show()
        finally:
            bridge.stop()


def _started(config: AppConfig, fall_back: bool) -> App:
    """The bridge, started; see `serve`."""
    from bridge.app import App
    from bridge.process.priority import keep_objects

    bridge = App(config)
    keep_objects()
    try:
        bridge.start()
    except TransportError as error:
        if not fall_back:
            raise
        complain(
            f"{error.message} {error.remedy}\nGoing on without an output: watch the picture on the page.", "yellow"
        )
        config = config.model_copy(update={"output": config.output.model_copy(update={"uri": "null:"})})
        bridge = App(config)
        bridge.start()
    return bridge


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the options of `run` or `demo` choose, by their dotted names; `options` are their arguments."""
    outputs = options["output"] or None
    settings = {
        "input.uri": options["input"],
        "output.uri": outputs and outputs[0],
        "output.also": outputs and tuple(outputs[1:]),
        "engine.model": options["model"],
        "controls.prompt_1": options["prompt"],
        "controls.output_size": options["output_size"],
        "engine.device": options["device"],
        "osc.port": options["osc_port"],
        "web.port": options["web_port"],
        "osc.host": options["osc_host"],
        "osc.allow": options["osc_allow"] or None,
        "web.host": options["web_host"],
        "input.extra_ips": options["extra_ip"] or None,
        "midi.enabled": options["midi"] or None,
        "osc.compat": options["compat"] or None,
        "osc.compat_port": options["compat_port"],
        "web.enabled": False if options["no_web"] else None,
        **size_settings(options["size"]),
        **assignments(options["set"] or []),
    }
    return {key: value for key, value in settings.items() if value is not None}


def size_settings(size: str | None) -> dict[str, Any]:
    """The settings of the model's size for a text such as 512x512, or auto."""
    if size is None:
        return {}
    if size.strip().lower() == AUTO:
        return {"engine.size": AUTO}
    width, height = parse_size(size)
    return {"engine.size": "", "engine.width": width, "engine.height": height}


def assignments(settings: list[str]) -> Mapping[str, Any]:
    """The settings in texts such as `output.fps=25`; a value is read as TOML, or else as plain text."""
    import tomllib

    found: dict[str, Any] = {}
    for text in settings:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not all(name.split(".")):
            raise ConfigError(f"--set {text!r} is not an assignment.", "Write it as --set output.fps=25")
        try:
            read = tomllib.loads(f"value = {value}")
        except (ValueError, RecursionError):  # ValueError: also an integer of thousands of digits
            read = {}
        found[name] = read["value"] if read.keys() == {"value"} else value
    return found


def start_logging(live: bool) -> None:
    """Log above the status line of the terminal, or else as plain lines to standard error."""
    handler: logging.Handler
    if live:
        handler = RichHandler(console=out, show_path=False, show_time=False, markup=False)
        handler.setFormatter(PrintableFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def complain(text: str, style: str | None = None) -> None:
    """Write to stderr unchanged: brackets are not markup, and long lines are not wrapped."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the command `tidecast`."""
    multiprocessing.freeze_support()
    keep_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that an old code page cannot encode must not end the show
    try:
        app()
    except TidecastError as error:
        complain(error.message, "red")
        if error.remedy:
            complain(error.remedy)
        end(2)
    except SystemExit as ended:
        end(ended.code)


def end(code: str | int | None) -> NoReturn:
    """End the program, without waiting for processes that are left, as one whose driver hangs cannot be killed."""
    discard_broken_streams()
    if multiprocessing.active_children():
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


if __name__ == "__main__":
    main()
