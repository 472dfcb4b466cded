"""The folder in which Tidecast keeps what it can get or compute again: weights and encoded prompts."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from engine.config import long_folder

VARIABLE = "TIDECAST_CACHE"
"""Environment variable that names another folder; the portable folder for Windows sets it to one in itself."""


def cache_folder() -> Path:
    """The folder that `TIDECAST_CACHE` names, or else Tidecast's folder among the user's caches."""
    named = os.environ.get(VARIABLE, "")
    return long_folder(Path(named) if named else platformdirs.user_cache_path("tidecast"))
