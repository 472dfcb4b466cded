"""What asks the program to end, on Windows too: Ctrl+Break, and a console that is closed."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from bridge.ipc.group_signals import ClosingConsole, obeyed

WAIT_S = 30.0


@pytest.mark.parametrize("event", [2, 5, 6])
def test_a_console_that_is_closed_waits_for_the_end_of_the_program(event: int) -> None:
    asked: list[int] = []
    closing = ClosingConsole(asked.append)
    answers: list[bool] = []
    handler = threading.Thread(target=lambda: answers.append(closing(event)))  # Windows starts one, too
    handler.start()
    while not asked:
        assert handler.is_alive()
    handler.join(0.05)
    assert handler.is_alive() and asked == [event]
    closing.ended.set()
    handler.join(WAIT_S)
    assert answers == [True]


def test_other_events_are_left_to_python() -> None:
    asked: list[int] = []
    assert not any(ClosingConsole(asked.append)(event) for event in (0, 1))  # Ctrl+C, Ctrl+Break
    assert asked == []


def test_every_signal_asks_and_none_raises() -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if sys.platform == "win32" else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    asked: list[int] = []
    try:
        with obeyed(asked.append):
            for number in numbers:
                signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert asked == numbers
