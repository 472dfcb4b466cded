"""Says, once when it begins, that transparency does not leave: no output sends it, or one cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridge.pipeline.alpha.controls import LEFT_OUT, OFF
from bridge.video.table import sends_alpha
from engine.control import PREFIX

TOPIC = f"{PREFIX}/output/alpha"

SWITCH_ON = "The picture is cut out, but no output sends transparency: set output alpha to straight or premultiplied."


class Told:
    """What was told last.

    Args:
        outputs: the addresses of the outputs.
        tell: called with (topic, text).
    """

    def __init__(self, outputs: Sequence[str], tell: Callable[[str, str], None]) -> None:
        self._opaque = ", ".join(uri for uri in outputs if not sends_alpha(uri))
        self._tell = tell
        self._text = ""

    def unable(self, state: str) -> str:
        """The outputs that send the whole picture instead, or an empty string; tells it when that is new.

        Args:
            state: one of `bridge.pipeline.alpha.controls.STATES`.
        """
        unable = "" if state in (OFF, LEFT_OUT) else self._opaque
        text = f"{unable} cannot send transparency, and sends the whole picture." if unable else ""
        if state == LEFT_OUT:
            text = SWITCH_ON
        if text and text != self._text:
            self._tell(TOPIC, text)
        if text or state != OFF:  # while the input is shown nothing is cut out; that is no news
            self._text = text
        return unable
