"""The connection to Tidecast as a state machine: which values both sides have, and whether Tidecast answers.

Pure: no TouchDesigner, no socket, no clock. `TidecastExt` passes in what happened and carries out the events that are
returned. Runs in TouchDesigner's Python 3.11 without packages.

Events are tuples:
    ("set", parameter, value)       show this value
    ("online",), ("offline",)       Tidecast answers, or has been silent for `OFFLINE_AFTER` seconds
    ("ready",)                      it is ready to restyle: send it every value
    ("error", topic, reason)        it reports an error
    ("prompt", text)                this prompt is now in force
    ("line", text)                  add this to the log
    ("ask",)                        ask Tidecast for every value
"""

import struct

PREFIX = "/tidecast"
OFFLINE_AFTER = 3.0
"""Seconds of silence after which Tidecast counts as gone; it reports ten times a second."""
HOLD = 0.3
"""Seconds for which an echo is held back after a change by hand, so that it does not move the control backwards."""
GAP = 0.7
"""Seconds of silence after which Tidecast may have been restarted: echoes are then held back until its heartbeat
arrives, so that the defaults of a new process never overwrite the values here."""
STALE = 1.0
"""Seconds after a resend in which another value than the one that was sent is taken for one from before it: the echo
that would correct it may be lost where many arrive at once, and a default must not take its place. Then Tidecast is
asked."""
READY_STATES = ("running", "no-input")
SHARED = (PREFIX + "/tempo/bpm", PREFIX + "/tempo/bend")
"""What may be that of other programs too: it is sent when it is changed here, and at no other time."""


class Link:
    """The two-way connection of one component.

    Args:
        manifest: the contents of the DAT `manifest`.
    """

    def __init__(self, manifest):
        self.kinds = {row["par"]: row["kind"] for row in manifest["controls"]}
        self.look = {row["par"] for row in manifest["controls"] if row["stored"] == "always"}
        self.panic = {row["par"] for row in manifest["controls"] if row["stored"] == "never"}
        self.address_of = {row["par"]: PREFIX + row["address"] for row in manifest["controls"]}
        self.par_of = {address: par for par, address in self.address_of.items()}
        self.reading_of = {PREFIX + row["address"]: row for row in manifest["readings"]}
        self.reset()

    def reset(self):
        """Forget everything, as when the address has changed."""
        self.online = False
        self.state = ""
        self.prompt = None
        self.heartbeat = None
        self.heard_at = None
        self.known = {}
        self.changed_at = {}
        self.waiting = {}
        self.resent_at = None
        self.doubted = False
        self.held = True
        self.restarted = True

    def settle(self, keep_waiting):
        """Both sides are being synchronised: apply the echoes that were held back, or drop them. Echoes of the panic
        buttons and of the tempo are applied in any case."""
        self.held = self.restarted = False
        if not keep_waiting:
            self.waiting = {par: value for par, value in self.waiting.items() if par in self.panic}

    def resend(self, now):
        """Every value is about to be sent again."""
        self.settle(keep_waiting=False)
        self.known.clear()
        self.resent_at = now

    def resends(self, par, value):
        """Whether a resend sends this value. A panic button that is off is not sent: somebody else may have pressed it
        while Tidecast could not be heard, and a reconnect must not take it off. Nor is the tempo, which may be that of
        other programs too."""
        return (par not in self.panic or bool(value)) and self.address_of[par] not in SHARED

    def local(self, par, value, now):
        """A parameter was changed here. Returns (OSC address, value) to send, or None if Tidecast has the value."""
        if par not in self.kinds:
            return None
        value = self.wire(par, value)
        if self.known.get(par) == value:
            return None
        self.known[par] = value
        self.changed_at[par] = now
        self.waiting.pop(par, None)
        return self.address_of[par], value

    def wire(self, par, value):
        """`value` as it is sent: toggles as 0 or 1, floats with 32 bits."""
        kind = self.kinds[par]
        if kind in ("bool", "int"):
            return int(value)
        if kind == "float":
            return struct.unpack("f", struct.pack("f", float(value)))[0]
        return str(value)

    def heard(self, address, args, now):
        """A message from Tidecast has arrived. Returns the events."""
        if not address.startswith(PREFIX + "/"):
            return []
        if self.online and now - self.heard_at > GAP:
            self.held = True
        self.heard_at = now
        events = []
        if not self.online:
            self.online = True
            events.append(("online",))
        reading = self.reading_of.get(address)
        if reading is not None and args:
            events.extend(self._reading(reading, args[0]))
        elif address in self.par_of and len(args) == 1:
            events.extend(self._echo(self.par_of[address], args[0], now))
        elif address == PREFIX + "/error" and len(args) >= 2:
            events.append(("error", str(args[0]), str(args[1])))
        elif address == PREFIX + "/inputs":
            events.append(("line", "inputs: " + ", ".join(str(a) for a in args)))
        return events

    def _reading(self, reading, value):
        events = [("set", reading["par"], value)]
        name = reading["name"]
        if name == "state":
            was_ready, self.state = self.state in READY_STATES, value
            if value in READY_STATES and not was_ready:
                events.append(("ready",))
        elif name == "prompt" and value != self.prompt:
            if self.prompt is not None:
                events.append(("prompt", value))
            self.prompt = value
        elif name == "heartbeat":
            if self.heartbeat is not None and value < self.heartbeat:
                self.restarted = True
                events.append(("line", "Tidecast was restarted"))
                events.append(("ready",))
            elif not self.restarted:
                self.settle(keep_waiting=True)
            self.heartbeat = value
        return events

    def _echo(self, par, value, now):
        value = self.wire(par, value)
        resent = self.resent_at is not None and now - self.resent_at < STALE
        if resent and self.changed_at.get(par) == self.resent_at and value != self.known[par]:
            self.doubted = True
            return []
        if self.held or now - self.changed_at.get(par, -HOLD) < HOLD:
            self.waiting[par] = value
            return []
        self.waiting.pop(par, None)  # older than this one
        return self._take(par, value)

    def _take(self, par, value):
        self.known[par] = value
        return [("set", par, value)]

    def tick(self, now):
        """Time has passed. Returns the events."""
        events = []
        if self.doubted and now - self.resent_at >= STALE:
            self.doubted = False
            events.append(("ask",))
        if not self.held:
            heard = self.heard_at  # an echo from before the change must not be shown when Tidecast has died after it
            for par in [p for p in self.waiting if heard - self.changed_at.get(p, heard - HOLD) >= HOLD]:
                events.extend(self._take(par, self.waiting.pop(par)))
        if self.online and now - self.heard_at >= OFFLINE_AFTER:
            self.reset()
            events.append(("offline",))
        return events
