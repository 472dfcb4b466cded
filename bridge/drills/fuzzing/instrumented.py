"""Imported by the process from which guided workers are forked: all targets, as atheris instruments them.

That takes seconds; each fork has it already.
"""

from __future__ import annotations

import contextlib
import io

import atheris

from bridge.drills.fuzzing.worker import MEASURED

told = io.StringIO()  # atheris names every module
with contextlib.redirect_stderr(told), atheris.instrument_imports(include=list(MEASURED)):
    import bridge.drills.fuzzing.targets  # noqa: F401
