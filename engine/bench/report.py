"""Output of the benchmarks: a table for readers, then one JSON object as the last line. Also compares two such objects.

The benchmarks of the bridge use it too, so it does not import torch.
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
"""Width of tables in characters, independent of the terminal."""

Row = Mapping[str, Any]
"""One measured configuration: settings and figures by name. A nested mapping holds figures by part."""


def machine() -> dict[str, Any]:
    """Description of this machine, with torch and the GPU if torch has been imported."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "load": _load(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
            found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    return found


def _load() -> float | None:
    """Average number of programs that want to run; None where the system does not count them."""
    try:
        return round(psutil.getloadavg()[0], 2)
    except (OSError, RuntimeError):  # Windows with its performance counters disabled
        return None


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a `share` (0 to 1) of the values lies; NaN if there are no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 95th and 99th percentile by name ("p50", ...); zeros if there are no values."""
    return {f"p{share}": round(percentile(values or [0.0], share / 100), 2) for share in (50, 95, 99)}


def slashed(values: Mapping[str, float]) -> str:
    """Quantiles in ms as text, separated by slashes."""
    return " / ".join(f"{value:.1f}" for value in values.values()) + " ms"


def flat(row: Row, prefix: str = "") -> dict[str, Any]:
    """The row without nesting: figures by dotted name."""
    result: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def show(title: str, rows: Sequence[Row], columns: Mapping[str, str], *, path: Path | None = None) -> None:
    """Print the rows as a table, then as JSON; also write the JSON to `path`.

    Args:
        title: name of the benchmark.
        rows: the measured configurations.
        columns: heading of each column of the table, by dotted name of its figure.
        path: file for the JSON; None for none.
    """
    table = Table(title=title)
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row in rows:
        figures = flat(row)
        table.add_row(*(_shown(figures.get(name)) for name in columns))
    _print(title, table, rows, path)


def say(title: str, lines: Sequence[Sequence[str]], rows: Sequence[Row], headings: Sequence[str] = ("", "")) -> None:
    """Print `lines` as a table, unchanged, then `rows` as JSON."""
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
    """Read a benchmark's JSON from the last line of a file, which may be a log.

    Raises:
        ConfigError: if the file cannot be read or has no such JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])
        if not isinstance(found["rows"], list):
            raise TypeError("rows is not a list")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no benchmark ({error}).", "Create one with: tidecast bench ... --json FILE."
        ) from None
    return found


def compare(before: Path, after: Path) -> None:
    """Print the figures that both files have for the same settings, with the ratio after / before.

    Raises:
        ConfigError: if a file cannot be read, or they have no settings in common.
    """
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
    """Settings of a row as text: all values that are not floating point, since measured figures are."""
    return " ".join(f"{k}={v}" for k, v in flat(row).items() if isinstance(v, (str, int, bool)))
