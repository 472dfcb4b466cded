"""The words of a model that takes no sentences: how a prompt is read, and what is offered for an unknown word."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from engine.models.ember.specs import EMBER as ROW
from engine.models.ember.vocabulary import EMBER
from engine.models.registry import REGISTRY
from engine.models.vocabulary import LONGEST_CHECKED, LONGEST_COMPARED, MAX_COMPARED, Unknown, Vocabulary

SMALL = Vocabulary(("neon", "watercolor", "fire"), {"pencil": "neon"}, frozenset({"a"}))


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("", ()),
        ("a NEON, Pencil!", ()),
        ("a neno fire", (Unknown(2, 6, "neon"),)),
        ("Watercolr", (Unknown(0, 9, "watercolor"),)),
        ("pencl", (Unknown(0, 5, "pencil"),)),
        ("🌋 neno", (Unknown(2, 6, "neon"),)),
        ("zzz fire qqq", (Unknown(0, 3, ""), Unknown(9, 12, ""))),
    ],
)
def test_unknown_words_are_found_where_they_stand(prompt: str, found: tuple[Unknown, ...]) -> None:
    assert SMALL.unknown(prompt) == found
    assert SMALL.parse(prompt)[1] == [prompt[u.start : u.end].lower() for u in found], "one rule for both"


def test_every_unknown_word_of_a_prompt_is_found_and_a_word_that_is_said_again_is_compared_once() -> None:
    prompt = "neno " + " ".join(f"zz{chr(97 + n)}{chr(98 + n)}" for n in range(20)) + " neno fire"
    found = SMALL.unknown(prompt)
    assert len(found) == 22
    assert [prompt[u.start : u.end] for u in found if u.nearest] == ["neno", "neno"]


def test_what_one_prompt_costs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(Vocabulary, "_nearest", lambda self, said: compared.append(said) or "")
    found = SMALL.unknown("".join(f"z{chr(97 + n % 26) * (n // 26 + 1)} " for n in range(400)) + "q " * 40_000)
    assert len(compared) == MAX_COMPARED
    assert found[-1].end <= LONGEST_CHECKED and len(found) <= LONGEST_CHECKED / 2
    monkeypatch.undo()
    assert SMALL.unknown("neon" * LONGEST_COMPARED)[0].nearest == ""


def test_only_rows_with_a_vocabulary_say_one_and_it_travels_without_torch() -> None:
    assert ROW.vocabulary is EMBER
    assert [row.name for row in REGISTRY.values() if row.vocabulary is not None] == ["ember"]
    assert EMBER.synonyms_of("fire") == ("lava", "flames", "hot")
    program = (
        "import pickle, sys; known = pickle.load(sys.stdin.buffer);"
        "assert 'torch' not in sys.modules; print(known.parse('lava zebra'))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(EMBER), capture_output=True, timeout=120)
    assert done.stdout.decode().strip() == "(['fire'], ['zebra'])", done.stderr.decode()
