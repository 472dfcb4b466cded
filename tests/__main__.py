"""`python3 -m tests`: prepares a fresh checkout and runs the tests. Options go to pytest; `--prepare` only prepares."""

from __future__ import annotations

import os
import sys

from bridge import bootstrap


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit code."""
    import pytest

    os.chdir(bootstrap.ROOT)
    return 0 if arguments == ["--prepare"] else int(pytest.main(arguments))


if __name__ == "__main__":
    bootstrap.ensure("tests")
    sys.exit(main(sys.argv[1:]))
