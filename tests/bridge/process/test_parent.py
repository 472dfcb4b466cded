"""The engine process's end of the pipe: what it logs reaches the bridge, but never more than that can take."""

from __future__ import annotations

import logging

from bridge.process import parent
from bridge.process.messages import LogLine
from bridge.process.parent import LINES_AT_ONCE, MAX_LINE, LogToParent


class Told:
    """Stands in for the parent: keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def tell(self, line: LogLine) -> None:
        self.lines.append(line)


def test_a_flood_of_log_lines_is_counted_and_the_count_is_told(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bridge.allowance.time.monotonic", lambda: now[0])
    told = Told()
    logger = logging.Logger("library", logging.INFO)
    logger.addHandler(LogToParent(told))
    for number in range(10_000):
        logger.info("line %d", number)
    assert [line.text for line in told.lines] == [f"line {number}" for number in range(int(LINES_AT_ONCE))]
    now[0] += 1.5 / parent.LINES_PER_S
    logger.error("at last")
    left_out, last = told.lines[int(LINES_AT_ONCE) :]
    assert (left_out.level, left_out.text) == (logging.WARNING, "9800 log lines were left out here")
    assert (last.level, last.logger, last.text) == (logging.ERROR, "library", "at last")


def test_a_line_without_end_is_cut():
    told = Told()
    logger = logging.Logger("library")
    logger.addHandler(LogToParent(told))
    logger.warning("x" * 1_000_000)
    assert len(told.lines[0].text) < MAX_LINE + 100 and told.lines[0].text.endswith("(1,000,000 characters)")
