"""A/B: the picture with and without what the stages add to it (`StageRow.plain`); their controls keep their values.

No value changes for B: it is made of a snapshot of the controls in which those of the stages are replaced. So nothing
has to be put back, every page, program and controller sees the same state, and a snapshot that is stored meanwhile
holds what the faders say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bridge.control.origin import Origin
from bridge.control.store import ControlStore
from bridge.pipeline.stages.base import StageRow
from engine.control import NEVER, live


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareControls:
    """Whether the picture is shown plain."""

    compare: bool = live(
        False,
        "/compare",
        "A/B: on shows the picture without Reproject and Detail. They keep their values; to change one ends it.",
        group="Video",
        label="Compare A/B",
        stored=NEVER,
    )


def plain_values(rows: Iterable[StageRow]) -> dict[str, Any]:
    """The values of controls with which these stages leave the picture as it is, by name."""
    return {name: value for row in rows for name, value in row.plain.items()}


def end_when_changed(store: ControlStore, rows: Iterable[StageRow]) -> Callable[[], None]:
    """Switch the comparison off whenever something changes a control that it leaves out: a fader that is moved must be
    seen to act.

    Returns:
        A function that ends the watch.
    """
    lock = threading.Lock()
    before = {name: store.snapshot.value(name) for name in plain_values(rows)}

    def written(name: str, value: object, origin: Origin) -> None:
        if name not in before:
            return
        now = store.snapshot.value(name)
        with lock:
            changed, before[name] = now != before[name], now
        if changed and store.snapshot.of(CompareControls).compare:
            store.set("compare", False)

    return store.listen(written)
