"""The thread that encodes prompts survives whatever an encoder raises, tells it once, and tries again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from bridge.process import prompt_thread
from bridge.process.messages import Complaint
from bridge.process.prompt_thread import PromptThread
from engine.errors import ModelError
from engine.models.spec import Conditioning

WAIT_S = 30.0


class Panic(BaseException):
    """As libraries in Rust raise it: no `Exception`."""


class Encoder:
    """Stands for the session. Raises what `errors` holds for a prompt, one after the other, then encodes it."""

    def __init__(self) -> None:
        self.errors: dict[str, list[BaseException]] = {}
        self.troubles: dict[str, str] = {}
        self.tried: list[str] = []
        self.encoded: list[str] = []
        self.told: list[str] = []
        self.thread = PromptThread(cast(Any, self), self._complain)

    def _complain(self, complaint: Complaint) -> None:
        assert complaint.topic == "/prompt"
        self.told.append(complaint.reason)

    def encode_prompt(self, text: str) -> Conditioning:
        self.tried.append(text)
        if self.errors.get(text):
            raise self.errors[text].pop(0)
        self.encoded.append(text)
        return Conditioning(text, cast(Any, None), trouble=self.troubles.get(text, ""))

    def encodes(self, text: str) -> None:
        """Want a prompt and wait until it is encoded."""
        self.thread.want((text,))
        until(lambda: text in self.encoded)
        self.thread.want(())


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def other_threads_do_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(threading, "excepthook", fail)


@pytest.mark.parametrize(
    "error",
    [ModelError("no encoder"), MemoryError("12 GB"), RuntimeError("CUDA error"), OSError("disk"), Panic("rust")],
    ids=lambda error: type(error).__name__,
)
def test_a_prompt_that_fails_is_told_and_the_next_is_encoded(error: BaseException) -> None:
    encoder = Encoder()
    encoder.errors["a"] = [error]
    encoder.thread.want(("a",))
    until(lambda: encoder.told)
    encoder.encodes("b")
    assert len(encoder.told) == 1 and str(error) in encoder.told[0]


def test_a_prompt_that_failed_is_encoded_when_it_is_chosen_anew() -> None:
    encoder = Encoder()
    encoder.errors["a"] = [MemoryError()]
    encoder.thread.want(("a",))
    until(lambda: encoder.told)
    encoder.encodes("b")
    encoder.encodes("a")
    assert len(encoder.told) == 1


def test_a_prompt_that_failed_is_tried_again_by_itself_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_thread, "RETRY_S", 0.01)
    encoder = Encoder()
    encoder.errors["a"] = [MemoryError("1"), MemoryError("1"), MemoryError("1"), OSError("2")]
    encoder.thread.want(("a",))
    until(lambda: "a" in encoder.encoded)
    assert encoder.tried == ["a"] * 5
    assert [reason.rpartition(" ")[2] for reason in encoder.told] == ["1", "2"]


def test_of_two_prompts_the_one_that_can_be_encoded_is_encoded() -> None:
    encoder = Encoder()
    encoder.errors["a"] = [MemoryError()]
    encoder.thread.want(("a", "b"))
    until(lambda: "b" in encoder.encoded)


def test_a_full_disk_is_told_once() -> None:
    encoder = Encoder()
    encoder.troubles = dict.fromkeys("abc", "It cannot be stored. Free some space.")
    for text in "abc":
        encoder.encodes(text)
    until(lambda: encoder.told)
    assert encoder.told == ["It cannot be stored. Free some space. The prompt is used all the same."]
