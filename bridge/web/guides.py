"""How to get the picture into and out of other programs, with this show's own names filled in.

Pure text: no socket, no clock. The control room's onboarding shows it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Names:
    """What other programs have to choose.

    Attributes:
        machine: this machine's name as NDI shows it (upper case).
        output: URI of the output, such as `ndi:Tidecast`.
        osc_host, osc_port: where OSC is listened for; port 0 when it is not.
    """

    machine: str
    output: str
    osc_host: str
    osc_port: int

    @property
    def transport(self) -> str:
        """Scheme of the output, as in `bridge.video.table`."""
        return self.output.partition(":")[0]

    @property
    def bare(self) -> str:
        """The output's own name."""
        return self.output.partition(":")[2] or "Tidecast"

    @property
    def sender(self) -> str:
        """The name under which other programs list the output."""
        return f"{self.machine} ({self.bare})" if self.transport == "ndi" else self.bare


@dataclass(frozen=True, slots=True)
class Guide:
    """Steps for one program; `{}`-free plain sentences. `copy` are the strings that one pastes or looks for."""

    program: str
    steps: tuple[str, ...]
    copy: tuple[str, ...]


def guides(names: Names) -> list[dict[str, Any]]:
    """The guides as JSON-ready dicts, in the order in which the page shows them."""
    return [asdict(g) for g in (*_pictures(names), _osc(names))]


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


def _pictures(names: Names) -> tuple[Guide, ...]:
    if names.transport == "ndi":
        return (
            Guide(
                "OBS",
                (
                    "Install the plug-in DistroAV (formerly OBS-NDI) and restart OBS.",
                    f"Sources, +, NDI Source: choose “{names.sender}”.",
                    "To send OBS into Tidecast: Tools, DistroAV settings, switch Main Output on; then choose it here "
                    "under Input.",
                ),
                (names.sender,),
            ),
            Guide(
                "Resolume",
                (
                    f"Arena or Avenue: open Sources, Capture Devices, and drag “{names.sender}” onto a clip.",
                    "Back into Tidecast: Output, Network Streaming (NDI), switch on; then choose it here under Input.",
                ),
                (names.sender,),
            ),
            Guide(
                "TouchDesigner",
                (
                    f"Add an NDI In TOP and choose “{names.sender}” as its Source Name.",
                    "Back into Tidecast: an NDI Out TOP; its Source Name appears here under Input.",
                    "Or let the component do both: run tidecast td install and drag Tidecast in from the palette.",
                ),
                (names.sender,),
            ),
        )
    if names.transport in ("spout", "syphon"):
        kind = names.transport.capitalize()
        plugin = "Spout2 Capture (plug-in)" if kind == "Spout" else "Syphon Client"
        return (
            Guide("OBS", (f"Sources, +, {plugin}: choose “{names.bare}”.",), (names.bare,)),
            Guide(
                "Resolume",
                (f"Open Sources, {kind}, and drag “{names.bare}” onto a clip.",),
                (names.bare,),
            ),
            Guide(
                "TouchDesigner",
                (f"Add a Syphon Spout In TOP and choose “{names.bare}” as its Sender Name.",),
                (names.bare,),
            ),
        )
    return (
        Guide(
            "Other programs",
            (
                f"This show's output is “{names.output}”, which other programs cannot see.",
                "Start Tidecast with --output ndi:Tidecast to get the picture into OBS, Resolume or TouchDesigner.",
            ),
            ("--output ndi:Tidecast",),
        ),
    )
