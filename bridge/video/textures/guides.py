"""How to receive a Spout or Syphon output in other programs."""

from __future__ import annotations

from bridge.video.base import Guide


def steps(sender: str, kind: str, obs_source: str) -> tuple[Guide, ...]:
    """The guides for an output.

    Args:
        sender: the name under which other programs list it.
        kind: "Spout" or "Syphon".
        obs_source: what OBS calls a source of this kind.
    """
    return (
        Guide("OBS", (f"Sources, +, {obs_source}: choose “{sender}”.",), (sender,)),
        Guide("Resolume", (f"Arena or Avenue 7: open the tab Sources and drag “{sender}” onto a clip.",), (sender,)),
        Guide("TouchDesigner", (f"Add a Syphon Spout In TOP and choose “{sender}” as its Sender Name.",), (sender,)),
    )
