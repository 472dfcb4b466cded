"""Your functions: copy this DAT, write into it, and name it at Callback DAT. Each may be left out."""


def onReady(comp):
    """Tidecast can restyle now and has been sent every value."""


def onError(comp, topic, reason):
    """Tidecast reports an error; `reason` says what was wrong and what to do."""


def onPromptDone(comp, text):
    """The prompt `text` has been encoded and is in force."""
