"""OSC over UDP: messages in, echoes, telemetry and errors out.

`OscServer` has two threads. The thread of its `UdpPort` passes messages to the `ControlStore`. The sender's thread
wakes when something has changed, at most `ECHO_HZ` times a second, and sends effective values and errors; ten times a
second it sends the readings that have changed, and once a second all. Neither thread waits for a client. Who is obeyed
and how much each host may be sent is decided by the `Gate`; what keeps echoes from coming back stands in `loops`.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bridge.control.origin import Origin, trust_of
from bridge.control.osc.echoes import TELEMETRY_HZ, Readings, encoded, forms
from bridge.control.osc.gate import WORD, Gate
from bridge.control.osc.loops import Echoes, Servers, is_own
from bridge.control.osc.packet import Message, PacketError, build, parse
from bridge.control.osc.subscribers import Subscribers
from bridge.control.osc.udp import Address, UdpPort
from bridge.control.signals import OSC, Signals
from bridge.control.store import PING, Caller, ControlStore
from bridge.control.telemetry import Telemetry
from bridge.service import Service
from engine.coercion import finite
from engine.control import PREFIX, Command, Kind, Reading
from engine.errors import ControlError, TidecastError

log = logging.getLogger(__name__)

ECHO_HZ = 40.0
HEARTBEAT_HZ = 1.0

BURST = 32
"""Most controls told in one go: 96 datagrams at most. With the readings before them they fit into the receive buffer of
a socket that was not enlarged (some 270 on Linux)."""

BURST_PAUSE_S = 0.005
"""Time for a client to read such a burst."""

ERRORS_PER_TICK = 16
"""Most errors sent to one client at a time; further ones are only counted."""

MAX_ERROR_CLIENTS = 256
"""Most clients to which errors are sent at a time."""

MAX_LIST_CLIENTS = 64
"""Most clients that can wait for the list of inputs."""

MAX_PENDING = 64
"""Most subscriptions that wait until their host has returned the random word."""

SUBSCRIBE = Command(
    "subscribe",
    "/subscribe",
    (("port", "i", True),),
    "Clients",
    "Subscribe",
    "Send telemetry and echoes to the sender's host at this port; it ends after 30 s, unless this command or /ping "
    "renews it.",
)
RESEND = Command("resend", "/resend", (), "Clients", "Resend", "Send every effective value again.")
INPUTS = Command("inputs", "/inputs", (), "Video", "Inputs", "Answer the list of sources that can be seen.")
HEARTBEAT = Reading("heartbeat", "/status/heartbeat", Kind.INT, "", "Counts up once a second.", HEARTBEAT_HZ)


class OscServer:
    """Serves the namespace on one UDP port.

    Args:
        store: the live controls.
        telemetry: the readings for subscribers.
        host: address to listen on; `0.0.0.0` allows other machines.
        port: UDP port; 0 lets the system choose (see `address`).
        inputs: lists the sources that can be seen, for `/inputs`; may take seconds.
        gate: decides who is obeyed and how much is sent; None for one that knows only this machine.
        signals: receives the numbers at addresses outside the namespace, for modulators; None for nobody.
        remedy: what the user can do when the port is taken.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        *,
        host: str = "0.0.0.0",
        port: int = 9000,
        inputs: Callable[[], Sequence[str]] | None = None,
        gate: Gate | None = None,
        signals: Signals | None = None,
        remedy: str = "Stop the other program, or choose another port with --osc-port.",
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._inputs = inputs
        self._gate = gate or Gate(report=telemetry.error)
        self._signals = signals or Signals()
        self._servers = Servers(store.table, telemetry.error)
        self._echoes = Echoes()
        self._pending: dict[Address, Address] = {}  # target: source
        self.subscribers = Subscribers()
        values = frozenset(a.encode() for a, t in store.table.targets.items() if t.control is not None)
        self._port = UdpPort(host, port, self._gate, latest_wins=values.__contains__, obey=self._obey, remedy=remedy)
        self._service = Service("osc-send", self._send, telemetry.error, self._notice)
        self._wake = threading.Condition()
        self._changed: set[str] = set()
        self._readings = Readings(store.table)  # of the sender's thread
        self._errors: dict[Address | None, dict[str, str]] = {}
        self._more_errors = 0
        self._full_updates: set[Address] = set()
        self._list_clients: list[Caller] = []
        self._undo: list[Callable[[], None]] = []

    @property
    def address(self) -> Address:
        """Host and port on which it listens."""
        return self._port.address

    def start(self) -> OscServer:
        """Bind the port and serve. Does nothing if the server is running.

        Raises:
            PortInUseError: if another program has the port.
            ConfigError: if the host is not an address of this machine or the port may not be used.
        """
        if self._undo:
            return self
        store = self._store
        self._undo = [
            store.listen(lambda name, value, origin: self._note_change(name)),
            store.listen_errors(lambda address, reason: self._note_error(None, address, reason)),
            self._telemetry.listen_errors(lambda topic, reason: self._note_error(None, topic, reason)),
            store.on(SUBSCRIBE.name, self._subscribe),
            store.on(RESEND.name, self._resend),
            store.on(PING.name, self._renew),
        ]
        if self._inputs is not None:
            self._undo.append(store.on(INPUTS.name, self._list_inputs))
        try:
            self._port.start()
        except TidecastError:
            self._unregister()
            raise
        self._telemetry.update(heartbeat=0)
        self._service.start()
        log.info("OSC on %s:%d", *self.address)
        return self

    def stop(self) -> None:
        """Stop serving and free the port. Does nothing if the server is not running."""
        self._service.stop()
        self._port.stop()
        self._unregister()

    def _notice(self) -> None:
        with self._wake:
            self._wake.notify()

    def _unregister(self) -> None:
        for undo in self._undo:
            undo()
        self._undo = []

    def __enter__(self) -> OscServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # Receiving: on the thread of the port

    def _renew(self, args: tuple[Any, ...], caller: Caller) -> None:
        if caller.origin.address is not None:
            self.subscribers.renew(caller.origin.address[0], time.monotonic())

    def _obey(self, datagram: bytes, sender: Address) -> None:
        try:
            messages = parse(datagram)
        except PacketError as error:
            self._note_error(sender, "/", str(error))
            return
        if self._servers.is_one(sender, messages, time.monotonic()):
            return
        origin = Origin(f"osc:{sender[0]}:{sender[1]}", trust_of(sender[0]), sender)
        reply = functools.partial(self._reply, sender)
        # Lazily: whether a message is a returned echo depends on those before it in the datagram.
        self._store.handle_all((m for m in messages if self._is_for_store(m, sender)), origin, reply)

    def _is_for_store(self, message: Message, sender: Address) -> bool:
        """Whether a message is neither the random word, nor followed by a modulator, nor an echo that a subscriber
        returned."""
        if message.address == WORD:
            self._take_word(sender, message.args)
            return False
        if not message.address.startswith(PREFIX + "/"):
            number = finite(message.args[0]) if message.args else None
            if number is not None:
                self._signals.put(OSC + message.address, number, time.monotonic_ns())
            return not self._signals.followed(OSC + message.address)
        return not (self._echoes.is_returned(message, time.monotonic()) and self.subscribers.has(sender[0]))

    def _ask_word(self, source: Address) -> bool:
        """Have an unconfirmed host return a random word; whether that is needed."""
        if self._gate.confirmed(source[0]):
            return False
        self._port.send([build(WORD, (self._gate.word(source[0]),))], (source,))
        return True

    def _take_word(self, sender: Address, args: Sequence[Any]) -> None:
        if len(args) != 1 or not self._gate.confirm(sender[0], str(args[0])):
            return
        for target, source in [(t, s) for t, s in self._pending.items() if t[0] == sender[0]]:
            del self._pending[target]
            self._add(target, source)

    def _subscribe(self, args: tuple[Any, ...], caller: Caller) -> None:
        (port,) = args
        source = caller.origin.address
        if source is None:
            raise ControlError(PREFIX + SUBSCRIBE.address, "Only OSC clients can subscribe.")
        if not 0 < port < 65536:
            raise ControlError(PREFIX + SUBSCRIBE.address, f"{port} is not a UDP port (1 to 65535).")
        target = (source[0], port)
        if port in self._gate.ports and is_own(source[0]):
            raise ControlError(
                PREFIX + SUBSCRIBE.address, f"{port} is Tidecast's own port.", "Give the one you listen at."
            )
        if self._ask_word(source):
            self._pending = dict([*self._pending.items(), (target, source)][-MAX_PENDING:])
            return
        if not self._add(target, source):
            raise ControlError(PREFIX + SUBSCRIBE.address, "There are too many subscribers already.")

    def _add(self, target: Address, source: Address) -> bool:
        """Begin or renew a subscription; False if there are too many."""
        with self._wake:  # so that it is sent everything before it is sent a change
            new = target not in self.subscribers.current(time.monotonic())
            added = self.subscribers.add(target, source, time.monotonic())
            if added and new:
                self._request_full_update((target,))
        return added

    def _resend(self, args: tuple[Any, ...], caller: Caller) -> None:
        source = caller.origin.address
        if source is not None:
            if self._ask_word(source):
                return
            self._request_full_update(self.subscribers.reply_targets(source))
        else:
            self._request_full_update(self.subscribers.current(time.monotonic()))

    def _list_inputs(self, args: tuple[Any, ...], caller: Caller) -> None:
        """Look for sources on a thread; a client that asks meanwhile is answered after another search.

        Not a `Service`: the thread ends with the last waiting client, under the lock that adds the next one.
        """
        with self._wake:
            self._list_clients = [*self._list_clients[-MAX_LIST_CLIENTS + 1 :], caller]
            if len(self._list_clients) == 1:
                threading.Thread(target=self._answer_inputs, name="osc-inputs", daemon=True).start()

    def _answer_inputs(self) -> None:
        assert self._inputs is not None
        while True:
            with self._wake:
                asked = list(self._list_clients)
            try:
                address, answer = "/inputs", tuple(self._inputs())
            except TidecastError as error:
                address, answer = "/error", (PREFIX + INPUTS.address, str(error))
            for caller in asked:
                caller.reply(address, answer)
            with self._wake:
                self._list_clients = [c for c in self._list_clients if c not in asked]
                if not self._list_clients:
                    return

    # Sending: on the sender's thread, except `_reply`

    def _reply(self, sender: Address, address: str, args: Sequence[Any]) -> None:
        if address == "/error":
            self._note_error(sender, str(args[0]), str(args[1]))
            return
        try:
            datagram = build(PREFIX + address, args)
        except PacketError as error:
            self._note_error(sender, PREFIX + address, str(error))
            return
        self._port.send([datagram], self.subscribers.reply_targets(sender))

    def _note_change(self, name: str) -> None:
        with self._wake:
            self._echoes.forget(self._store.table.by_name[name])
            self._changed.add(name)
            self._wake.notify()

    def _request_full_update(self, targets: Iterable[Address]) -> None:
        """Have all values sent to these targets soon, and only once however often it is requested until then."""
        with self._wake:
            self._full_updates.update(targets)
            self._wake.notify()

    def _note_error(self, sender: Address | None, address: str, reason: str) -> None:
        """Queue an error for one sender, or for every subscriber if `sender` is None."""
        address, reason = (t[:1000].encode("utf-8", "replace").decode() for t in (address, reason))
        with self._wake:
            if sender not in self._errors and len(self._errors) >= MAX_ERROR_CLIENTS:
                self._more_errors += 1
                return
            mine = self._errors.setdefault(sender, {})
            if address in mine or len(mine) < ERRORS_PER_TICK:
                mine[address] = reason
            else:
                self._more_errors += 1
            self._wake.notify()

    def _send(self) -> None:
        started = time.monotonic()
        next_telemetry = started
        beats = 0
        while not self._service.stopping.is_set():
            with self._wake:
                if not (self._changed or self._errors or self._full_updates):
                    self._wake.wait(max(0.0, next_telemetry - time.monotonic()))
                changed, self._changed = self._changed, set()
                errors, self._errors = self._errors, {}
                more, self._more_errors = self._more_errors, 0
                full_updates, self._full_updates = self._full_updates, set()
                now = time.monotonic()
                subscribers = self.subscribers.current(now)
            if errors:
                self._send_errors(errors, more, subscribers)
            if full_updates:  # the readings come first: by them another Tidecast recognises this one
                late = self._port.send(self._readings.all(self._telemetry.snapshot()), full_updates)
                self._withhold(late)
                self._send_values(self._store.table.by_name, full_updates - late)
            self._send_values(changed, set(subscribers) - full_updates)
            if now >= next_telemetry:
                beat = now - started >= beats / HEARTBEAT_HZ
                if beat:
                    beats += 1
                    self._telemetry.update(heartbeat=beats)
                if subscribers:
                    self._port.send(self._readings.news(self._telemetry.snapshot(), beat), subscribers)
                next_telemetry = max(next_telemetry + 1.0 / TELEMETRY_HZ, now)
            self._service.stopping.wait(1.0 / ECHO_HZ)

    def _withhold(self, targets: Iterable[Address]) -> None:
        """Have everything sent again, as soon as the budget allows, to those that did not get all."""
        late = [target for target in targets if self._gate.confirmed(target[0])]
        with self._wake:
            self._full_updates.update(late)

    def _send_errors(
        self, errors: dict[Address | None, dict[str, str]], more: int, subscribers: Sequence[Address]
    ) -> None:
        told: set[tuple[Address, str]] = set()
        for sender, mine in errors.items():
            targets = subscribers if sender is None else self.subscribers.reply_targets(sender)
            for address, reason in mine.items():
                fresh = [t for t in targets if (t, address) not in told]
                told.update((t, address) for t in fresh)
                self._port.send(encoded(PREFIX + "/error", address, reason), fresh)
        if more:
            senders = [s for s in errors if s is not None]
            text = f"{more} more messages were not understood."
            self._port.send(encoded(PREFIX + "/error", "/", text), {*subscribers, *senders})

    def _send_values(self, names: Iterable[str], targets: set[Address]) -> None:
        """Send the echoes of these controls, each with the value in force when it is sent.

        The lock orders echoes and changes: who sets a value and then gets a `/pong` is sent no older value after it,
        however long a busy machine takes for all of them.
        """
        rows, left = self._store.table.by_name, targets
        for number, name in enumerate(names, 1):
            if not left:
                break
            with self._wake:
                said = forms(rows[name], self._store.snapshot.value(name))
                self._echoes.sent(said, time.monotonic())
                left = left - self._port.send([datagram for form in said for datagram in encoded(*form)], left)
            if number % BURST == 0:
                self._service.stopping.wait(BURST_PAUSE_S)
        self._withhold(targets - left)
