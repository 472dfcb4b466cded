"""The recorder of a running bridge: it obeys the controls of the recording, and the telemetry tells what it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.control.origin import INTERNAL, Origin
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.pipeline.canvas.size import Size
from bridge.video.files.record import Recorder
from bridge.video.files.record_controls import RecordControls

log = logging.getLogger(__name__)


def recorder_of(store: ControlStore, telemetry: Telemetry, size: Size, folder: Path, fps: float) -> Recorder:
    """A recorder whose files the telemetry tells; it switches the control `record` off when it has ended by itself.

    Args:
        store: the live controls.
        telemetry: receives the names of the files, and what goes wrong.
        size: width and height in pixels.
        folder: where the files go.
        fps: rate of the output in 1/s.
    """

    def status(files: str) -> None:
        before = telemetry.snapshot().get("recording", "")
        telemetry.update(recording=files)
        if before and not files:
            telemetry.update(recorded=before)
            log.info("recorded: %s", before)
        if not files and store.snapshot.of(RecordControls).record:
            store.set("record", False, INTERNAL)

    def trouble(text: str) -> None:
        telemetry.error("record", text)

    return Recorder(*size, folder, status=status, trouble=trouble, fps=fps)


def obey_record(store: ControlStore, recorder: Recorder) -> Callable[[], None]:
    """Have the recorder obey its controls; returns a function that ends it."""

    def want(name: str, value: Any, origin: Origin) -> None:
        if name in ("record", "record_input"):
            wanted = store.snapshot.of(RecordControls)
            recorder.want(wanted.record, wanted.record_input)

    return store.listen(want)
