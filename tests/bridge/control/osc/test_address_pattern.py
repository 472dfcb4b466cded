"""Address patterns: what they match, compared with a regular expression, and that no text takes long."""

from __future__ import annotations

import gc
import itertools
import re
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.control.origin import INTERNAL
from bridge.control.osc.address_pattern import MAX_LENGTH, MAX_WORDS, AddressIndex, PatternError, is_pattern
from bridge.control.osc.packet import BUNDLE, MAX_DATAGRAM, PacketError, build, parse
from bridge.control.store import ControlStore
from bridge.table import TABLE
from engine.control import PREFIX

LIMIT_S = 0.02
"""Longest time that one text from outside may take."""

ADDRESSES = [address for address, target in TABLE.targets.items() if target.control is not None]


def quick(function: Callable[[], object], tries: int = 30) -> bool:
    """Whether it takes less than `LIMIT_S` of this thread's own time.

    Other programs also slow down the thread's own time, since they empty its caches: a run that was too slow is
    repeated, and one that is not is enough.
    """
    gc.disable()
    try:
        for _ in range(tries):
            started = time.thread_time()
            function()
            if time.thread_time() - started < LIMIT_S:
                return True
    finally:
        gc.enable()
    return False


def as_regex(pattern: str) -> re.Pattern[str]:
    """The same pattern for `re`: simple, and exponential for some. Fails for what is malformed."""
    out = ""
    for part in re.findall(r"\[[^\]]*\]|\{[^}]*\}|.", pattern, re.DOTALL):
        if part in "*?":
            out += "[^/]*" if part == "*" else "[^/]"
        elif part[0] == "{":
            out += "(?:" + "|".join(re.escape(word) for word in part[1:-1].split(",")) + ")"
        elif part[0] == "[":
            other = part[1] == "!"
            ranges = re.sub(r"[\\^\[\]]", r"\\\g<0>", part[1 + other : -1])
            out += f"(?:(?!/)[{'^' * other}{ranges}])"
        else:
            out += re.escape(part)
    return re.compile(out, re.DOTALL)


PIECES = st.one_of(
    st.sampled_from(list("ab/*?")),
    st.sampled_from(["[a-b]", "[!a]", "[!b-c]", "[ab]", "[a-]", "[-a]", "[/a]", "[!/]", "[a!]", "[b^]"]),
    st.lists(st.text("ab/", max_size=2), min_size=1, max_size=3).map(lambda words: "{" + ",".join(words) + "}"),
)
SHORT = ["/" + "".join(letters) for size in range(5) for letters in itertools.product("ab/", repeat=size)]


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=7).map("".join).filter(lambda pattern: pattern.count("*") <= 4))
def test_it_matches_what_the_regular_expression_matches(pattern: str) -> None:
    wanted = as_regex("/" + pattern)
    assert AddressIndex(SHORT).matching("/" + pattern) == [a for a in SHORT if wanted.fullmatch(a)]


@settings(deadline=None)
@given(st.sampled_from(ADDRESSES), st.data())
def test_an_address_with_parts_replaced_by_wildcards_is_matched(address: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(address) - 1).filter(lambda at: address[at] != "/"))
    for wildcard in ("?", "*", f"[{address[at]}]", f"{{{address[at]},x}}", "[!/]"):
        assert address in AddressIndex(ADDRESSES).matching(address[:at] + wildcard + address[at + 1 :])


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("/a[b", "[ without a ]"),
        ("/a{b,c", "{ without a }"),
        ("/a]*", "] without a ["),
        ("/a}*", "} without a {"),
        ("/[]", "[] is empty"),
        ("/[!]", "[!] is empty"),
        ("/[z-a]", "write a-z"),
        ("/{a,{b,c}}", "plain text, without {"),
        ("/{a,b*}", "plain text, without *"),
        ("/*" + "a" * MAX_LENGTH, "at most 200 characters; this one has 202"),
        ("/*/*/*/*/*", "at most 4 asterisks"),
        ("/{" + "," * MAX_WORDS + "}", "at most 64 words; here are 65"),
    ],
)
def test_a_malformed_pattern_is_told_what_is_wrong(pattern: str, part: str) -> None:
    assert is_pattern(pattern)
    with pytest.raises(PatternError) as caught:
        AddressIndex(ADDRESSES).matching(pattern)
    assert part in str(caught.value)
    store, errors = ControlStore(TABLE), []
    store.listen_errors(lambda *error: errors.append(error))
    assert not store.handle(pattern, [1])
    assert part in errors[0][1]


def filled(unit: str, size: int, head: str = PREFIX + "/", tail: str = "x") -> str:
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


REPEATED = [
    *[
        "{,}",
        "{,,}",
        "{a,aa}",
        "{s,st}",
        "*",
        "*?",
        "?",
        "[a-z]",
        "[!-z]",
        "[!a-y]",
        "{",
        "}",
        "[",
        "]",
        "{{",
        "[[",
        "{a,{",
        "/*",
        "//",
        "a",
        "*a",
        "{a}",
        "ä*",
        ",",
    ],
    "{" + "," * 40 + "}",
    "[" + "a-z" * 12 + "]",
    "\ud800",
    "\0",
]

WORST = [
    *(filled(unit, size) for unit in REPEATED for size in (MAX_LENGTH, MAX_DATAGRAM - 100)),
    *("/" + "".join(c if c == "/" else f"[!-{c}]" for c in address[1:])[: MAX_LENGTH - 1] for address in ADDRESSES),
    "/{" + ",".join(["tidecas"] * 20) + "}t/*",
    "{/tidecast/strength" * 5,
]


@pytest.mark.parametrize("number", range(len(WORST)))
def test_no_text_takes_long(number: int) -> None:
    """`/tidecast/` with sixty times `{,}` and an x kept a regular expression busy for longer than anybody waited."""
    store, answers = ControlStore(TABLE), []
    address = WORST[number]
    assert quick(lambda: store.handle(address, [0.5], reply=lambda *answer: answers.append(answer)))
    assert all(len(reason) + len(where) < 1000 for _, (where, reason) in answers)


@settings(deadline=None, max_examples=500)
@given(st.text("{},[]!-*?/ab", max_size=MAX_LENGTH))
def test_no_text_of_wildcards_takes_long(text: str) -> None:
    store = ControlStore(TABLE)
    assert quick(lambda: store.handle(PREFIX + "/" + text, [0.5]))


def bundle(message: bytes) -> bytes:
    """As many of one message as a datagram can hold."""
    element = struct.pack(">i", len(message)) + message
    head = BUNDLE + bytes(8)
    return head + element * ((MAX_DATAGRAM - len(head)) // len(element))


@pytest.mark.parametrize(
    "address", ["/*", "/*/*", "/mix", "/nowhere", "/*/{" + "," * 60 + "}", "/" + "[a-z]" * 37, "/" + "?" * 180, "/ping"]
)
@pytest.mark.parametrize("count", [0, 100, 256])
def test_no_datagram_takes_long(address: str, count: int) -> None:
    """A datagram full of messages, or with the most messages that are obeyed."""
    message = build(PREFIX + address, [0.5])
    datagram = bundle(message)
    if count:
        datagram = datagram[: len(BUNDLE) + 8 + count * (len(message) + 4)]
    store, answers = ControlStore(TABLE), []

    def obey() -> None:
        answers.clear()
        try:
            messages = parse(datagram)
        except PacketError:
            return
        store.handle_all(messages, INTERNAL, reply=lambda *answer: answers.append(answer))

    assert quick(obey)
    assert sum(len(repr(answer)) for answer in answers) < 2 * MAX_DATAGRAM


def test_a_bundle_of_patterns_is_obeyed_to_its_limit_and_the_rest_refused_with_one_error() -> None:
    store, errors = ControlStore(TABLE), []
    store.listen_errors(lambda *error: errors.append(error))
    messages = [(PREFIX + "/{mix,motion}", [n / 1000]) for n in range(1000)]
    store.handle_all(messages, INTERNAL)
    assert 0.0 < store.snapshot.value("mix") < 0.999
    ((address, reason),) = errors
    assert address == PREFIX + "/{mix,motion}"
    assert "too much at once" in reason


def test_a_bundle_may_set_every_control_and_every_twin() -> None:
    store, errors = ControlStore(TABLE), []
    store.listen_errors(lambda *error: errors.append(error))
    everything = []
    for control in TABLE.controls:
        everything.append((PREFIX + control.address, [control.default]))
        if control.numeric:
            everything.append((PREFIX + control.address + "/norm", [1.0]))
    store.handle_all(everything, INTERNAL)
    assert not errors
    assert all(store.snapshot.value(c.name) == c.high for c in TABLE.controls if c.numeric)


def test_a_pattern_of_which_one_control_refuses_the_value_changes_nothing() -> None:
    store, errors = ControlStore(TABLE), []
    store.listen_errors(lambda *error: errors.append(error))
    before = store.snapshot
    assert not store.handle(PREFIX + "/{mix,fit}", [0.25])
    assert store.snapshot is before
    assert "cover, contain, stretch" in errors[0][1]
