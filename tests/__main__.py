"""`python3 -m tests`: prepares a fresh checkout and runs the tests. Options go to pytest; `--prepare` only prepares."""

from __future__ import annotations

import os
import sys

from bridge import bootstrap

IN_PARALLEL = ("-n", "logical", "--maxprocesses", "4", "--dist", "worksteal")
"""One worker process a core: while a real-time test of one worker waits, another computes. `-n 0` runs them one by one.

A worker's tests keep their order, so that the tests of a module share what it prepares.
"""


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit code."""
    import pytest

    os.chdir(bootstrap.ROOT)
    return 0 if arguments == ["--prepare"] else int(pytest.main([*IN_PARALLEL, *arguments]))


if __name__ == "__main__":
    bootstrap.ensure("tests")
    sys.exit(main(sys.argv[1:]))
