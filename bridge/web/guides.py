"""How to get the picture into other programs, and how to control the show by OSC, with this show's names filled in.

The guides for the picture come from the output's transport. The page shows them under Connect.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bridge.video import opening
from bridge.video.base import Guide


@dataclass(frozen=True, slots=True)
class Names:
    """The names and addresses that other programs have to be given.

    Attributes:
        machine: this machine's name in its network.
        outputs: URIs of the outputs, such as `ndi:Tidecast`.
        osc_host, osc_port: where Tidecast listens for OSC; port 0 when it does not.
        page: address of the page with the output alone; empty while it is not known.
    """

    machine: str
    outputs: tuple[str, ...]
    osc_host: str
    osc_port: int
    page: str = ""


def guides(names: Names) -> list[dict[str, Any]]:
    """The guides as JSON, in the order in which the page shows them."""
    pictures = [guide for uri in names.outputs for guide in opening.guides(uri)] or [_no_picture(names.outputs)]
    return [asdict(guide) for guide in (*pictures, *_browser(names), _osc(names))]


def _browser(names: Names) -> tuple[Guide, ...]:
    if not names.page:
        return ()
    steps = (
        "Add a browser source (OBS: Sources, +, Browser) with this address, or open it on any screen of the network "
        "that reaches this machine.",
        "It shows the output alone, at the model's size and up to 60 times a second, and black when it is lost. "
        "NDI is faster and clearer where the program takes it.",
    )
    return (Guide("A browser source", steps, (names.page,)),)


def _no_picture(outputs: tuple[str, ...]) -> Guide:
    return Guide(
        "Other programs",
        (
            f"This show's output is “{', '.join(outputs)}”, which other programs cannot see.",
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
            f"From this machine or another in the network, send OSC by UDP to {names.machine}, or its IP address, "
            f"port {port}: TouchOSC, {programs}.",
            "Other machines are obeyed only if Tidecast was started with --osc-allow and their addresses.",
        )
        host = names.machine
    elif host.startswith("127.") or host in ("localhost", "::1"):
        steps = (
            f"From this machine, send OSC by UDP to {host}, port {port}: {programs}.",
            "From another machine, such as TouchOSC on a tablet: start Tidecast with -c network --osc-allow and "
            "the other machine's address.",
        )
    else:
        steps = (f"Send OSC by UDP to {host}, port {port}: TouchOSC, {programs}.",)
    return Guide(
        "OSC",
        (
            *steps,
            "Try /tidecast/prompt with the text “fire”, then /tidecast/strength with 0.8.",
            "Every numeric control also has …/norm (0 to 1) and …/midi (0 to 127).",
            "To receive echoes and telemetry, send /tidecast/subscribe with your own port.",
        ),
        (f"{host}:{port}", "/tidecast/prompt", "/tidecast/strength"),
    )
