"""When an engine process counts as hung, in simulated time."""

from __future__ import annotations

from bridge.config import EngineProcessConfig
from bridge.process.heartbeat import Heartbeat, Phase
from bridge.process.watchdog import Watchdog

LIMITS = EngineProcessConfig(hang_seconds=10.0, load_seconds=900.0)
TICK_S = 0.02


class Engine:
    """An engine whose heartbeat a test gives, and the watchdog that looks at it every 20 ms."""

    def __init__(self, phase: Phase = Phase.WAITING) -> None:
        self.now_s = 5.0
        self.heartbeat = Heartbeat()
        self.heartbeat.beat(phase)
        self.watchdog = Watchdog(self.heartbeat, LIMITS, lambda: self.now_s)

    def chunk(self, seconds: float) -> None:
        self.heartbeat.chunk(int(seconds * 1e9))
        self.heartbeat.beat(Phase.STEPPING)
        assert not self.watchdog.check()

    def silence(self, most_s: float) -> float:
        """Silence in s until the watchdog says that it is too long."""
        began = self.now_s
        while not self.watchdog.check():
            self.now_s += TICK_S
            assert self.now_s - began < most_s, "the watchdog never said anything"
        return self.now_s - began


def test_a_silent_engine_has_hung_and_a_loading_one_has_longer() -> None:
    assert 10 <= Engine().silence(11) < 10.1
    assert 900 <= Engine(Phase.LOADING).silence(901) < 900.1
    assert 900 <= Engine(Phase.STARTING).silence(901) < 900.1
    assert 900 <= Engine(Phase.STEPPING).silence(901) < 900.1  # the first chunk is a warm-up


def test_every_sign_of_life_counts() -> None:
    engine = Engine()
    for _ in range(1000):
        engine.now_s += 1.0
        engine.heartbeat.beat(Phase.WAITING)
        assert not engine.watchdog.check()


def test_slow_chunks_allow_more_and_a_long_warm_up_only_its_own_length() -> None:
    engine = Engine()
    engine.chunk(60.0)
    assert 90 <= engine.silence(91) < 90.1
    engine.chunk(2.0)
    assert 90 <= engine.silence(91) < 90.1
    engine.chunk(20.0)
    assert 160 <= engine.silence(161) < 160.1


def test_a_pause_of_the_watching_process_itself_is_no_silence_of_the_engine() -> None:
    engine = Engine()
    engine.now_s += 3600.0  # Ctrl+Z, or a laptop that slept
    assert not engine.watchdog.check()
    assert engine.silence(10.0) > 8


def test_a_heartbeat_from_the_future_does_not_make_an_engine_immortal() -> None:
    engine = Engine()
    engine.heartbeat._words[0] = 1 << 62
    assert 10 <= engine.silence(11) < 10.1
