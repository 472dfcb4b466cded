"""`python3 -m tests`: prepares a fresh checkout and runs the tests. Options go to pytest.

`--prepare` only prepares. `--soak MINUTES` also runs the soak (`tidecast bench soak`) beside the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys

from bridge import bootstrap


def main(arguments: list[str]) -> int:
    """Run the tests (and the soak beside them); return the exit code."""
    if arguments == ["--prepare"]:
        return 0
    soak = None
    if "--soak" in arguments:
        at = arguments.index("--soak")
        minutes = arguments[at + 1]
        del arguments[at : at + 2]
        command = [sys.executable, "-m", "bridge", "bench", "soak", "--minutes", minutes]
        soak = subprocess.Popen(command, cwd=bootstrap.ROOT)
    try:
        os.environ.setdefault("OMP_NUM_THREADS", "2")
        code = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=bootstrap.ROOT).returncode
        return code or (soak.wait() if soak else 0)
    finally:
        if soak and soak.poll() is None:
            soak.terminate()
            soak.wait(10)


if __name__ == "__main__":
    bootstrap.ensure("tests")
    sys.exit(main(sys.argv[1:]))
