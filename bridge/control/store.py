"""The one place where live controls are changed.

The store holds one immutable `Snapshot` and swaps it atomically: readers take `ControlStore.snapshot` and never wait.
OSC, OSCQuery, MIDI, the control room, stored snapshots and the compatibility modes all write through `set`, `set_many`
or `handle`.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.control.origin import INTERNAL, Origin
from bridge.control.osc.address_pattern import is_pattern
from bridge.control.refusals import RefusalLog
from bridge.control.table import ControlTable, Target
from bridge.control.values import Snapshot
from engine.control import Command, commands_of
from engine.errors import ControlError, TidecastError

log = logging.getLogger(__name__)

PING = Command("ping", "/ping", (("anything", "*", False),), "Clients", "Ping", "Answer /pong with the same arguments.")

MAX_SHOWN = 200
"""Most characters of an unknown address in an error; a datagram can hold one of 65,000."""

MAX_DATAGRAM_COST = 256
"""Most changes that one datagram can make. A bundle that sets every control needs one for each."""

MIN_PATTERN_COST = 16
"""What an address pattern counts for at least, for the time that it takes to match."""

Listener = Callable[[str, Any, Origin], None]
"""Called as (name of the control, effective value, origin)."""

Rule = Callable[[Any, Origin], Any]
"""Called as (valid value, origin) before a restricted control is set: returns the value to set. Raises `ControlError`
if this sender may not set it."""

Holder = Callable[[Mapping[str, Any], Origin], Mapping[str, Any]]
"""Called as (valid values by name, origin) before controls are set, also while another write waits: returns those to
set now, and keeps the others for later. It must not set controls itself."""

Modulate = Callable[[Snapshot, int], Snapshot]
"""Called as (values in force, time now in ns) by whoever makes pictures, often: returns those to make them with. Must
be quick, and must not raise."""

ErrorListener = Callable[[str, str], None]
"""Called as (address, reason)."""

Reply = Callable[[str, Sequence[Any]], None]
"""Answers the sender of a message: (address below `PREFIX`, arguments)."""


def _unmodulated(base: Snapshot, now_ns: int) -> Snapshot:
    return base


def _no_reply(address: str, args: Sequence[Any]) -> None:
    """The reply of a sender that cannot be answered."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a message.

    Attributes:
        origin: the sender's name, trust and address.
        reply: answers the sender.
    """

    origin: Origin
    reply: Reply = _no_reply


CommandHandler = Callable[[tuple[Any, ...], Caller], None]
"""Carries out a command: (arguments, coerced by the table; who sent it). Must return quickly. May raise
`TidecastError`, which is sent to the caller."""


def _pong(args: tuple[Any, ...], caller: Caller) -> None:
    caller.reply("/pong", args)


OWN_HANDLERS: dict[str, tuple[CommandHandler, ...]] = {PING.name: (_pong,)}
"""The handlers of the store itself, by the command's name."""


class ControlStore:
    """The live controls, their listeners and the handlers of commands. Every method is thread-safe.

    Writers are serialised by a lock that is held only while computing; the latest write wins. Listeners and handlers
    run on the writer's thread and must be quick. With several writers, listeners may be called in another order than
    the writes: a listener that needs the value in force reads `snapshot`.

    Args:
        table: every control and command, with their owners.
        initial: the values at the start; None for the defaults.
    """

    def __init__(self, table: ControlTable, initial: Snapshot | None = None) -> None:
        self.table = table
        self._snapshot = Snapshot(owner() for owner in table.owners) if initial is None else initial
        self._owner_of = {row.name: owner for owner in table.owners for row in commands_of(owner)}
        self._writing = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._error_listeners: tuple[ErrorListener, ...] = ()
        self._rules: dict[str, Rule] = {}
        self._hold: Holder | None = None
        self._modulate: Modulate = _unmodulated
        self._handlers: dict[str, tuple[CommandHandler, ...]] = {}
        self._registering = threading.Lock()
        self._refusals, self._defects = RefusalLog(), RefusalLog()  # so that refusals do not crowd out a defect

    @property
    def snapshot(self) -> Snapshot:
        """The values in force: one immutable object, read atomically."""
        return self._snapshot

    def modulated(self, now_ns: int) -> Snapshot:
        """The values with which what is computed now is made: those in force, moved by what `modulate_with` has set."""
        return self._modulate(self._snapshot, now_ns)

    def modulate_with(self, modulate: Modulate) -> Callable[[], None]:
        """Have `modulate` make the values of `modulated`; returns a function that ends it."""
        self._modulate = modulate

        def lift() -> None:
            self._modulate = _unmodulated

        return lift

    def values(self) -> dict[str, Any]:
        """Name and effective value of every control, in the table's order."""
        now = self._snapshot
        return {c.name: now.value(c.name) for c in self.table.controls}

    def set(self, name: str, value: Any, origin: Origin = INTERNAL) -> Any:
        """Set one control and return the effective (coerced and clamped) value.

        Raises:
            ControlError: if there is no such control, the value cannot be understood, or a rule forbids it to this
                origin; nothing changes.
        """
        return self.set_many({name: value}, origin)[name]

    def set_many(self, values: Mapping[str, Any], origin: Origin = INTERNAL) -> dict[str, Any]:
        """Set several controls in one swap and return their effective values: those that will be in force, where they
        wait for the beat (see `hold_with`).

        Raises:
            ControlError: if a name is unknown, a value cannot be understood, or a rule forbids it to this origin;
                nothing changes.
        """
        effective = self.checked(values, origin)
        self._swap(self._now(effective, origin), origin)
        return effective

    def set_now(self, values: Mapping[str, Any], origin: Origin = INTERNAL) -> dict[str, Any]:
        """As `set_many`, for changes that wait for nothing.

        Raises:
            ControlError: as `set_many`.
        """
        effective = self.checked(values, origin)
        self._swap(effective, origin)
        return effective

    def _swap(self, effective: Mapping[str, Any], origin: Origin) -> None:
        with self._writing:
            self._snapshot = self._snapshot.replaced(effective)
        self._tell(effective, origin)

    def _now(self, effective: Mapping[str, Any], origin: Origin) -> Mapping[str, Any]:
        hold = self._hold
        return effective if hold is None else hold(effective, origin)

    def hold_with(self, holder: Holder) -> Callable[[], None]:
        """Ask `holder` at every `set_many` and command which values are set now; returns a function that removes it.

        Raises:
            ValueError: if there is one.
        """
        with self._registering:
            if self._hold is not None:
                raise ValueError("Changes are held back already.")
            self._hold = holder

        def lift() -> None:
            with self._registering:
                self._hold = None

        return lift

    def retell(self, names: Iterable[str], origin: Origin = INTERNAL) -> None:
        """Tell the listeners the values in force of these controls: a change of them was taken back."""
        now = self._snapshot
        self._tell({name: now.value(name) for name in names}, origin)

    def restrict(self, name: str, rule: Rule) -> Callable[[], None]:
        """Ask `rule` before every write of the control `name`; returns a function that removes the rule.

        Raises:
            KeyError: if there is no such control.
            ValueError: if the control has a rule.
        """
        if name not in self.table.by_name:
            raise KeyError(name)
        with self._registering:
            if name in self._rules:
                raise ValueError(f"The control {name!r} has a rule already.")
            self._rules = {**self._rules, name: rule}

        def lift() -> None:
            with self._registering:
                self._rules = {n: r for n, r in self._rules.items() if n != name}

        return lift

    def checked(self, values: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
        """The values that `set_many` would set; sets nothing.

        Raises:
            ControlError: as `set_many`.
        """
        by_name = self.table.by_name
        effective: dict[str, Any] = {}
        for name, value in values.items():
            control = by_name.get(name)
            if control is None:
                raise ControlError(name, f"There is no control named {name!r}.")
            effective[name] = control.coerce(value)
            if (rule := self._rules.get(name)) is not None:
                effective[name] = rule(effective[name], origin)
        return effective

    def _tell(self, effective: Mapping[str, Any], origin: Origin) -> None:
        for name, value in effective.items():
            for listener in self._listeners:
                self._call(listener, name, value, origin)

    def handle(self, address: str, args: Sequence[Any], origin: Origin = INTERNAL, reply: Reply = _no_reply) -> bool:
        """Obey one OSC-like message: for a control, a twin, a command, or a pattern that matches several controls.

        Never raises: an error is sent through `reply` to `/error` (address, reason), passed to the error listeners and
        logged (see `RefusalLog`), and the message changes nothing.

        Args:
            address: full OSC address, beginning with `PREFIX`.
            args: the message's arguments as plain Python values.
            origin: who sent it; reaches the rules and the listeners.
            reply: answers the sender.

        Returns:
            Whether the message was understood.
        """
        return self._handle(address, args, Caller(origin, reply)) > 0

    def handle_all(
        self, messages: Iterable[tuple[str, Sequence[Any]]], origin: Origin, reply: Reply = _no_reply
    ) -> None:
        """Obey the messages of one datagram, (address, arguments) each, in order; see `handle`.

        What one datagram costs is bounded: once its messages have come to `MAX_DATAGRAM_COST`, the rest is refused
        with one error.
        """
        caller = Caller(origin, reply)
        cost = 0
        for address, args in messages:
            if cost >= MAX_DATAGRAM_COST:
                self._reject(
                    address, "The datagram asks for too much at once; from this message on it is ignored.", caller
                )
                return
            cost += max(self._handle(address, args, caller), MIN_PATTERN_COST if is_pattern(address) else 1)

    def _handle(self, address: str, args: Sequence[Any], caller: Caller) -> int:
        """Obey one message. Returns how many controls or commands it was for; 0 if it was refused."""
        try:
            targets = self.table.find(address)
            self._obey(address, targets, args, caller)
        except TidecastError as error:
            self._reject(address, str(error), caller)
            return 0
        except Exception:  # a defect in a handler or a rule is answered and must not end the thread
            self._defects.note(address, "this cannot be done, because of a defect:", traceback=True)
            self._reject(address, "Tidecast failed to do this; its log says why.", caller)
            return 0
        return len(targets)

    def on(self, command: str, handler: CommandHandler) -> Callable[[], None]:
        """Have `handler` carry out the command of this name (`Command.name`); returns a function that unregisters it.

        Raises:
            KeyError: if the table has no such command.
        """
        if command not in self.table.commands_by_name:
            raise KeyError(command)
        with self._registering:
            self._handlers[command] = (*self._handlers.get(command, ()), handler)

        def off() -> None:
            with self._registering:
                self._handlers[command] = tuple(h for h in self._handlers[command] if h is not handler)

        return off

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Call `callback` after every write, even of an unchanged value; returns a function that unregisters it."""
        with self._registering:
            self._listeners = (*self._listeners, callback)

        def unlisten() -> None:
            with self._registering:
                self._listeners = tuple(c for c in self._listeners if c is not callback)

        return unlisten

    def listen_errors(self, callback: ErrorListener) -> Callable[[], None]:
        """Call `callback` for every message that was refused; returns a function that unregisters it."""
        with self._registering:
            self._error_listeners = (*self._error_listeners, callback)

        def unlisten() -> None:
            with self._registering:
                self._error_listeners = tuple(c for c in self._error_listeners if c is not callback)

        return unlisten

    def _obey(self, address: str, targets: Sequence[Target], args: Sequence[Any], caller: Caller) -> None:
        if targets[0].command is not None:
            self._command(address, targets[0].command, args, caller)
        else:
            self.set_many(dict(target.change(address, args) for target in targets), caller.origin)

    def _command(self, address: str, command: Command, args: Sequence[Any], caller: Caller) -> None:
        if is_release(command, args):
            return
        values = command.coerce(args)
        handlers = (*OWN_HANDLERS.get(command.name, ()), *self._handlers.get(command.name, ()))
        owner = self._owner_of.get(command.name)
        if owner is None and not handlers:
            raise ControlError(address, "This part of Tidecast is not running.")
        if owner is not None:
            handlers = (functools.partial(self._edit, owner, command), *handlers)
        for handler in handlers:
            handler(values, caller)

    def _edit(self, owner: type[Any], command: Command, values: tuple[Any, ...], caller: Caller) -> None:
        """Carry out a command that is a method of an owner: it returns the fields to change, in one swap."""
        with self._writing:
            changes: Mapping[str, Any] = getattr(self._snapshot.of(owner), command.name)(*values)
            live = self.checked({n: v for n, v in changes.items() if n in self.table.by_name}, caller.origin)
            now = self._now(live, caller.origin)
            others = {n: v for n, v in changes.items() if n not in live}
            self._snapshot = self._snapshot.replaced({**others, **now})
        self._tell(now, caller.origin)

    def refuse(self, address: str, reason: str) -> None:
        """Tell the error listeners of a message that was refused before it came here, and log it (see `RefusalLog`)."""
        address = address[:MAX_SHOWN]
        self._refusals.note(address, reason)
        for listener in self._error_listeners:
            self._call(listener, address, reason)

    def _reject(self, address: str, reason: str, caller: Caller) -> None:
        self._call(caller.reply, "/error", (address[:MAX_SHOWN], reason))
        self.refuse(address, reason)

    @staticmethod
    def _call(function: Callable[..., None], *args: Any) -> None:
        """Call a listener. A defect in it is logged and must not end the thread that serves all controls."""
        try:
            function(*args)
        except Exception:  # see above
            log.exception("a listener of the controls failed")


def is_release(command: Command, args: Sequence[Any]) -> bool:
    """Whether a button was released: a command without arguments that was sent 0, 0.0 or false."""
    return not command.arguments and len(args) == 1 and isinstance(args[0], (bool, int, float)) and not args[0]
