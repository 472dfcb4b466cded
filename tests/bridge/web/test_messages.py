"""Messages between the bridge process and the web process: mypy finds a match that leaves one out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXTENSION = """
from dataclasses import dataclass
from typing import assert_never
from bridge.web.messages import Alive, FindInputs, FromWeb, OpenShow, SaveShow, Say, Serving, Watch

@dataclass(frozen=True)
class Applause:
    seconds: float

def obey(message: FromWeb | Applause) -> None:
    match message:
        case Alive() | FindInputs() | OpenShow() | SaveShow() | Say() | Serving() | Watch():
            pass
        case _:
            assert_never(message)
"""


def test_mypy_refuses_a_match_that_leaves_a_message_out(tmp_path: Path):
    path = tmp_path / "extension.py"
    path.write_text(EXTENSION)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(path)]
    assert '"Applause"' in subprocess.run(command, capture_output=True, text=True, check=False).stdout
