"""`DIALECTS`: the programs whose addresses are understood. To add one, add a module and its row here."""

from __future__ import annotations

from bridge.control.compat.abletonosc import AbletonOsc
from bridge.control.compat.dialect import Dialect
from bridge.control.compat.resolume import Resolume
from bridge.control.compat.scope import Scope
from bridge.control.compat.streamdiffusiontd import StreamDiffusionTd

DIALECTS: dict[str, type[Dialect]] = {d.name: d for d in (StreamDiffusionTd, Scope, Resolume, AbletonOsc)}
"""The choices of `--compat`, by name."""
