"""Who is obeyed, and how many bytes each host may be sent."""

import pytest

from bridge.config_file import load
from bridge.control.osc.allow import networks
from bridge.control.osc.gate import (
    CONFIRMED_S,
    HOST_BYTES,
    LOOPBACK_BYTES,
    MAX_GUESSES,
    MAX_HOSTS,
    MAX_REPORTS,
    REMIND_S,
    Gate,
)
from engine.errors import ConfigError


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def gate(*allow):
    reports, clock = [], Clock()
    return Gate(allow, lambda topic, text: reports.append(text), clock), reports, clock


def test_without_a_list_only_this_machine_is_obeyed_and_a_stranger_is_sent_nothing():
    made, reports, _ = gate()
    assert made.admits("127.0.0.1", 24)
    for _ in range(1000):
        assert not made.admits("192.168.1.7", 24)
    assert made.takes("192.168.1.7", [1]) == 0
    assert len(reports) == 1
    assert "192.168.1.7 is not obeyed" in reports[0] and "--osc-allow 192.168.1.7" in reports[0]


def test_refused_hosts_are_reported_again_after_a_minute_with_their_count_and_never_in_a_flood():
    made, reports, clock = gate()
    for _ in range(5):
        made.admits("192.168.1.7", 24)
    clock.now += REMIND_S
    made.admits("192.168.1.7", 24)
    assert "(6 messages so far)" in reports[1]
    for number in range(5000):
        made.admits(f"10.0.{number // 250}.{number % 250}", 24)
    assert len(reports) == 1 + MAX_REPORTS
    assert len(made._hosts) + len(made._strangers) <= 2 * MAX_HOSTS


def test_listed_machines_and_networks_are_obeyed_and_answered_at_once():
    made, _, _ = gate("192.168.1.20", "10.1.0.0/16")
    for host in ("192.168.1.20", "10.1.200.3"):
        assert made.admits(host, 24)
        assert made.confirmed(host)
        assert made.takes(host, [1000] * 300) == 300
    assert not made.admits("192.168.1.21", 24)
    assert not made.admits("10.2.0.1", 24)


def test_whom_only_any_admits_is_sent_no_more_than_came_until_it_has_returned_its_word():
    made, _, clock = gate("any")
    came = sent = 0
    for number, size in enumerate((24, 28, 4000, 24), 1):
        assert made.admits("10.0.0.9", size)
        came += size
        sent += made.takes("10.0.0.9", [64] * 500)
        assert sent <= number and sent * 64 <= came
    assert sent == 4
    word = made.word("10.0.0.9")
    assert word == made.word("10.0.0.9") != made.word("10.0.0.8")
    assert not made.confirm("10.0.0.9", made.word("10.0.0.8"))
    assert made.confirm("10.0.0.9", word)
    assert made.takes("10.0.0.9", [64] * 500) == 500
    assert not made.confirm("10.0.0.9", word), "a word counts once"
    clock.now += CONFIRMED_S
    assert not made.confirmed("10.0.0.9")


def test_a_word_cannot_be_guessed():
    made, _, _ = gate("any")
    first = made.word("10.0.0.9")
    for _ in range(MAX_GUESSES):
        assert not made.confirm("10.0.0.9", "ä")
    assert not made.confirm("10.0.0.9", first)
    assert made.word("10.0.0.9") != first


@pytest.mark.parametrize(("host", "rate"), [("127.0.0.1", LOOPBACK_BYTES), ("10.0.0.9", HOST_BYTES)])
def test_every_host_has_a_budget(host, rate):
    made, _, clock = gate("10.0.0.9")
    sent = 0
    for _ in range(1000):
        clock.now += 0.01
        sent += sum([60_000] * made.takes(host, [60_000] * 20))
    assert sent <= rate * 11 + 1_200_000
    assert sent >= rate * 9


def test_hosts_that_are_refused_do_not_displace_the_others():
    made, _, _ = gate("10.0.0.9")
    while made.takes("10.0.0.9", [60_000] * 20):
        pass
    for number in range(2 * MAX_HOSTS):
        made.admits(f"172.16.{number // 250}.{number % 250}", 24)
    assert made.takes("10.0.0.9", [1]) == 0, "its budget is still spent"


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("resolume-pc", "is no address"),
        ("192.168.1", "is no address"),
        ("fe80::1", "is no address"),
        ("192.168.1.20/24", "Write 192.168.1.0/24 for the network or 192.168.1.20"),
        ("192.168.1.0/33", "is no address"),
        ("", "is no address"),
    ],
)
def test_a_bad_entry_is_refused_at_the_start_with_how_to_write_it(entry, part):
    with pytest.raises(ConfigError, match=part):
        networks([entry])
    with pytest.raises(ConfigError, match=part):
        load(None, {"osc.allow": [entry]})


def test_the_list_comes_from_the_configuration():
    assert load(None, {"osc.allow": ["192.168.1.0/24", "any"]}).osc.allow == ("192.168.1.0/24", "any")
