"""Called by this Parameter Execute DAT when a parameter of the component changes or a pulse is pressed."""


def onValueChange(par, prev):
    """Pass a changed parameter on to the extension."""
    parent().ext.TidecastExt.OnValue(par)  # noqa: F821


def onPulse(par):
    """Pass a pulse on to the extension."""
    parent().ext.TidecastExt.OnPulse(par)  # noqa: F821
