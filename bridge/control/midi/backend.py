"""The mido backend for this version of Python. mido itself is imported only when a backend is opened."""

from __future__ import annotations

import logging
import sys
from typing import Any

from engine.errors import TidecastError

log = logging.getLogger(__name__)


class MidiError(TidecastError):
    """MIDI cannot be used on this machine."""


BACKEND = "mido.backends.rtmidi" if sys.version_info < (3, 13) else "bridge.control.midi.rtmidi2_backend"
"""See the extra `midi` in pyproject.toml."""


def open_backend(name: str = BACKEND) -> Any:
    """The mido backend of this module name, loaded and checked.

    Raises:
        MidiError: if the packages are not installed, or the system has no MIDI.
    """
    try:
        import mido

        backend = mido.Backend(name, load=True)
        backend.get_input_names()
    except ImportError as error:
        raise MidiError(f"MIDI is not installed ({error.name}).", "Run: pip install 'tidecast[midi]'.") from error
    except OSError as error:
        raise MidiError(
            f"This system has no MIDI ({error}).", "On Linux load the ALSA sequencer: sudo modprobe snd-seq."
        ) from error
    return backend


def send_control(output: Any, channel: int, number: int, value: int) -> None:
    """Send a controller's value (0 to 127) on a channel (1 to 16). That a port was unplugged is no error."""
    import mido

    try:
        output.send(mido.Message("control_change", channel=channel - 1, control=number, value=value))
    except (OSError, ValueError) as error:
        log.debug("MIDI feedback: %s", error)
