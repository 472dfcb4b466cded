"""How to get the picture into and out of other programs, and how to drive the show, with its own names filled in.

What concerns the picture is asked of the output's transport. The control room's onboarding shows it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bridge.video import opening
from bridge.video.base import Guide


@dataclass(frozen=True, slots=True)
class Names:
    """What other programs have to choose.

    Attributes:
        machine: this machine's name in its network.
        output: URI of the output, such as `ndi:Tidecast`.
        osc_host, osc_port: where OSC is listened for; port 0 when it is not.
    """

    machine: str
    output: str
    osc_host: str
    osc_port: int


def guides(names: Names) -> list[dict[str, Any]]:
    """The guides as JSON-ready dicts, in the order in which the page shows them."""
    pictures = opening.guides(names.output) or (_unseen(names.output),)
    return [asdict(guide) for guide in (*pictures, _osc(names))]


def _unseen(output: str) -> Guide:
    return Guide(
        "Other programs",
        (
            f"This show's output is “{output}”, which other programs cannot see.",
            "Start Tidecast with --output ndi:Tidecast to get the picture into OBS, Resolume or TouchDesigner.",
        ),
        ("--output ndi:Tidecast",),
    )


def _osc(names: Names) -> Guide:
    host, port = names.osc_host, names.osc_port
    if not port:
        return Guide("OSC", ("OSC is off in this show: osc.enabled is false in its configuration.",), ())
    steps: tuple[str, ...]
    programs = "Chataigne, Ableton, QLab or a script"
    if host in ("0.0.0.0", "::"):
        steps = (
            f"From this machine or another in the network send OSC by UDP to {names.machine}, or its IP address, "
            f"port {port}: TouchOSC, {programs}.",
        )
        host = names.machine
    elif host.startswith("127.") or host in ("localhost", "::1"):
        steps = (
            f"From this machine send OSC by UDP to {host}, port {port}: {programs}.",
            "From another machine, such as TouchOSC on a tablet: start Tidecast with -c network.",
        )
    else:
        steps = (f"Send OSC by UDP to {host}, port {port}: TouchOSC, {programs}.",)
    return Guide(
        "OSC",
        (
            *steps,
            "Try /tidecast/prompt with the text “fire”, then /tidecast/strength with 0.8.",
            "Every numeric control also has …/norm (0 to 1) and …/midi (0 to 127).",
            "For echoes and telemetry send /tidecast/subscribe with your own port.",
        ),
        (f"{host}:{port}", "/tidecast/prompt", "/tidecast/strength"),
    )
