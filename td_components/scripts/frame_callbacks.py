"""Called by this Execute DAT once per frame, when the project has opened and when TouchDesigner quits."""


def onStart():
    """Let the extension know that the project has opened."""
    parent().ext.TidecastExt.OnStart()  # noqa: F821


def onFrameStart(frame):
    """Let the extension do what is due."""
    parent().ext.TidecastExt.OnFrame()  # noqa: F821


def onExit():
    """Let the extension end what it started."""
    parent().ext.TidecastExt.OnExit()  # noqa: F821
