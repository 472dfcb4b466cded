"""`python3 -m tests`: prepares a fresh checkout and runs the tests. Options go to pytest; `--prepare` only prepares."""

from __future__ import annotations

import os
import sys

from bridge import bootstrap

WORKERS = min(4, (os.cpu_count() or 1) + 1)
"""One more than there are cores: tests of whole programs wait for most of their time. `-n 0` runs them one by one."""

IN_PARALLEL = ("-n", str(WORKERS), "--dist", "worksteal")
"""A worker's tests keep their order, so that the tests of a module share what it prepares."""


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit code."""
    import pytest

    from bridge.process.priority import raised_session

    os.chdir(bootstrap.ROOT)
    if arguments == ["--prepare"]:
        return 0
    with raised_session():  # as the program does when it starts
        return int(pytest.main([*IN_PARALLEL, *arguments]))


if __name__ == "__main__":
    bootstrap.ensure("tests")
    sys.exit(main(sys.argv[1:]))
