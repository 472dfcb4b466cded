"""What a module decides by the platform when it is imported, on another one than this."""

from __future__ import annotations

import runpy
import sys
from types import ModuleType
from typing import Any

import pytest


def constants_on(platform: str, module: ModuleType) -> dict[str, Any]:
    """The names of a module that is executed once more where `sys.platform` has this value; `module` is unchanged."""
    assert module.__file__ is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        return runpy.run_path(module.__file__)
