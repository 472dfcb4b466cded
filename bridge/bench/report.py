"""How the bridge's benchmarks speak: a table for people first, one line of JSON last."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The values below which 50, 95 and 99 % of `values` lie; zeros of none."""
    ordered = sorted(values) or [0.0]
    return {
        f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 2) for share in (50, 95, 99)
    }


def slashed(values: Mapping[str, float]) -> str:
    """Quantiles in ms as one text."""
    return " / ".join(f"{value:.1f}" for value in values.values()) + " ms"


def say(title: str, rows: Sequence[Sequence[str]], figures: Any, headings: Sequence[str] = ("", "")) -> None:
    """Print `rows` as a table, then `figures` with the machine they were measured on as one line of JSON."""
    table = Table(title=title, show_header=any(headings))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(json.dumps({"title": title, "machine": machine(), "figures": figures}))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
    }
