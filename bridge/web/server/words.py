"""The words that the model knows, as pages see them: with pictures, and the unknown words of the prompts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.web.server.page_messages import CheckedPrompt, PageWords, Pictures, PromptsChecked
from engine.models.vocabulary import Vocabulary

log = logging.getLogger(__name__)

ADDRESS = "/api/words.jpg"

MAX_BYTES = 1_000_000
"""Largest file of pictures that is served."""

CHECK_PERIOD_S = 0.1
"""Shortest time between two checks of the prompts, which other programs may change more often."""

_PROMPTS = "prompt_"


def page_words(vocabulary: Vocabulary | None) -> PageWords:
    """The words for pages. Pictures that do not belong to these words are left out, and the log says why."""
    if vocabulary is None:
        return PageWords()
    words = tuple((word, vocabulary.synonyms_of(word)) for word in vocabulary.words)
    return PageWords(words, _pictures(vocabulary) if vocabulary.pictures else None)


def _pictures(vocabulary: Vocabulary) -> Pictures | None:
    described = Path(vocabulary.pictures)
    try:
        content = json.loads(_read(described))
        jpeg = _read(described.with_suffix(".jpg"))
        tile, columns, shown = int(content["tile"]), int(content["columns"]), tuple(content["words"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("The pictures of the words cannot be read: %s: %s.", type(error).__name__, error)
        return None
    if shown != vocabulary.words or tile < 1 or columns < 1:
        log.warning("The pictures %s belong to other words than the model's.", described)
        return None
    return Pictures(jpeg, f"{ADDRESS}?{hashlib.sha256(jpeg).hexdigest()[:16]}", tile, columns)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes")
    return data


class PromptCheck:
    """Finds the words of the prompts that the model does not know, at most once in `CHECK_PERIOD_S`."""

    def __init__(self) -> None:
        self.vocabulary: Vocabulary | None = None
        self.found = PromptsChecked({})
        self._checked: dict[str, str] = {}
        self._next_s = 0.0

    def know(self, vocabulary: Vocabulary | None) -> None:
        """The model was opened; it knows these words, or takes any sentence."""
        self.vocabulary = vocabulary
        self._checked, self._next_s = {}, 0.0

    def changed(self, controls: Mapping[str, Any], now_s: float) -> bool:
        """Check the prompts among the controls if it is time to; returns whether `found` is another one then."""
        prompts = {name: str(value) for name, value in controls.items() if name.startswith(_PROMPTS)}
        prompts = {name: text for name, text in prompts.items() if name.removeprefix(_PROMPTS).isdecimal()}
        if prompts == self._checked or now_s < self._next_s:
            return False
        self._checked, self._next_s = prompts, now_s + CHECK_PERIOD_S
        before, known = self.found, self.vocabulary
        unknown = {name: known.unknown(text) for name, text in prompts.items()} if known is not None else {}
        self.found = PromptsChecked({n: CheckedPrompt(prompts[n], words) for n, words in unknown.items() if words})
        return self.found != before
