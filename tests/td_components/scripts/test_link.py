"""The component's connection as a pure state machine: both sides agree in the end, whatever happens between."""

from __future__ import annotations

import json
from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.cli import td
from td_components.definition import network
from td_components.scripts import link as link_script

MANIFEST = json.loads(next(n.text for n in network.component(td.table(), "0").nodes if n.name == "manifest") or "{}")
PARS = ("Strength", "Steps", "Prompt1", "Bypass", "Fit")
VALUES = {
    "Strength": st.floats(0, 1, width=32),
    "Steps": st.integers(1, 4),
    "Prompt1": st.text(max_size=8),
    "Bypass": st.booleans(),
    "Fit": st.sampled_from(("cover", "contain", "stretch")),
}


class Show:
    """A component and a Tidecast with a slow network between them; time only passes here."""

    def __init__(self) -> None:
        self.link = link_script.Link(MANIFEST)
        self.pars: dict[str, object] = {p: self.link.wire(p, 0) if p in ("Strength", "Steps") else "" for p in PARS}
        self.pars["Bypass"], self.pars["Fit"], self.pars["Steps"] = 0, "cover", 2
        self.now = 0.0
        self.resend_due = False
        self.delay = 0.02  # of echoes
        self.up = False
        self.log: list[tuple] = []
        self.born()

    def born(self) -> None:
        """A new process with its defaults; tells everything to its subscriber, as the real one does."""
        self.values: dict[str, object] = {
            "Strength": 0.5,
            "Steps": 2,
            "Prompt1": "default",
            "Bypass": 0,
            "Fit": "cover",
        }
        self.up, self.beat, self.next_beat = True, 0, self.now
        self.inbox: deque = deque()
        self.outbox: deque = deque((self.now + 0.05, self.link.address_of[p], v) for p, v in self.values.items())

    def local(self, par: str, value: object) -> None:
        self.pars[par] = self.link.wire(par, value)
        self.tell(par)

    def tell(self, par: str) -> None:
        message = self.link.local(par, self.pars[par])
        if message and self.up:
            self.inbox.append((self.now + 0.02, par, message[1]))

    def desk(self, par: str, value: object) -> None:
        if self.up:
            self.take(par, self.link.wire(par, value))

    def take(self, par: str, value: object) -> None:
        self.values[par] = value
        self.outbox.append((self.now + self.delay, self.link.address_of[par], value))

    def advance(self, seconds: float) -> None:
        limit = self.now + seconds
        while self.now < limit:
            self.now += 0.01
            while self.up and self.inbox and self.inbox[0][0] <= self.now:
                _, par, value = self.inbox.popleft()
                if par == "ping":
                    self.outbox.append((self.now + self.delay, "/tidecast/pong", value))
                else:
                    self.take(par, value)
            if self.up and self.now >= self.next_beat:
                self.beat, self.next_beat = self.beat + 1, self.next_beat + 1.0
                self.outbox.append((self.now, "/tidecast/status/heartbeat", self.beat))
            if self.up:
                self.outbox.append((self.now, "/tidecast/status/state", "running"))
            while self.outbox and self.outbox[0][0] <= self.now:
                _, address, value = self.outbox.popleft()
                self.obey(self.link.heard(address, [value], self.now))
            self.obey(self.link.tick(self.now))
            if self.resend_due:
                self.resend_due = False
                self.link.resend()
                for par in PARS:
                    if self.link.resends(par, self.pars[par]):
                        self.tell(par)

    def obey(self, events: list[tuple]) -> None:
        for event in events:
            self.log.append(event)
            if event[0] == "set" and event[1] in self.pars:
                self.pars[event[1]] = event[2]
            elif event[0] in ("online", "ready"):
                self.resend_due = True
            elif event[0] == "ping" and self.up:
                self.inbox.append((self.now + 0.02, "ping", event[1]))
            elif event[0] == "ask" and self.up:
                for par, value in self.values.items():
                    self.take(par, value)


ACTS = st.one_of(
    st.sampled_from(PARS).flatmap(lambda p: st.tuples(st.just("local"), st.just(p), VALUES[p])),
    st.sampled_from(PARS).flatmap(lambda p: st.tuples(st.just("desk"), st.just(p), VALUES[p])),
    st.tuples(st.just("advance"), st.floats(0.01, 1.5)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS, max_size=25))
@example([("local", "Prompt1", "0"), ("advance", 0.28125), ("desk", "Prompt1", "")])  # held back: the older echo
def test_both_sides_agree_in_the_end(acts):
    show = Show()
    show.advance(0.5)
    for act, *args in acts:
        getattr(show, act)(*args)
    show.advance(3.0)
    assert show.pars == show.values


def died_and_born_again() -> Show:
    """Tidecast died, and the component has just sent its values to the new process."""
    show = Show()
    show.advance(2.5)
    show.local("Strength", 0.9)
    show.advance(1.5)
    show.up = False
    show.outbox.clear()
    show.advance(4.0)
    show.born()
    while not any(par == "Strength" for _, par, _ in show.inbox):
        show.advance(0.01)
    return show


def test_lost_echoes_leave_no_default_of_a_new_process_in_place_of_a_value():
    """Many values arrive at once after a restart, more than a socket holds: the defaults came, the echoes did not."""
    show = died_and_born_again()
    show.outbox = deque([(show.now + 0.01, show.link.address_of["Strength"], 0.5)])
    show.advance(0.02)
    show.outbox = deque(message for message in show.outbox if message[1] not in show.link.par_of)
    show.advance(3.0)
    assert show.pars["Strength"] == show.values["Strength"] == show.link.wire("Strength", 0.9)


def test_defaults_of_a_new_process_are_not_taken_however_late_they_are():
    """The machine is busy: what the new process says of itself takes many seconds to arrive."""
    show = died_and_born_again()
    show.outbox = deque((show.now + 2.3, show.link.address_of[par], value) for par, value in show.values.items())
    show.delay = 2.4
    show.advance(8.0)
    assert show.pars["Strength"] == show.values["Strength"] == show.link.wire("Strength", 0.9)


def heard_lately(now: float) -> link_script.Link:
    """A link to a Tidecast that has been heard; the pings before are answered."""
    link = link_script.Link(MANIFEST)
    link.heard("/tidecast/status/heartbeat", [1], now)
    link.settle(keep_waiting=False)
    link.tick(now)
    return link


def test_a_value_that_tidecast_refused_is_asked_for_once_the_change_was_answered():
    link = heard_lately(0.9)
    link.local("Strength", 0.7)
    assert link.heard("/tidecast/strength", [0.5], 1.0) == []
    assert link.tick(1.01) == [("ping", 1)]
    assert link.tick(1.05) == []
    assert link.heard("/tidecast/pong", [0], 1.1) == []  # of a ping from before the change
    assert link.heard("/tidecast/pong", ["1"], 1.1) == []
    assert link.heard("/tidecast/strength", [0.5], 1.1) == []
    assert link.heard("/tidecast/pong", [1], 1.2) == []
    assert link.tick(1.2 + link_script.ASK_S) == [("ask",)]
    assert link.heard("/tidecast/strength", [0.5], 1.6) == [("set", "Strength", 0.5)]


def test_a_fader_is_not_moved_backwards_by_the_echoes_of_its_way():
    link = heard_lately(0.0)
    way = [link.wire("Strength", step / 100) for step in range(100)]
    for step, value in enumerate(way):
        now = step / 60
        link.local("Strength", value)
        if step >= 30:  # half a second late
            assert link.heard("/tidecast/strength", [way[step - 30]], now) == []
            link.heard("/tidecast/pong", [link.pings - 5], now)
        assert ("ask",) not in link.tick(now)
    assert link.heard("/tidecast/strength", [way[-1]], 2.2) == [("set", "Strength", way[-1])]
    link.heard("/tidecast/pong", [link.pings], 2.2)
    assert ("ask",) not in link.tick(2.2 + link_script.ASK_S)


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTS, max_size=12), st.floats(0.8, 6.0))
def test_the_components_values_survive_the_death_of_the_other_side(acts, away):
    show = Show()
    show.advance(2.5)
    for act, *args in acts:
        getattr(show, act)(*args)
    show.advance(1.5)
    kept = dict(show.pars)
    show.up = False
    show.outbox.clear()
    show.advance(away)
    show.born()
    show.advance(3.0)
    assert show.pars == kept
    assert show.values == kept


def test_a_short_silence_is_no_loss_and_a_long_one_is():
    show = Show()
    show.advance(1.0)
    show.up = False
    show.advance(2.5)
    assert ("offline",) not in show.log
    show.advance(1.0)
    assert show.log.count(("offline",)) == 1


def test_an_echo_from_before_a_change_is_not_shown_when_tidecast_dies_after_it():
    link = heard_lately(0.9)
    link.local("Strength", 0.7)
    link.heard("/tidecast/strength", [0.6], 1.01)  # sent before the change had arrived; then there is silence
    silent = 1.01 + link_script.OFFLINE_AFTER
    heard = [event for now in range(101, int(silent * 100)) for event in link.tick(now / 100)]
    assert {kind for kind, *_ in heard} == {"ping"}
    assert ("offline",) in link.tick(silent)


def test_foreign_addresses_are_no_sign_of_life():
    link = link_script.Link(MANIFEST)
    assert link.heard("/other/strength", [1.0], 0.0) == [] and not link.online


def test_values_that_did_not_change_are_not_sent_again():
    link = link_script.Link(MANIFEST)
    assert link.local("Strength", 0.7)[0] == "/tidecast/strength"
    assert link.local("Strength", 0.7) is None
    assert link.local("Bypass", True) == ("/tidecast/bypass", 1)
    assert link.local("Width", 512) is None
