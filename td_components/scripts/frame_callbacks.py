"""Called by this Execute DAT at every frame, when the project has opened, and when TouchDesigner quits."""


def onStart():
    """Tell the extension that the project has opened."""
    parent().ext.TidecastExt.OnStart()  # noqa: F821


def onFrameStart(frame):
    """Let the extension do its work for this frame."""
    parent().ext.TidecastExt.OnFrame()  # noqa: F821


def onExit():
    """Let the extension end what it started."""
    parent().ext.TidecastExt.OnExit()  # noqa: F821
