"""Your functions: copy this DAT, edit it, and enter its path at Callback DAT. Each may be left out."""


def onReady(comp):
    """Tidecast is ready to restyle and has been sent every value."""


def onError(comp, topic, reason):
    """Tidecast reports an error; `reason` says what is wrong and what to do."""


def onPromptDone(comp, text):
    """The prompt `text` has been encoded and is in force."""
