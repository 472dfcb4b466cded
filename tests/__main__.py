"""`python3 -m tests`: prepares a fresh checkout and runs the tests. Options go to pytest; `--prepare` only prepares.

First all tests run side by side, but for those that measure time at an output (`pytest.mark.alone`); then these, one by
one.
"""

from __future__ import annotations

import os
import sys

from bridge import bootstrap

WORKERS = min(4, (os.cpu_count() or 1) + 1)
"""One more than there are cores: tests of whole programs wait for most of their time. `-n 0` runs them one by one."""

IN_PARALLEL = ("-n", str(WORKERS), "--dist", "worksteal")
"""A worker's tests keep their order, so that the tests of a module share what it prepares."""

ONE_BY_ONE = ("-n", "0")


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit code."""
    import pytest
    from pytest import ExitCode

    from bridge.process.priority import raised_session

    os.chdir(bootstrap.ROOT)
    if arguments == ["--prepare"]:
        return 0
    # Or each worker would rewrite the assertions of all modules, and each program that a test starts compile its own.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    codes = []
    with raised_session():  # as the program does once it runs
        for options in ([*IN_PARALLEL, *arguments, "--alone", "no"], [*arguments, *ONE_BY_ONE, "--alone", "only"]):
            code = pytest.main(options)
            if code not in (ExitCode.OK, ExitCode.TESTS_FAILED, ExitCode.NO_TESTS_COLLECTED):
                return int(code)
            codes.append(code)
    return int(max((code for code in codes if code != ExitCode.NO_TESTS_COLLECTED), default=code))


if __name__ == "__main__":
    bootstrap.ensure("tests")
    sys.exit(main(sys.argv[1:]))
