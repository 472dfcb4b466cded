"""Recording: joins the recorder to the controls that switch it on, and to the telemetry."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import platformdirs

from bridge.config import AppConfig
from bridge.control.origin import INTERNAL, Origin
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.video.files.record import Recorder
from bridge.video.files.record_controls import RecordControls
from engine.config import long_folder

log = logging.getLogger(__name__)


def start_recorder(
    stack: contextlib.ExitStack, config: AppConfig, store: ControlStore, telemetry: Telemetry, size: tuple[int, int]
) -> Recorder:
    """A recorder that obeys the controls.

    Args:
        stack: closes it.
        config: names the folder.
        store: the live controls.
        telemetry: receives the files and the errors.
        size: width and height of the output at the start, in pixels.
    """
    folder = Path(config.storage.record_dir or platformdirs.user_videos_path() / "Tidecast").expanduser()

    def status(files: str) -> None:
        before = telemetry.snapshot().get("recording", "")
        telemetry.update(recording=files)
        if before and not files:
            telemetry.update(recorded=before)
            log.info("recorded: %s", before)
        if not files and store.snapshot.of(RecordControls).record:
            store.set("record", False, INTERNAL)

    recorder = Recorder(
        *size,
        long_folder(folder),
        status=status,
        trouble=lambda text: telemetry.error("record", text),
        fps=config.output.fps or 30.0,
    )
    stack.callback(recorder.close)

    def want(name: str, value: Any, origin: Origin) -> None:
        if name in ("record", "record_input"):
            wanted = store.snapshot.of(RecordControls)
            recorder.want(wanted.record, wanted.record_input)

    stack.callback(store.listen(want))
    return recorder
