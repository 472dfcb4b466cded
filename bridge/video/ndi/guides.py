"""How to receive an NDI output in other programs, and how to send from them to Tidecast."""

from __future__ import annotations

from bridge.video.base import Guide


def steps(sender: str) -> tuple[Guide, ...]:
    """The guides for an output that other programs list as `sender`."""
    return (
        Guide(
            "OBS",
            (
                "Install the plug-in DistroAV (formerly OBS-NDI) and restart OBS.",
                f"Sources, +, NDI Source: choose “{sender}”.",
                "To send OBS into Tidecast: Tools, DistroAV settings, switch Main Output on; then choose it here "
                "under Input.",
            ),
            (sender,),
        ),
        Guide(
            "Resolume",
            (
                f"Arena or Avenue 7: open the tab Sources and drag “{sender}” onto a clip.",
                "Back into Tidecast: switch NDI on in the menu Output, Composition Output Sharing; then choose it here "
                "under Input.",
            ),
            (sender,),
        ),
        Guide(
            "TouchDesigner",
            (
                f"Add an NDI In TOP and choose “{sender}” as its Source Name.",
                "Back into Tidecast: an NDI Out TOP; its Source Name appears here under Input.",
                "Or let the component do both: run tidecast td install and drag Tidecast in from the palette.",
            ),
            (sender,),
        ),
    )
