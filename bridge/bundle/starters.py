"""The files at the top of the portable folder: what is double-clicked, and README.txt.

The command files are ASCII and name everything by the folder they lie in (`%~dp0`), so that they work from any path.
"""

from __future__ import annotations

from pathlib import Path

CACHE = "cache"
"""The folder of weights and encoded prompts in the portable folder."""

_COMMAND = """\
@echo off
setlocal
set "TIDECAST_CACHE=%~dp0cache"
{before}"%~dp0python\\python.exe" -m bridge {command}
{after}
"""
_STAY = "if errorlevel 1 pause"
_SHOW = """\
set "SHOW="
if exist "%~dp0show.toml" set SHOW=-c "%~dp0show.toml"
"""

STARTERS = {
    "Demo.cmd": _COMMAND.format(before="", command="demo %*", after=_STAY),
    "Run.cmd": _COMMAND.format(before=_SHOW, command="run %SHOW% %*", after=_STAY),
    "Doctor.cmd": _COMMAND.format(before="", command="doctor %*", after="pause"),
    "Install into TouchDesigner.cmd": _COMMAND.format(before="", command="td install %*", after="pause"),
    "tidecast.cmd": _COMMAND.format(before="", command="%*", after="exit /b %errorlevel%"),
}
"""Name of each command file and its text."""

README = """\
Tidecast {version}, a folder that needs no installation, no administrator and no internet.
Windows 10 or 11, 64 bits. Torch: {torch}.

1. Copy this folder anywhere: a disk, a USB stick.
2. Double-click Demo.cmd. If Windows warns of a file from the internet: More info, Run anyway. If the firewall asks,
   allow private networks: NDI needs it.
3. Open http://127.0.0.1:9001/ in a browser. Type "fire" into Prompt 1.

Demo.cmd                        a moving test picture, restyled
Run.cmd                         your picture; with the settings in show.toml if that file lies here
Doctor.cmd                      checks this computer and says what is missing
Install into TouchDesigner.cmd  puts the component into TouchDesigner's palette
tidecast.cmd                    every command, in a terminal: tidecast.cmd sources

Weights and encoded prompts are in the folder cache. Recordings go to your Videos folder, snapshots to your profile.
LICENCES.txt says what is in here and on which terms you may pass it on.

Such a folder was run under Wine. Nobody has run it on Windows or with a GPU yet.
"""


def write(folder: Path, *, version: str, torch: str) -> None:
    """Write the command files and README.txt, with the line ends of Windows."""
    for name, text in {**STARTERS, "README.txt": README.format(version=version, torch=torch)}.items():
        (folder / name).write_text(text, "ascii", newline="\r\n")
