"""Whatever happens in whatever order (hands, snapshots, glides, modulators): no modulator changes a base value, every
value is in its range, and without modulators exactly the base is left."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.modulation.controls import SLOTS
from tests.bridge.control.modulation.stage import HAND, SHOW, Stage

FADERS = ("strength", "mix", "lora_1", "weight_2")
SHARES = st.floats(0.0, 1.0)
TEXTS = st.builds(
    lambda fader, shape, rate, depth, offset, polarity, slew: (
        f"{fader} {shape} {rate} depth={depth} offset={offset} polarity={polarity} slew={slew}"
    ),
    st.sampled_from(FADERS),
    st.sampled_from(["sine", "square", "drunk", "hold", "envelope", "up"]),
    st.sampled_from(["beats=1", "beats=16", "hz=0.3", "hz=7 trigger=osc/a"]),
    st.floats(-1.0, 1.0),
    st.floats(-1.0, 1.0),
    st.sampled_from(["both", "up", "down"]),
    st.sampled_from([0, 200]),
) | st.sampled_from(["", "strength follow source=osc/a depth=1", "mix follow source=osc/a depth=-0.5 attack=0"])
EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.floats(0.0, 3.0)),
    st.tuples(st.just("hand"), st.sampled_from(FADERS), SHARES),
    st.tuples(st.just("show"), st.dictionaries(st.sampled_from(FADERS), SHARES, min_size=1)),
    st.tuples(st.just("modulator"), st.integers(1, 3), TEXTS),
    st.tuples(st.just("depth"), SHARES),
    st.tuples(st.just("signal"), st.floats(-2.0, 2.0)),
    st.tuples(st.just("retrigger"), st.integers(1, 3)),
)


def happen(stage: Stage, event: tuple[Any, ...], base: dict[str, Any]) -> None:
    """Let it happen; `base` is kept as it should be, from what was set alone."""
    rows = stage.store.table.by_name
    match event:
        case ("wait", seconds):
            stage.ns += round(seconds * 1e9)
        case ("hand", fader, share):
            moved, base[fader] = base[fader], rows[fader].from_norm(share)
            stage.store.set(fader, base[fader], HAND)
            if all(m is None or m.back for m in stage.modulation.modulators) and moved != base[fader]:
                assert stage.value(fader) == base[fader], "the hand wins at once"
        case ("show", shares):
            values = {fader: rows[fader].from_norm(share) for fader, share in shares.items()}
            base.update(values)
            stage.store.set_many(values, SHOW)
        case ("modulator", number, text):
            stage.store.set(f"mod_{number}", text, HAND)
        case ("depth", share):
            stage.store.set("mod_depth", share, HAND)
        case ("signal", value):
            stage.signals.put("osc/a", value, stage.ns)
        case ("retrigger", number):
            stage.say("/mod/retrigger", number)


@given(st.lists(EVENTS, max_size=25))
@settings(deadline=None, max_examples=60)
def test_no_order_of_events_changes_a_base_value(events: list[tuple[Any, ...]]) -> None:
    stage = Stage()
    try:
        rows = stage.store.table.by_name
        base = {fader: stage.base(fader) for fader in FADERS}
        for event in events:
            happen(stage, event, base)
            now = stage.store.modulated(stage.ns)
            for fader in FADERS:
                low, high = rows[fader].low, rows[fader].high
                assert low is not None and high is not None and low <= now.value(fader) <= high
                assert stage.base(fader) == base[fader]
            moved = {m.target for m in stage.modulation.modulators if m is not None}
            assert all(now.value(fader) == base[fader] for fader in FADERS if fader not in moved)
        stage.store.set_many({f"mod_{number}": "" for number in range(1, SLOTS + 1)}, HAND)
        assert stage.store.modulated(stage.ns) is stage.store.snapshot
        assert {fader: stage.base(fader) for fader in FADERS} == base
        assert stage.errors == []
    finally:
        stage.close()
