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
    ("ping", number)                send this ping, which Tidecast answers after everything that was sent before it
"""

import struct

PREFIX = "/tidecast"
OFFLINE_AFTER = 3.0
"""Seconds of silence after which Tidecast counts as gone; it reports ten times a second."""
PING_S = 1.0
"""Seconds from one ping to the next."""
ASK_S = 0.3
"""After the answer to a change, time for the echo of that change, in seconds. A third of it is the time between pings
while a change is not answered."""
GAP = 0.7
"""Seconds of silence after which Tidecast may have been restarted: echoes are then held back until its heartbeat
arrives, so that the defaults of a new process never overwrite the values here."""
READY_STATES = ("running", "no-input")
SHARED = (PREFIX + "/tempo/bpm", PREFIX + "/tempo/bend")
"""What may be that of other programs too: it is sent when it is changed here, and at no other time."""


class Link:
    """The two-way connection of one component.

    Args:
        manifest: the contents of the DAT `manifest`.
    """

    def __init__(self, manifest):
        self.pings = 0
        self.pinged_at = float("-inf")
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
        self.unanswered = {}
        self.doubted = {}
        self.waiting = {}
        self.held = True
        self.restarted = True

    def settle(self, keep_waiting):
        """Both sides are being synchronised: apply the echoes that were held back, or drop them. Echoes of the panic
        buttons and of the tempo are applied in any case."""
        self.held = self.restarted = False
        if not keep_waiting:
            self.waiting = {par: value for par, value in self.waiting.items() if par in self.panic}

    def resend(self):
        """Every value is about to be sent again."""
        self.settle(keep_waiting=False)
        self.known.clear()

    def resends(self, par, value):
        """Whether a resend sends this value. A panic button that is off is not sent: somebody else may have pressed it
        while Tidecast could not be heard, and a reconnect must not take it off. Nor is the tempo, which may be that of
        other programs too."""
        return (par not in self.panic or bool(value)) and self.address_of[par] not in SHARED

    def local(self, par, value):
        """A parameter was changed here. Returns (OSC address, value) to send, or None if Tidecast has the value.

        Until a ping from then on is answered, another value that Tidecast tells may be one from before the change,
        however late: it neither moves a fader backwards nor puts a default in place of what was sent to a new process.
        """
        if par not in self.kinds:
            return None
        value = self.wire(par, value)
        if self.known.get(par) == value:
            return None
        self.known[par] = value
        self.unanswered[par] = self.pings
        self.doubted.pop(par, None)
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
            events.extend(self._echo(self.par_of[address], args[0]))
        elif address == PREFIX + "/pong" and args and isinstance(args[0], int):
            self._pong(args[0], now)
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

    def _pong(self, ping, now):
        for par in [par for par, awaited in self.unanswered.items() if awaited <= ping]:
            del self.unanswered[par]
            if par in self.doubted:
                self.doubted[par] = now

    def _echo(self, par, value):
        value = self.wire(par, value)
        if par in self.unanswered and value != self.known.get(par):
            self.doubted[par] = None
            return []
        if self.held and par not in self.unanswered:
            self.waiting[par] = value
            return []
        self.doubted.pop(par, None)  # older than this one
        self.waiting.pop(par, None)
        return self._take(par, value)

    def _take(self, par, value):
        self.known[par] = value
        return [("set", par, value)]

    def tick(self, now):
        """Time has passed. Returns the events."""
        events = []
        if now - self.pinged_at >= (ASK_S / 3 if self.online and self.unanswered else PING_S):
            events.append(("ping", self.pings))
            self.pings += 1
            self.pinged_at = now
        if any(answered is not None and now - answered >= ASK_S for answered in self.doubted.values()):
            events.append(("ask",))  # the value was refused, or its echo was lost
            self.doubted = {par: answered for par, answered in self.doubted.items() if answered is None}
        if not self.held:
            for par in list(self.waiting):
                events.extend(self._take(par, self.waiting.pop(par)))
        if self.online and now - self.heard_at >= OFFLINE_AFTER:
            self.reset()
            events.append(("offline",))
        return events
