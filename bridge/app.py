"""The composition root: makes the parts, connects them, starts them in order, and stops them in reverse order.

It holds no logic of its own. `App.start` and `App.stop` may be called repeatedly in one process: each start makes
every part anew, and each stop releases every thread, port, process, name and byte of shared memory.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import assert_never

from bridge.audio.service import AudioService
from bridge.config import AppConfig
from bridge.config_file import start_controls
from bridge.control.compat.server import CompatServer
from bridge.control.cues.service import Cues
from bridge.control.files import state_dir
from bridge.control.midi.switch import MidiSwitch
from bridge.control.modulation.service import Modulation
from bridge.control.osc.gate import Gate
from bridge.control.osc.server import OscServer
from bridge.control.oscquery.announce import AnnounceError, Announcement
from bridge.control.quit import obey_quit
from bridge.control.signals import Signals
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored.session import Session
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.controls import KEPT
from bridge.control.tempo.service import TempoService
from bridge.pipeline.canvas.size import CanvasControls, Size, canvas_size
from bridge.pipeline.capture import Capture
from bridge.pipeline.endpoints.output import Output
from bridge.pipeline.endpoints.recording import start_recorder
from bridge.pipeline.input_policy import restrict_inputs
from bridge.pipeline.lora_policy import LoraPolicy
from bridge.pipeline.model.own_loras import OwnLoras
from bridge.pipeline.model.switch import ModelSwitch
from bridge.pipeline.monitor import Monitor
from bridge.pipeline.pacing.lead_times import LeadTimes
from bridge.pipeline.publish import Publisher
from bridge.pipeline.stages.base import StageRow
from bridge.pipeline.stages.compare import end_when_changed
from bridge.pipeline.stages.table import STAGES
from bridge.process.engine.choice import EngineControls, know, lora_files, offered, own_loras
from bridge.process.messages import ChangeFailed, Complaint, EngineEvent, Health, Loading, Ready, Restarting, SizeFound
from bridge.process.priority import fine_timers
from bridge.process.supervisor import Supervisor
from bridge.show.folder import BINDINGS, CUES, SESSION, SNAPSHOTS
from bridge.show.live import LiveShow
from bridge.table import table_of
from bridge.video.base import Options, SourceInfo
from bridge.video.opening import list_sources
from bridge.web.access import page_url, token_for
from bridge.web.launcher import WebProcess
from bridge.web.messages import ChangesPending, CuesTold, MidiState, SnapshotsStored, WordsKnown
from bridge.web.server.guard import Guard
from engine.controls import LORA_SLOTS, Controls
from engine.frame import Frame

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long another Python thread may hold the interpreter while the publish thread waits for it (default: 5 ms)."""


class App:
    """The bridge: video in, engine, video out, and every way to control it.

    Args:
        config: everything that is chosen before the start.
        stages: the table of stages.

    Attributes:
        store, telemetry, signals: live controls, readings and what is heard from outside; they exist before `start` and
            survive `stop`.
        quit: set when a client sends `/quit`.
        oscquery_url: where OSCQuery is served when there is no page; else empty.
        failure: why the engine failed before it was ever ready; else empty.
    """

    def __init__(self, config: AppConfig, stages: Sequence[StageRow] = STAGES) -> None:
        self.config = config
        know(config.engine)
        self._stages = stages
        table = table_of(stages)
        self.store = ControlStore(table, start_controls(config, table))
        restrict_inputs(self.store, config.input.allow, lambda: self._inputs)
        configured = lora_files(config.engine)
        for number in range(1, LORA_SLOTS + 1):
            self.store.restrict(f"lora_{number}_file", LoraPolicy(number, configured))
        self.telemetry = Telemetry(table)
        self.signals = Signals()
        self._gate = Gate(config.osc.allow, self.telemetry.error)
        self.quit = threading.Event()
        self.failure = ""
        self._stack: contextlib.ExitStack | None = None
        self._inputs: list[SourceInfo] = []
        self._newest: Frame | None = None  # that was sent
        self._ever_ready = False
        self._words: WordsKnown | None = None
        self.web: WebProcess | None = None
        self.oscquery_url = ""

    def start(self) -> None:
        """Start every part; does nothing when running. If one fails, the parts already started are stopped again.

        Raises:
            TidecastError: a port or name is taken, or an input or output cannot be opened.
        """
        if self._stack is not None:
            return
        self.quit.clear()
        fine_timers()
        with contextlib.ExitStack() as stack:
            stack.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            self._assemble(stack)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop every part, the last started first; idempotent."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def __enter__(self) -> App:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def inputs(self) -> list[SourceInfo]:
        """Every source that can be seen now (takes about two seconds). A number in the control `input` refers to it."""
        found = list_sources(options=self._input_options())
        self._inputs = [source for source in found if source.uri not in self.config.output.uris]  # no loop to choose
        return self._inputs

    def _assemble(self, stack: contextlib.ExitStack) -> None:
        config, store, report = self.config, self.store, self.telemetry.error
        width, height, fps = config.engine.width, config.engine.height, config.output.fps
        canvas = self._canvas()
        self.osc = self._start_osc(stack)
        self.supervisor = Supervisor(
            config.engine,
            config.process,
            fps,
            lambda: store.modulated(time.monotonic_ns()).of(Controls),
            self._on_event,
            lambda: self.switch.trial(),
        )
        stack.callback(self.supervisor.stop)
        stack.callback(store.listen(lambda *change: self.supervisor.controls_changed()))
        self.recorder = start_recorder(stack, config, store, self.telemetry, canvas)
        wanted = Options(width=canvas[0], height=canvas[1], fps=Fraction(fps).limit_denominator(1001) if fps else None)
        self.capture = Capture(
            config.input.uri,
            self._input_options(),
            width,
            height,
            store,
            self._stages,
            lambda: self._inputs,
            self._captured,
            report,
        )
        self.publisher = Publisher(
            [Output(uri, wanted, report) for uri in config.output.uris],
            self.supervisor,
            self.capture.history,
            self._stages,
            store,
            fps,
            (width, height),
            config.process.stall_seconds,
            self._sent,
            report,
        )
        self.monitor = Monitor(
            self.telemetry,
            self.supervisor,
            self.capture,
            self.publisher,
            lambda: store.snapshot.of(Controls).slo_latency,
        )
        model = store.snapshot.of(EngineControls).engine_model
        self.telemetry.update(state="loading", output=", ".join(config.output.uris), model=model)
        own = OwnLoras(store, lambda model: own_loras(config.engine, model), len(config.engine.loras))
        notify = self.monitor.notify
        self.switch = ModelSwitch(store, self.supervisor, lambda: self.capture.info, fps, own, report, notify)
        stack.callback(self.switch.follow())

        stack.callback(self.publisher.stop)
        self.publisher.start()
        stack.callback(self.capture.stop)
        self.capture.start()
        self._start_controls(stack)
        self.supervisor.start()
        stack.callback(self.monitor.stop)
        self.monitor.start()
        self.web = self._start_web(stack)
        self.oscquery_url = self._start_oscquery(stack)

    def _start_osc(self, stack: contextlib.ExitStack) -> OscServer | None:
        if not self.config.osc.enabled:
            return None
        osc = OscServer(
            self.store,
            self.telemetry,
            host=self.config.osc.host,
            port=self.config.osc.port,
            gate=self._gate,
            inputs=lambda: [str(source.uri) for source in self.inputs()],
            signals=self.signals,
        )
        osc.start()
        stack.callback(osc.stop)
        return osc

    def _start_controls(self, stack: contextlib.ExitStack) -> None:
        """The beat, modulators, the sound, the addresses of other programs, snapshots, cues, `/quit` and MIDI."""
        osc, telemetry, pacer, engine = self.config.osc, self.telemetry, self.publisher.pacer, self.supervisor
        lead = LeadTimes(
            self._stages,
            telemetry.snapshot,
            chunk_frames=lambda: engine.finished / max(1, engine.chunks),
            waited_ms=lambda: engine.waited_ms,
            period_ms=lambda: pacer.period_ms,
        )
        folder = state_dir(self.config.storage.state_dir)
        session = Session(folder / SESSION, telemetry.error).start()
        stack.callback(session.stop)
        session.keep(self.store, KEPT, chosen=self.config.controls)
        self.beat = TempoService(self.store, telemetry, lead.of).start()
        stack.callback(self.beat.stop)
        beat = self.beat
        self.modulation = Modulation(
            self.store, telemetry, self.signals, lambda: beat.tempo, beat.changes.lead_ns
        ).start()
        stack.callback(self.modulation.stop)
        self.audio = AudioService(self.store, telemetry, self.signals, self._playing).start()
        stack.callback(self.audio.stop)
        for name in osc.compat:
            server = CompatServer(
                self.store, self.telemetry, name, host=osc.host, port=osc.compat_port or None, gate=self._gate
            ).start()
            stack.callback(server.stop)
        self._newest = None
        self.snapshots = Snapshots(
            self.store, folder / SNAPSHOTS, telemetry.error, lambda: self._newest, self.beat.changes.later
        ).start()
        stack.callback(self.snapshots.stop)
        chosen = self.config.storage.cues
        path = Path(chosen).expanduser() if chosen else folder / CUES
        self.cues = Cues(self.store, telemetry, path, self.snapshots, self.beat, session, expected=bool(chosen)).start()
        stack.callback(self.cues.stop)
        stack.callback(obey_quit(self.store, self.quit.set))
        stack.callback(end_when_changed(self.store, self._stages))
        self.midi = MidiSwitch(
            self.store, folder / BINDINGS, telemetry.error, self.config.midi.port, self.beat, self.signals
        )
        stack.callback(self.midi.stop)
        self.midi.start(self.config.midi.enabled)

    def _start_web(self, stack: contextlib.ExitStack) -> WebProcess | None:
        """The page, which serves OSCQuery too."""
        web, snapshots = self.config.web, self.snapshots
        if not web.enabled:
            return None
        osc = self.osc.address if self.osc is not None else ("", 0)
        page = WebProcess(
            self.store,
            self.telemetry,
            *self._canvas(),
            host=web.host,
            port=web.port,
            token=web.token,
            outputs=self.config.output.uris,
            osc_host=osc[0],
            osc_port=osc[1],
            inputs=self.inputs,
            snapshots=lambda: SnapshotsStored(
                snapshots.numbers(), snapshots.names(), snapshots.colors(), snapshots.pictures()
            ),
            midi=self._midi_state,
            show=LiveShow(self.store, snapshots, self.midi, self.telemetry.error, self.cues),
            words=lambda: self._words,
            pending=lambda: ChangesPending(self.beat.changes.pending),
            cues=lambda: CuesTold.of(self.cues.cues),
            examples=web.examples,
            engine=offered(self.config.engine),
        )
        stack.callback(page.stop)
        page.start()
        self._announce(stack, page.port)
        return page

    def _start_oscquery(self, stack: contextlib.ExitStack) -> str:
        """OSCQuery at the page's address when there is no page; returns its URL, empty when it is not served."""
        web = self.config.web
        if web.enabled or not web.oscquery or self.osc is None:
            return ""
        # Imported here: it loads the web server, which only the web process does when there is a page.
        from bridge.control.oscquery.http import OscQueryServer

        token = token_for(web.host, web.token)
        server = OscQueryServer(
            self.store,
            self.telemetry,
            self.osc.address,
            host=web.host,
            port=web.port,
            guard=lambda served: Guard(served, web.host, token),
        ).start()
        stack.callback(server.stop)
        self._announce(stack, server.port)
        return page_url(web.host, server.port, token)

    def _announce(self, stack: contextlib.ExitStack, port: int) -> None:
        """Announce OSCQuery at this TCP port, and OSC, by mDNS."""
        web = self.config.web
        if not web.announce or self.osc is None:
            return
        announcement = Announcement("Tidecast", (web.host, port), self.osc.address)
        stack.callback(announcement.stop)
        try:
            announcement.start()
        except AnnounceError as error:
            self.telemetry.error("oscquery", str(error))

    def _canvas(self) -> Size:
        """The size of the output at the start; the model's size where the source decides, which is not known yet."""
        model = self.config.engine.width, self.config.engine.height
        return canvas_size(self.store.snapshot.of(CanvasControls).output_size, model, model)

    def _captured(self, frame: Frame, small: Frame) -> None:
        """Pass on a frame from the input: to the engine, the output's clock, the recorder and the page."""
        self.supervisor.feed(small)
        self.publisher.masks.feed(small)
        source = self.capture.info
        self.publisher.pacer.offer_dry(frame, time.monotonic_ns(), source.fps if source is not None else 0.0)
        self._record_and_show("input", frame)

    def _sent(self, frame: Frame) -> None:
        """Pass on a frame that was sent: to the recorder, the page and the next snapshot."""
        self._newest = frame
        self._record_and_show("output", frame)

    def _record_and_show(self, which: str, frame: Frame) -> None:
        self.recorder.offer(which, frame)
        if self.web is not None:
            self.web.offer(which, frame)

    def _midi_state(self) -> MidiState | None:
        midi = self.midi.input
        return MidiState(midi.learning, midi.knobs, midi.ports) if midi is not None else None

    def _playing(self) -> str:
        """The name of the NDI source whose picture comes in; empty if that is no NDI source."""
        source = self.capture.info
        return source.title if source is not None and source.uri.startswith("ndi:") else ""

    def _input_options(self) -> Options:
        return Options(extra_ips=self.config.input.extra_ips)

    def _on_event(self, event: EngineEvent) -> None:
        """Turn an event of the supervisor into telemetry."""
        match event:
            case Loading(text):
                self.telemetry.update(message=self.monitor.notice or text)
            case Ready(model, vocabulary):
                self._ever_ready = True
                self.capture.model = self.publisher.model = self.supervisor.size
                self._words = WordsKnown(vocabulary)
                self.telemetry.update(message=self.monitor.notice, model=model)
                self.switch.ready(event)
            case SizeFound(_, text):
                log.info("%s", text)
                self.monitor.notify(text)
            case ChangeFailed():
                self.switch.failed(event)
            case Health():
                self.monitor.health(event)
            case Complaint(topic, reason):
                self.telemetry.error(topic, reason)
            case Restarting(reason, retry_s):
                if not self._ever_ready:
                    self.failure = reason
                self.telemetry.error("engine", f"{reason} It starts again in {retry_s:.1f} s.")
                self.telemetry.update(message=reason)
            case _:
                assert_never(event)
