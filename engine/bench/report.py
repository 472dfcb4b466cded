"""How benchmarks speak: a table for people first, one JSON object for machines last. Also compares two such objects.

For the benchmarks of the bridge too, so it loads no torch by itself.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from engine.errors import ConfigError

WIDTH = 160
"""Columns that tables may take, wherever they are printed to."""

Row = Mapping[str, Any]
"""One measured configuration: settings and figures by name; nested mappings are figures by part."""


def machine() -> dict[str, Any]:
    """What the figures were measured on; with torch and the GPU where torch is loaded."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
            found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The values below which 50, 95 and 99 % of `values` lie; zeros of none."""
    return {f"p{share}": round(percentile(values or [0.0], share / 100), 2) for share in (50, 95, 99)}


def slashed(values: Mapping[str, float]) -> str:
    """Quantiles in ms as one text."""
    return " / ".join(f"{value:.1f}" for value in values.values()) + " ms"


def flat(row: Row, prefix: str = "") -> dict[str, Any]:
    """A row with its nested figures under dotted names."""
    result: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def show(title: str, rows: Sequence[Row], columns: Mapping[str, str], *, path: Path | None = None) -> None:
    """Print the rows as a table (`columns`: dotted name to heading), then everything as JSON; write it to `path`."""
    table = Table(title=title)
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row in rows:
        figures = flat(row)
        table.add_row(*(_shown(figures.get(name)) for name in columns))
    _print(title, table, rows, path)


def say(title: str, lines: Sequence[Sequence[str]], rows: Sequence[Row], headings: Sequence[str] = ("", "")) -> None:
    """Print `lines` as a table as they are, then `rows` as JSON."""
    table = Table(title=title, show_header=any(headings))
    for heading in headings:
        table.add_column(heading)
    for line in lines:
        table.add_row(*line)
    _print(title, table, rows)


def _print(title: str, table: Table, rows: Sequence[Row], path: Path | None = None) -> None:
    Console(width=WIDTH).print(table)
    text = json.dumps({"benchmark": title, "machine": machine(), "rows": [dict(row) for row in rows]}, default=str)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def read(path: Path) -> dict[str, Any]:
    """Read a benchmark's JSON, also from a log whose last line it is.

    Raises:
        ConfigError: if the file has none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])
        if not isinstance(found["rows"], list):
            raise TypeError("rows is not a list")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no benchmark ({error}).", "Make one with: tidecast bench ... --json FILE."
        ) from None
    return found


def compare(before: Path, after: Path) -> None:
    """Print every figure that both files have for the same settings, with the ratio after / before."""
    old, new = read(before), read(after)
    table = Table(title=f"{before.name} -> {after.name}")
    for heading in ("configuration", "figure", "before", "after", "ratio"):
        table.add_column(heading)
    pairs = 0
    for key, row in {_key(r): r for r in new["rows"]}.items():
        other = next((r for r in old["rows"] if _key(r) == key), None)
        if other is None:
            continue
        first, second = flat(other), flat(row)
        for name, value in second.items():
            was = first.get(name)
            if isinstance(value, float) and isinstance(was, (int, float)) and was:
                table.add_row(key, name, _shown(float(was)), _shown(value), f"{value / was:.2f}")
                pairs += 1
    if not pairs:
        raise ConfigError("The two files have no configuration in common.", "Run the same benchmark twice.")
    Console(width=WIDTH).print(table)


def _key(row: Row) -> str:
    """Settings of a row: everything that is not a measured (floating point) figure."""
    return " ".join(f"{k}={v}" for k, v in flat(row).items() if isinstance(v, (str, int, bool)))
