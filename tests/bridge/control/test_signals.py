"""The registry of numbers that are heard from outside."""

from __future__ import annotations

import math
import threading

from bridge.control.signals import LONGEST_NAME, MOST, MOST_OF_A_KIND, Signals


def test_the_newest_number_of_a_name_is_kept() -> None:
    signals = Signals()
    assert signals.newest("audio/low") is None
    assert signals.put("audio/low", 0.25, 10)
    assert signals.put("osc/live/volume", 3.0, 11)
    assert signals.put("audio/low", 0.5, 12)
    assert signals.newest("audio/low") == (0.5, 12)
    assert signals.names() == ("audio/low", "osc/live/volume")


def test_names_and_numbers_are_bounded() -> None:
    signals = Signals()
    assert not signals.put("", 1.0, 0)
    assert not signals.put("midi/a port/1", 1.0, 0)
    assert not signals.put("x" * (LONGEST_NAME + 1), 1.0, 0)
    assert not signals.put("a", math.nan, 0) and not signals.put("a", math.inf, 0)
    assert all(signals.put(f"osc/{n}", 1.0, 0) for n in range(MOST_OF_A_KIND))
    assert not signals.put("osc/one/more", 1.0, 0)
    assert signals.put("osc/0", 2.0, 1), "what is known goes on"
    assert signals.put("audio/low", 1.0, 0), "another kind has room"
    for kind in range(5):
        for n in range(MOST_OF_A_KIND):
            signals.put(f"{kind}/{n}", 1.0, 0)
    assert len(signals.names()) == MOST


def test_what_is_followed_is_heard_even_in_a_flood() -> None:
    signals = Signals()
    for n in range(2 * MOST_OF_A_KIND):
        signals.put(f"osc/{n}", 1.0, 0)
    signals.follow(["osc/live/volume", "osc/0"])
    assert signals.followed("osc/0") and not signals.followed("osc/1")
    assert signals.put("osc/live/volume", 0.7, 5)
    assert signals.newest("osc/live/volume") == (0.7, 5)
    assert signals.newest("osc/0") is not None and signals.newest("osc/1") is None, "another one made room"
    assert len(signals.names()) == MOST_OF_A_KIND


def test_threads_that_put_at_once_do_not_exceed_the_bound() -> None:
    signals, begin = Signals(), threading.Barrier(4)

    def put(thread: int) -> None:
        begin.wait()
        for n in range(MOST_OF_A_KIND):
            signals.put(f"{thread}/{n}", float(n), n)
            signals.names()

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signals.names()) == MOST
