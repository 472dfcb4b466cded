"""The extension of the Tidecast component: connects parameters, OSC, the Tidecast process and the outputs.

Runs in TouchDesigner's Python 3.11 without packages and uses the DATs beside it. The logic is in `link` (values,
connection) and `engine_process`; here is only what needs TouchDesigner. Methods with a capital letter are for the
callback DATs and for your own scripts: op('Tidecast').Start().
"""

import json
import os
import secrets
import time
import traceback

PREFIX = "/tidecast"
LOG_ROWS = 500
BEAT_S = 0.1
"""Seconds between two tellings of TouchDesigner's beat. Tidecast filters out how late each of them is."""


class TidecastExt:
    """Promoted to the component; one per component."""

    def __init__(self, ownerComp):
        self.ownerComp = ownerComp
        self.link = None
        self.noticed = {}
        self.due = {}
        self.resend_due = False
        self.told_bpm = 0.0
        self.told_input = ""
        self.quit_word = secrets.token_hex(16)

    # Called by the callback DATs

    def OnFrame(self):
        """Once per frame: subscribe and ping, notice silence, resend values, watch the process."""
        now = time.monotonic()
        self._open()
        if self.par("Active"):
            if self._every("subscribe", 1.0, now):
                self._send("/subscribe", [self.par("Listenport")])
            self._apply(self.link.tick(now))
            if self.resend_due:
                self.resend_due = False
                self.Resend()
            if self.par("Followtempo") and self._every("beat", BEAT_S, now):
                self._tell_beat()
        if self._every("process", 0.25, now):
            self._watch(now)
        if self._every("source", 1.0, now):
            self._find_source()

    def OnMessage(self, address, args):
        """An OSC message has arrived."""
        self._open()
        if self.par("Active"):
            self._apply(self.link.heard(address, list(args), time.monotonic()))

    def OnValue(self, par):
        """A parameter of the component has changed, by hand, export, expression or script."""
        self._open()
        name = par.name
        if name in self.link.kinds:
            self._tell(name)
        elif name in ("Sendname", "Transport"):
            self._tell("Input")
        elif name == "Followtempo":
            self._follow(self.par(name))
        elif name in ("Active", "Address", "Port", "Listenport"):
            self._go_offline()
            self.link.reset()

    def OnPulse(self, par):
        """A pulse of the component was pressed."""
        self._open()
        pulse = self.manifest["pulses"].get(par.name)
        if pulse is not None:
            values = [self.par(name) for name in pulse["arguments"]]
            while values and values[-1] == "":  # an optional text that was left empty
                values.pop()
            self._send(pulse["address"], values)
        elif par.name in ("Start", "Stop", "Resend", "Selftest", "Storepreset", "Recallpreset"):
            getattr(self, par.name)()

    def OnStart(self):
        """The project was opened."""
        self._open()
        if self.par("Autostart"):
            self.Start()

    def OnExit(self):
        """TouchDesigner is quitting."""
        engine = self._engine()
        if engine is None or not engine.running or self.par("Keeprunning"):
            return
        self._send("/quit", [self.quit_word])
        if not engine.wait(3.0):
            engine.end()

    # For your scripts

    def Start(self):
        """Start Tidecast on this machine; if one already answers, use it."""
        self._open()
        engine = self._engine()
        if self.link.online:
            self.Log("Tidecast already answers at this address: using it")
            return
        if engine is not None and engine.running:
            self.Log("Tidecast is already starting")
            return
        processes = self._module("engine_process")
        log = processes.log_path(self.par("Listenport"))
        try:
            words = processes.command(self.par("Executable"), self._folder()) + self._arguments(processes)
            environment = {**os.environ, "TIDECAST_QUIT_WORD": self.quit_word}
            engine = processes.Engine(words, environment, log)
        except (OSError, ValueError) as error:
            self._show("Process", "not started")
            self._error("start", str(error))
            return
        processes.RUNNING[self.ownerComp.id] = engine
        self._show("Logfile", str(log))
        self._show("Process", engine.status())
        self.Log("started: " + " ".join(words))

    def Stop(self):
        """Stop the Tidecast that this component started: by OSC, or after `GRACE` by killing its processes."""
        engine = self._engine()
        if engine is None or not engine.running:
            self.Log("no Tidecast was started by this component")
            return
        self._send("/quit", [self.quit_word])
        engine.asked(time.monotonic())
        self._show("Process", engine.status())

    def Resend(self):
        """Send every parameter that stands for a control, except tempo, bend and panic buttons that are off."""
        self._open()
        self.link.resend()
        for name in self.link.kinds:
            if self.link.resends(name, self.par(name)):
                self._tell(name)

    def Storepreset(self, number=None):
        """Store the look under a number, in the component's storage: neither panic buttons nor input, seed, latency
        and recording."""
        number = self.par("Preset") if number is None else number
        presets = dict(self.ownerComp.fetch("presets", {}, search=False))
        presets[str(number)] = {name: self.par(name) for name in self.link.kinds if name in self.link.look}
        self.ownerComp.store("presets", presets)
        self.Log(f"preset {number} stored")

    def Recallpreset(self, number=None):
        """Set the live controls to the values stored under a number."""
        number = self.par("Preset") if number is None else number
        kept = self.ownerComp.fetch("presets", {}, search=False).get(str(number))
        if kept is None:
            self._error("preset", f"Nothing is stored under {number}. Press Store Preset first.")
            return
        for name, value in kept.items():
            if name in self.link.look:  # presets of older versions hold every control
                self._show(name, value)
        self.Log(f"preset {number} recalled")

    def Selftest(self):
        """Check every operator and parameter by name; returns the report."""
        self._open()
        processes = self._module("engine_process")
        text, head = self._module("selftest").report(self.ownerComp, self.manifest, processes.platform_name())
        self.ownerComp.op("selftest_report").text = text
        path = os.path.join(self._folder(), "tidecast-selftest.txt")
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            head = f"{head}: {path}"
        except OSError as error:
            self.Log(f"the report could not be written to {path}: {error}")
        self._show("Selftestresult", head)
        self.Log(f"selftest: {head}")
        return text

    def Log(self, line):
        """Add a line to the log, the component's third output."""
        log = self.ownerComp.op("log")
        log.appendRow([time.strftime("%H:%M:%S"), line])
        while log.numRows > LOG_ROWS:
            log.deleteRow(0)

    def par(self, name):
        """The value of a parameter of the component."""
        return self.ownerComp.par[name].eval()

    # Internal

    def _open(self):
        """Read the manifest at the first use, when every operator beside the extension exists."""
        if self.link is None:
            self.manifest = json.loads(self.ownerComp.op("manifest").text)
            self.link = self._module("link").Link(self.manifest)
            self.noticed = {name: self.par(name) for name in self.link.kinds}
            self.ownerComp.op("log").clear()
            self._clear_readings()
            self._go_offline()

    def _module(self, name):
        return self.ownerComp.op(name).module

    def _every(self, what, seconds, now):
        if now < self.due.get(what, 0.0):
            return False
        self.due[what] = now + seconds
        return True

    def _send(self, address, values):
        self.ownerComp.op("osc_out").sendOSC(PREFIX + address, values)

    def _tell(self, name):
        """Send one control if Tidecast does not have its value yet."""
        value = self.noticed[name] = self.par(name)
        if name == "Input" and not value:
            value = self.told_input = self._own_input()
            if not value:
                return
        message = self.link.local(name, value)
        if message is not None and self.par("Active"):
            self.ownerComp.op("osc_out").sendOSC(message[0], [message[1]])

    def _own_input(self):
        """The address of the picture that this component sends; empty when nothing is wired into it."""
        if not self.ownerComp.inputs:
            return ""
        return f"{self.par('Transport')}:{self.par('Sendname')}"

    def _apply(self, events):
        for event in events:
            kind, *values = event
            if kind == "set":
                self._heard_value(*values)
            elif kind == "online":
                self._show_online(True)
                self.Log("Tidecast answers")
                self._synchronise()
            elif kind == "offline":
                self._go_offline()
                self.Log("Tidecast does not answer: the input is passed through")
            elif kind == "ready":
                self._synchronise()
                self._call("onReady", self.ownerComp)
            elif kind == "error":
                self._error(*values)
            elif kind == "ask":
                self._send("/resend", [])
            elif kind == "ping":
                self._send("/ping", values)
            elif kind == "prompt":
                self._call("onPromptDone", self.ownerComp, values[0])
            else:
                self.Log(values[0])

    def _follow(self, yes):
        """Let the source of the beat be what this component tells, or no longer."""
        self.told_bpm = 0.0
        if yes or self.par("Temposource") == "osc":
            self._show("Temposource", "osc" if yes else "internal")
            self._tell("Temposource")  # before the first beat

    def _tell_beat(self):
        """Tell TouchDesigner's tempo, if it has changed, and its position in beats."""
        if self.par("Temposource") != "osc" or not self.link.online:
            return
        chop = self.ownerComp.op(self.par("Beatchop"))
        bpm, position = (chop["bpm"], chop["countramp"]) if chop is not None and chop.isCHOP else (None, None)
        if bpm is None or position is None:
            self._show("Followtempo", False)
            name = self.par("Beatchop")
            self._error("beat", f"{name} is no Beat CHOP with the outputs Count+Ramp and BPM switched on.")
            return
        bpm, position = bpm.eval(), position.eval()
        if abs(bpm - self.told_bpm) > 0.01:
            self.told_bpm = bpm
            self._send("/tempo/bpm", [bpm])
        self._send("/tempo/beat", [position])

    def _synchronise(self):
        """Bring both sides to the same values, in the direction that the parameter On Connect says."""
        self.told_bpm = 0.0
        if self.par("Onconnect") == "send":
            self.resend_due = True
        else:
            self.link.settle(keep_waiting=True)
            self._send("/resend", [])

    def _heard_value(self, name, value):
        """Show a value from Tidecast, unless the parameter was changed here and its callback is still pending."""
        if name in self.noticed and self.par(name) != self.noticed[name]:
            self._tell(name)
            return
        if name == "Input" and value in (self._own_input(), self.told_input) and not self.par("Input"):
            return
        self._show(name, value)
        if name in self.noticed:
            self.noticed[name] = self.par(name)
        row = self.numbers.get(name)
        if row is not None:
            self.ownerComp.op("readings")[row, 1] = value

    def _show(self, name, value):
        """Set a parameter, unless an export, an expression or a binding controls it."""
        par = self.ownerComp.par[name]
        if par.mode == ParMode.CONSTANT and par.eval() != value:  # noqa: F821 - a name of TouchDesigner
            par.val = value

    def _clear_readings(self):
        """Reset the table behind the telemetry output: the row `online`, then one row per numeric reading."""
        table = self.ownerComp.op("readings")
        table.clear()
        self.numbers = {}
        table.appendRow(["online", 0])
        for row in self.manifest["readings"]:
            if row["kind"] != "text":
                self.numbers[row["par"]] = table.numRows
                table.appendRow([row["name"], 0])

    def _go_offline(self):
        self._show_online(False)
        self._show("Statusstate", "offline")

    def _show_online(self, yes):
        self._show("Online", yes)
        self.ownerComp.op("readings")[0, 1] = int(yes)

    def _error(self, topic, reason):
        self._show("Lasterror", f"{topic}: {reason}")
        self.Log(f"error: {topic}: {reason}")
        self._call("onError", self.ownerComp, topic, reason)

    def _call(self, name, *args):
        """Call a function of the user's DAT."""
        if not self.par("Usecallbacks"):
            return
        dat = self.ownerComp.op(self.par("Callbackdat"))
        if dat is None:
            self.Log(f"there is no DAT {self.par('Callbackdat')}: {name} was not called")
            return
        try:
            function = getattr(dat.module, name, None)
            if function is not None:
                function(*args)
        except Exception:  # the user's code may raise anything; the connection must survive it
            self.Log(f"{name} failed: {traceback.format_exc(limit=3)}")

    def _engine(self):
        return self._module("engine_process").RUNNING.get(self.ownerComp.id)

    def _watch(self, now):
        """Log what the process writes, and kill it if it does not stop when asked."""
        engine = self._engine()
        if engine is None:
            return
        for line in engine.lines():
            self.Log(line)
        if engine.overdue(now):
            self.Log("Tidecast did not stop when asked: its processes are killed")
            engine.end()
        self._show("Process", engine.status())

    def _arguments(self, processes):
        """The arguments of the program: those of the parameter, completed by this component."""
        words = processes.split(self.par("Arguments"))
        transport = self.par("Transport")
        if not {"--output", "-o"} & set(words):
            words += ["--output", f"{transport}:{self.par('Receivename')}"]
        if "--osc-port" not in words:
            words += ["--osc-port", str(self.par("Port"))]
        if self._own_input() and not {"--input", "-i"} & set(words):
            words += ["--set", f"input.uri={self._own_input()}"]
        return words

    def _find_source(self):
        """Find the full NDI name, HOST (name), of the output of Tidecast."""
        wanted = f"({self.par('Receivename')})"
        sources = self.ownerComp.op("ndi_sources")
        for row in range(sources.numRows):
            for column in range(sources.numCols):
                cell = str(sources[row, column])
                if cell.endswith(wanted):
                    self._show("Source", cell)
                    return

    def _folder(self):
        return project.folder  # noqa: F821 - a name that TouchDesigner gives to every script
