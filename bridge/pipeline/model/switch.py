"""Between the controls of the model and the supervisor: what is chosen goes one way, what came of it the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.control.origin import INTERNAL, Origin
from bridge.control.store import ControlStore
from bridge.pipeline.canvas.size import CanvasControls, parse
from bridge.pipeline.model.own_loras import OwnLoras
from bridge.process.engine.auto_size import ladder
from bridge.process.engine.choice import EngineControls, SizeTrial, size_text
from bridge.process.messages import ChangeFailed, Ready
from bridge.process.supervisor import Supervisor
from bridge.video.base import SourceInfo
from engine.control import PREFIX
from engine.controls import Controls

USUAL_ASPECT, USUAL_FPS = 16 / 9, 30.0
"""What is assumed of a source as long as it has not said it."""


class ModelSwitch:
    """Has the supervisor start the model and the size that are chosen, and keeps the controls true.

    Args:
        store: live controls.
        supervisor: keeps the engine process.
        source: returns the source that is open; None if there is none.
        fps: output rate in 1/s; 0 for the source's.
        loras: moves the LoRAs that come with a model.
        tell: called with (address, text) about what could not be obeyed as it was asked.
        notify: called with a sentence for the message of the state.
    """

    def __init__(
        self,
        store: ControlStore,
        supervisor: Supervisor,
        source: Callable[[], SourceInfo | None],
        fps: float,
        loras: OwnLoras,
        tell: Callable[[str, str], None],
        notify: Callable[[str], None],
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._source = source
        self._fps = fps
        self._loras = loras
        self._chosen = store.snapshot.of(EngineControls).engine_model
        self._tell = tell
        self._notify = notify
        self._model = ""  # that was open last

    def follow(self) -> Callable[[], None]:
        """Obey the controls from now on, and what they say now; returns a function that ends it."""
        unlisten = self._store.listen(self._changed)
        self._obey()
        return unlisten

    def ready(self, event: Ready) -> None:
        """A model is open. If it is another one than before and takes fewer steps than are chosen, lower the control;
        not so at the start, when the control only says more than the configuration allows."""
        before, self._model = self._model, event.model
        now = self._store.snapshot
        wanted, most = now.of(Controls).steps, event.most_steps
        if before in ("", event.model) or wanted <= most or now.of(EngineControls).engine_model != event.model:
            return
        self._store.set("steps", most, INTERNAL)
        text = f"{event.model} takes {most} {'step' if most == 1 else 'steps'} at most, so {wanted} became {most}."
        self._say(f"{PREFIX}/steps", text)

    def failed(self, event: ChangeFailed) -> None:
        """What was chosen could not be started: set the controls to what runs again, unless they were changed since."""
        if self._store.snapshot.of(EngineControls).choice == event.failed:
            back = {"engine_model": event.back.model, "engine_size": size_text(event.back.size)}
            self._store.set_many(back, INTERNAL)
        name = "model" if event.failed.model != event.back.model else "size"
        text = f"{event.failed} could not be started, so {event.back} goes on: {event.reason}"
        self._say(f"{PREFIX}/engine/{name}", text)

    def trial(self) -> SizeTrial:
        """The sizes that are measured where the size is left open: of the output's aspect ratio, at its rate.

        An output of the model's size has the source's aspect ratio.
        """
        source = self._source()
        canvas = parse(self._store.snapshot.of(CanvasControls).output_size)
        aspect, fps = USUAL_ASPECT, USUAL_FPS
        if source is not None:
            aspect = source.width / source.height if source.width and source.height else aspect
            fps = source.fps or fps
        if isinstance(canvas, tuple):
            aspect = canvas[0] / canvas[1]
        return SizeTrial(ladder(aspect), min(fps, self._fps) if self._fps else fps)

    def _changed(self, name: str, value: Any, origin: Origin) -> None:
        if name == "engine_model" and value != self._chosen:
            before, self._chosen = self._chosen, value
            self._loras.change(before, value)
        if name in ("engine_model", "engine_size"):
            self._obey()

    def _obey(self) -> None:
        self._supervisor.want(self._store.snapshot.of(EngineControls).choice)

    def _say(self, address: str, text: str) -> None:
        self._tell(address, text)
        self._notify(text)
