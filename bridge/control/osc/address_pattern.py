"""OSC 1.0 address patterns, matched against all addresses of a table at once, in time linear in the pattern.

A pattern comes from a stranger, and a regular expression made of it can take exponential time, because `re` tries one
way to match after another. Here the matcher goes over the pattern once and keeps the set of all places in the addresses
that it can have reached, as an automaton that is in several states at a time. The set is one integer with a bit for
every place of every address, so each character of the pattern costs a few operations on integers.

Wildcards, which match within one part of an address, that is not across a slash:

    ?         one character
    *         any number of characters, also none
    [a-cxyz]  one of these characters; [!a-cxyz] any other one
    {ab,cd}   one of these words
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.errors import TidecastError

_WILDCARDS = frozenset("*?[{")
"""A text without any of these is an address, not a pattern."""

MAX_LENGTH = 200
"""Longest pattern, in characters."""

MAX_ASTERISKS = 4
"""Most `*` of a pattern; the deepest address has fewer parts."""

MAX_WORDS = 64
"""Most words of all lists in braces together."""


class PatternError(TidecastError):
    """A text is not an OSC 1.0 address pattern, or it is too long."""


def is_pattern(text: str) -> bool:
    """Whether a text has a wildcard, so that it is a pattern and not an address."""
    return not _WILDCARDS.isdisjoint(text)


@dataclass(frozen=True, slots=True)
class _Words:
    """One of these words; a plain character of the pattern is a list of one."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _OneCharacter:
    """A character in one of these ranges (first, last), or with `other` one in none of them; never a slash."""

    ranges: tuple[tuple[str, str], ...]
    other: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """Any number of characters that are not a slash."""


_Element = _Words | _OneCharacter | _Run


class AddressIndex:
    """A fixed set of addresses, prepared for matching. Immutable.

    Args:
        addresses: full OSC addresses.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        # An address of n characters has n + 1 places: one before each character, and its end. The addresses stand one
        # after the other; bit p of a set of places is place p.
        self._ends: list[tuple[int, str]] = []
        self._starts = 0
        self._places: dict[str, int] = {}  # by character: the places before it
        place = 0
        for address in addresses:
            self._starts |= 1 << place
            for character in address:
                self._places[character] = self._places.get(character, 0) | 1 << place
                place += 1
            self._ends.append((place, address))
            place += 1
        self._within_part = 0  # the places before a character that is not a slash
        for character, places in self._places.items():
            if character != "/":
                self._within_part |= places

    def matching(self, pattern: str) -> list[str]:
        """The addresses that the pattern matches, in the order in which they were given.

        Raises:
            PatternError: if the pattern is malformed or too long; says what is wrong with it.
        """
        reached = self._starts
        for element in _parsed(pattern):
            reached = self._after(element, reached)
            if not reached:
                return []
        return [address for end, address in self._ends if reached >> end & 1]

    def _after(self, element: _Element, places: int) -> int:
        """The places that can be reached from `places` by one element of the pattern."""
        match element:
            case _Run():
                # Adding carries each place to the end of its run of ones, and clears what it went over.
                return places | (((places & self._within_part) + self._within_part) ^ self._within_part)
            case _OneCharacter(ranges, other):
                listed = 0
                for first, last in ranges:
                    if first == last:
                        listed |= self._places.get(first, 0)
                    else:
                        # No place is before two characters, so the sum is the union.
                        listed |= sum(
                            before for character, before in self._places.items() if first <= character <= last
                        )
                return (places & self._within_part & (~listed if other else listed)) << 1
            case _Words(words):
                reached = 0
                for word in words:
                    here = places
                    for character in word:
                        here = (here & self._places.get(character, 0)) << 1
                    reached |= here
                return reached


def _parsed(pattern: str) -> list[_Element]:
    """The elements of a pattern, in order.

    Raises:
        PatternError: as `AddressIndex.matching`.
    """
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"An address pattern has at most {MAX_LENGTH} characters; this one has {len(pattern)}.")
    if pattern.count("*") > MAX_ASTERISKS:
        raise PatternError(f"An address pattern may hold at most {MAX_ASTERISKS} asterisks.")
    elements = list(_elements(pattern))
    words = sum(len(element.words) for element in elements if isinstance(element, _Words) and len(element.words) > 1)
    if words > MAX_WORDS:
        raise PatternError(
            f"The lists in braces of an address pattern hold at most {MAX_WORDS} words; here are {words}."
        )
    return elements


def _elements(pattern: str) -> Iterator[_Element]:
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character in "[{":
            closing = "]" if character == "[" else "}"
            end = pattern.find(closing, at)
            if end < 0:
                raise PatternError(f"The pattern has a {character} without a {closing}.")
            inside = pattern[at + 1 : end]
            yield _character_list(inside) if character == "[" else _word_list(inside)
            at = end
        elif character in "]}":
            raise PatternError(f"The pattern has a {character} without a {'[' if character == ']' else '{'}.")
        elif character == "*":
            yield _Run()
        elif character == "?":
            yield _OneCharacter((), other=True)
        else:
            yield _Words((character,))
        at += 1


def _word_list(inside: str) -> _Words:
    """The inside of braces."""
    for character in "{[]*?":
        if character in inside:
            raise PatternError(f"The words in braces must be plain text, without {character}: {{{inside}}}.")
    return _Words(tuple(inside.split(",")))


def _character_list(inside: str) -> _OneCharacter:
    """The inside of brackets. A minus sign at either end stands for itself."""
    other = inside.startswith("!")
    listed = inside[other:]
    if not listed:
        raise PatternError(f"The list of characters in [{inside}] is empty.")
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(listed):
        if listed[at + 1 : at + 2] == "-" and at + 2 < len(listed):
            first, last = listed[at], listed[at + 2]
            if first > last:
                raise PatternError(f"The range {first}-{last} in [{inside}] is empty; write {last}-{first}.")
            at += 3
        else:
            first = last = listed[at]
            at += 1
        ranges.append((first, last))
    return _OneCharacter(tuple(ranges), other)
