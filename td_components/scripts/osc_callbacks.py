"""Called by the DAT osc_in for every message from Tidecast."""


def onReceiveOSC(dat, rowIndex, message, bytes, timeStamp, address, args, peer):
    """Pass a message on to the extension."""
    parent().ext.TidecastExt.OnMessage(address, args)  # noqa: F821
