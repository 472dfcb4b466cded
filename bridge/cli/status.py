"""What the terminal shows while Tidecast runs: an introduction, then a status line, or plain lines for a log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bridge.ipc.start_process import discard_broken_streams
from bridge.printable import one_line
from bridge.video.table import output_text
from bridge.web.access import is_loopback, qr_text
from engine.control import PREFIX

if TYPE_CHECKING:
    from bridge.app import App

log = logging.getLogger(__name__)

PLAIN_PERIOD_S = 5.0
"""Time between two plain lines."""

COLOURS = {"running": "green", "loading": "cyan", "no-input": "yellow", "stalled": "yellow", "error": "red"}


@contextlib.contextmanager
def going_on(console: Console) -> Iterator[None]:
    """Go on without the console if it cannot be written: its terminal or its reader is gone, or its disk is full."""
    try:
        yield
    except (OSError, SystemExit) as error:  # rich ends the program when a reader is gone
        console.quiet = True
        discard_broken_streams()
        log.error("The state cannot be shown any more: %s", error.__context__ or error)


def introduction(bridge: App) -> str:
    """Lines of text that say what to open and what to try."""
    config = bridge.config
    lines = [f"model   {config.engine.model} at {config.engine.width}x{config.engine.height}"]
    lines.append(f"input   {config.input.uri}")
    lines.append(f"output  {output_text(config.output.uri)}")
    if bridge.web is not None:
        lines.append(f"page    {bridge.web.url}")
        lines += qr_text(bridge.web.url).splitlines()
    if bridge.oscquery_url:
        lines.append(f"query   {bridge.oscquery_url} (OSCQuery)")
    if bridge.osc is not None:
        host, port = bridge.osc.address
        lines.append(f"osc     {host}:{port}, {obeyed(host, config.osc.allow)}; for example:")
        for address, kind, value in (
            ("/prompt", "s", "'fire'"),
            ("/strength", "f", "0.8"),
            ("/steps", "i", "1"),
            ("/bypass", "i", "1"),
        ):
            lines.append(f"          oscsend {host} {port} {PREFIX}{address} {kind} {value}")
    lines.append("stop    Ctrl+C")
    return "\n".join(lines)


def obeyed(host: str, allow: tuple[str, ...]) -> str:
    """Whom the OSC port obeys."""
    if is_loopback(host):
        return "for programs on this machine"
    if not allow:
        return "obeys only this machine (to allow another: --osc-allow ADDRESS)"
    return f"obeys this machine and {', '.join(allow)}"


class StatusLine:
    """One line at the bottom of the terminal, or a plain line every few seconds.

    Args:
        bridge: its readings are shown.
        console: where to write.
        live: whether the console can show a line that changes.

    Attributes:
        period_s: how often to call `show`, in seconds.
    """

    def __init__(self, bridge: App, console: Console, live: bool) -> None:
        self._bridge = bridge
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if live else None
        self._said_s = float("-inf")
        self._state = ""
        self.period_s = 0.2

    def __enter__(self) -> Self:
        if self._live is not None:
            with going_on(self._console):
                self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            with going_on(self._console):
                self._live.stop()

    def show(self) -> None:
        """Show the current readings."""
        with going_on(self._console):
            self._show(self._bridge.telemetry.snapshot())

    def _show(self, now: Mapping[str, Any]) -> None:
        if self._live is not None:
            self._live.update(styled(now), refresh=True)
            return
        state = str(now.get("state", "loading"))
        if state != self._state or time.monotonic() - self._said_s >= PLAIN_PERIOD_S:
            self._state, self._said_s = state, time.monotonic()
            self._console.print(styled(now).plain, highlight=False, soft_wrap=True)


def styled(now: Mapping[str, Any]) -> Text:
    """The readings as one line."""
    state = str(now.get("state", "loading"))
    line = Text(f"{state:9}", style=COLOURS.get(state, ""))
    line.append(
        f" in {now.get('fps_in', 0.0):4.1f}  out {now.get('fps_out', 0.0):4.1f}  "
        f"engine {now.get('fps_engine', 0.0):4.1f} fps  latency {now.get('latency', 0.0):4.0f} ms  "
        f"dropped {now.get('dropped', 0)}",
        style="default",
    )
    if now.get("vram"):
        line.append(f"  vram {now['vram']:.1f} GiB", style="default")
    if now.get("prompt"):
        line.append(f"  “{one_line(str(now['prompt'])[:40])}”", style="italic")
    if now.get("message"):
        line.append(f"  {one_line(str(now['message']))}", style="dim")
    return line
