"""The one place where live controls are changed, whoever changes them.

Holds one immutable `Controls` snapshot that is swapped atomically: readers take `ControlStore.snapshot` and
never wait. OSC, OSCQuery, MIDI, the control room, snapshots and the compatibility modes all write through
`set`, `set_many` or `handle`. Must not know sockets, files, the engine or the clock.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.controls import BY_NAME, COMMANDS, CONTROLS, PREFIX, PROMPT_SLOTS, Command, Control, Controls
from engine.errors import ControlError, TidecastError

log = logging.getLogger(__name__)

MAX_WILDCARDS = 4
"""Most `*` in one OSC address pattern; more could make matching slow on purpose."""

Listener = Callable[[str, Any, str], None]
"""Called as (name of the control, effective value, origin)."""

ErrorListener = Callable[[str, str], None]
"""Called as (address, reason)."""

Reply = Callable[[str, Sequence[Any]], None]
"""Sends (address below `PREFIX`, arguments) back to whoever sent a message."""


def _no_reply(address: str, args: Sequence[Any]) -> None:
    """Used where the sender of a message cannot be answered."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a message.

    Attributes:
        origin: names the sender, such as `osc:192.168.1.7:52000`, `midi:nanoKONTROL2`, `web`.
        host: the address at which the sender can be reached; empty where it has none.
        reply: answers the sender.
    """

    origin: str
    host: str = ""
    reply: Reply = _no_reply


CommandHandler = Callable[[tuple[Any, ...], Caller], None]
"""Carries out a command: (arguments, coerced by the table; who asked). Must return quickly, may raise
`TidecastError`, which is answered to the caller."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one OSC address stands for: a control's value, its `/norm` or `/midi` twin, or a command."""

    control: Control | None = None
    command: Command | None = None
    twin: str = ""


def _targets() -> dict[str, Target]:
    table: dict[str, Target] = {}
    for control in CONTROLS:
        table[PREFIX + control.address] = Target(control=control)
        if control.numeric:
            for twin in ("norm", "midi"):
                table[f"{PREFIX}{control.address}/{twin}"] = Target(control=control, twin=twin)
    for command in COMMANDS:
        table[PREFIX + command.address] = Target(command=command)
    return table


TARGETS: dict[str, Target] = _targets()
"""Every full OSC address that is understood, with what it stands for."""


class ControlStore:
    """The live controls, their listeners and the handlers of commands. Every method is thread-safe.

    Writers are serialised by a lock that is never held while foreign code runs; the latest write wins.
    Listeners and handlers run on the writer's thread and must be quick. With several writers, listeners may
    be called in another order than the writes: whoever needs the value in force reads `snapshot`.

    Args:
        initial: the controls at the start.
    """

    def __init__(self, initial: Controls | None = None) -> None:
        self._snapshot = Controls() if initial is None else initial
        self._writing = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._error_listeners: tuple[ErrorListener, ...] = ()
        self._handlers: dict[str, tuple[CommandHandler, ...]] = {}
        self._registering = threading.Lock()

    @property
    def snapshot(self) -> Controls:
        """The controls in force: one immutable object, read atomically."""
        return self._snapshot

    def values(self) -> dict[str, Any]:
        """Name and effective value of every control, in the table's order."""
        now = self._snapshot
        return {c.name: getattr(now, c.name) for c in CONTROLS}

    def set(self, name: str, value: Any, origin: str = "") -> Any:
        """Set one control and return the effective (coerced and clamped) value.

        Raises:
            ControlError: if there is no such control or the value cannot be understood; nothing changes.
        """
        return self.set_many({name: value}, origin)[name]

    def set_many(self, values: Mapping[str, Any], origin: str = "") -> dict[str, Any]:
        """Set several controls in one swap and return their effective values.

        Raises:
            ControlError: if a name is unknown or a value cannot be understood; nothing changes.
        """
        effective: dict[str, Any] = {}
        for name, value in values.items():
            control = BY_NAME.get(name)
            if control is None:
                raise ControlError(name, f"There is no control named {name!r}.")
            effective[name] = control.coerce(value)
        with self._writing:
            self._snapshot = dataclasses.replace(self._snapshot, **effective)
        for name, value in effective.items():
            for listener in self._listeners:
                self._call(listener, name, value, origin)
        return effective

    def handle(
        self, address: str, args: Sequence[Any], origin: str = "", *, host: str = "", reply: Reply = _no_reply
    ) -> bool:
        """Obey one OSC-like message: a control, a twin, a command, or a pattern that matches several.

        Never raises: what is wrong is answered through `reply` at `/error` (address, reason), told to the
        error listeners, and changes nothing.

        Args:
            address: full OSC address, beginning with `PREFIX`.
            args: the message's arguments as plain Python values.
            origin: names the sender; reaches the listeners.
            host: where the sender can be reached; empty where it cannot.
            reply: answers the sender.

        Returns:
            Whether the message was understood.
        """
        caller = Caller(origin, host, reply)
        try:
            for target in _find(address):
                self._obey(address, target, args, caller)
        except TidecastError as error:
            self._reject(address, str(error), caller)
            return False
        return True

    def on(self, command: str, handler: CommandHandler) -> Callable[[], None]:
        """Have `handler` carry out the command of this name (`Command.name`); returns the undoing.

        Raises:
            KeyError: if the table has no such command.
        """
        if command not in {c.name for c in COMMANDS}:
            raise KeyError(command)
        with self._registering:
            self._handlers[command] = (*self._handlers.get(command, ()), handler)

        def off() -> None:
            with self._registering:
                self._handlers[command] = tuple(h for h in self._handlers[command] if h is not handler)

        return off

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Call `callback` after every write, also of an unchanged value; returns the undoing."""
        with self._registering:
            self._listeners = (*self._listeners, callback)

        def unlisten() -> None:
            with self._registering:
                self._listeners = tuple(c for c in self._listeners if c is not callback)

        return unlisten

    def listen_errors(self, callback: ErrorListener) -> Callable[[], None]:
        """Call `callback` for every message that was not understood; returns the undoing."""
        with self._registering:
            self._error_listeners = (*self._error_listeners, callback)

        def unlisten() -> None:
            with self._registering:
                self._error_listeners = tuple(c for c in self._error_listeners if c is not callback)

        return unlisten

    def _obey(self, address: str, target: Target, args: Sequence[Any], caller: Caller) -> None:
        if target.command is not None:
            self._command(address, target.command, args, caller)
            return
        control = target.control
        assert control is not None
        if len(args) != 1:
            raise ControlError(address, f"One value is needed, {len(args)} came.")
        value = args[0]
        if target.twin == "norm":
            value = control.from_norm(value)
        elif target.twin == "midi":
            value = control.from_midi(value)
        self.set(control.name, value, caller.origin)

    def _command(self, address: str, command: Command, args: Sequence[Any], caller: Caller) -> None:
        if is_release(command, args):
            return
        values = command.coerce(args)
        match command.name:
            case "prompt":
                weights = {f"weight_{n}": float(n == 1) for n in range(1, PROMPT_SLOTS + 1)}
                self.set_many({"prompt_1": values[0], **weights}, caller.origin)
            case "reset":
                with self._writing:
                    now = self._snapshot
                    self._snapshot = dataclasses.replace(now, resets=now.resets + 1)
            case "anchor":
                with self._writing:
                    now = self._snapshot
                    self._snapshot = dataclasses.replace(now, anchors=now.anchors + 1)
            case "ping":
                caller.reply("/pong", values)
            case name if not self._handlers.get(name):
                raise ControlError(address, "This part of Tidecast is not running.")
        for handler in self._handlers.get(command.name, ()):
            try:
                handler(values, caller)
            except TidecastError:
                raise
            except Exception:  # the seam to every handler: a defect there is answered, not fatal
                log.exception("the handler of %s failed", address)
                raise ControlError(address, "Tidecast failed to do this; its log says why.") from None

    def _reject(self, address: str, reason: str, caller: Caller) -> None:
        self._call(caller.reply, "/error", (address, reason))
        for listener in self._error_listeners:
            self._call(listener, address, reason)

    @staticmethod
    def _call(function: Callable[..., None], *args: Any) -> None:
        """Call a listener. A defect in it is logged and must not stop the thread that serves all controls."""
        try:
            function(*args)
        except Exception:  # the seam to every listener; see above
            log.exception("a listener of the controls failed")


def is_release(command: Command, args: Sequence[Any]) -> bool:
    """Whether a button was let go: a command without arguments that was sent 0, 0.0 or false."""
    return not command.arguments and len(args) == 1 and isinstance(args[0], (bool, int, float)) and not args[0]


def _find(address: str) -> tuple[Target, ...]:
    """What an address or an OSC 1.0 address pattern stands for.

    Raises:
        ControlError: if nothing does.
    """
    target = TARGETS.get(address)
    if target is not None:
        return (target,)
    found: tuple[Target, ...] = ()
    if any(sign in address for sign in "*?[{"):
        pattern = _pattern(address)
        found = tuple(t for a, t in TARGETS.items() if t.control is not None and pattern.fullmatch(a))
    if not found:
        hint = "" if address.startswith(PREFIX + "/") else f" Addresses begin with {PREFIX}/."
        raise ControlError(address[:200], f"There is nothing at this address.{hint}")
    return found


def _pattern(address: str) -> re.Pattern[str]:
    """An OSC 1.0 address pattern (`?`, `*`, `[a-z]`, `[!a-z]`, `{one,two}`) as a regular expression."""
    if address.count("*") > MAX_WILDCARDS or len(address) > 200:
        raise ControlError(address[:200], f"An address pattern may hold at most {MAX_WILDCARDS} asterisks.")
    out = ""
    for part in re.findall(r"\[[^\]]*\]|\{[^}]*\}|.", address, re.DOTALL):
        if part == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part[0] == "{" and part[-1] == "}":
            out += "(?:" + "|".join(re.escape(word) for word in part[1:-1].split(",")) + ")"
        elif part[0] == "[" and part[-1] == "]" and part not in ("[]", "[!]"):
            negate = part[1] == "!"
            out += f"[{'^' * negate}{''.join(map(re.escape, _characters(part[1 + negate : -1])))}]"
        else:
            out += re.escape(part)
    return re.compile(out)


def _characters(listed: str) -> str:
    """The characters that the inside of an OSC character list, such as `a-dxyz`, stands for."""
    out = ""
    while listed:
        if len(listed) > 2 and listed[1] == "-" and listed[0] <= listed[2] < "\x80":
            out += "".join(chr(c) for c in range(ord(listed[0]), ord(listed[2]) + 1))
            listed = listed[3:]
        else:
            out += listed[0]
            listed = listed[1:]
    return out
