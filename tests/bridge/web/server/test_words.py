"""The words of the model for pages: their pictures, and the check of the prompts."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image

from bridge.web.messages import WordsKnown
from bridge.web.server.page_messages import CheckedPrompt, PageWords, PromptsChecked
from bridge.web.server.words import CHECK_PERIOD_S, MAX_BYTES, PromptCheck, page_words
from engine.models.ember.vocabulary import EMBER, EMBER_2, PICTURES
from engine.models.vocabulary import Unknown, Vocabulary
from tests.support.browser import wait
from tests.support.web_stage import Stage


def test_the_shipped_pictures_belong_to_the_words_and_have_their_size() -> None:
    made = page_words(EMBER)
    assert [word for word, _ in made.words] == list(EMBER.words)
    assert made.pictures is not None and len(made.pictures.jpeg) <= 250_000
    width, height = Image.open(io.BytesIO(made.pictures.jpeg)).size
    tile, columns = made.pictures.tile, made.pictures.columns
    assert (width, height) == (tile * columns, tile * -(-len(EMBER.words) // columns))


def test_a_model_that_takes_any_sentence_has_no_words_and_no_pictures() -> None:
    assert page_words(None) == PageWords()
    assert page_words(EMBER_2).words and page_words(EMBER_2).pictures is None


@pytest.mark.parametrize("wrong", ["other words", "no picture", "no JSON", "no sizes", "a huge picture"])
def test_pictures_that_cannot_be_used_are_left_out(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    described = tmp_path / "words.json"
    content = json.loads(PICTURES.read_text("utf-8"))
    if wrong == "other words":
        content["words"] = content["words"][::-1]
    if wrong == "no sizes":
        content["tile"] = 0
    described.write_text("{" if wrong == "no JSON" else json.dumps(content), "utf-8")
    if wrong != "no picture":
        described.with_suffix(".jpg").write_bytes(b"x" * (MAX_BYTES + 1 if wrong == "a huge picture" else 10))
    made = page_words(dataclasses.replace(EMBER, pictures=str(described)))
    assert made.pictures is None and len(made.words) == len(EMBER.words)
    assert "pictures" in caplog.text.lower()


def test_prompts_are_checked_when_they_change_but_not_too_often() -> None:
    check = PromptCheck()
    controls = {"prompt_1": "fire zzz", "prompt_2": "fire", "prompt_seconds": 1.0}
    assert not check.changed(controls, 0.0), "nothing is known yet"
    check.know(Vocabulary(("fire",), {}))
    assert check.changed(controls, 0.0)
    assert check.found == PromptsChecked({"prompt_1": CheckedPrompt("fire zzz", (Unknown(5, 8, ""),))})
    controls["prompt_1"] = "firr"
    assert not check.changed(controls, CHECK_PERIOD_S / 2)
    assert check.changed(controls, CHECK_PERIOD_S)
    assert check.found.prompts["prompt_1"].unknown == (Unknown(0, 4, "fire"),)
    check.know(None)
    assert check.changed(controls, CHECK_PERIOD_S) and check.found == PromptsChecked({})


def test_the_pictures_are_served_for_the_words_that_the_model_says() -> None:
    with Stage() as show, httpx.Client(base_url=show.web.url, trust_env=False, timeout=30.0) as http:
        assert http.get("api/words.jpg").status_code == 404 and http.get("api/state").json()["words"] is None
        show.words = WordsKnown(EMBER)
        wait(lambda: http.get("api/state").json()["words"], "the words")
        words = http.get("api/state").json()["words"]
        answer = http.get(words["pictures"]["address"])
        assert answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"
        show.words = WordsKnown(None)
        wait(lambda: http.get("api/words.jpg").status_code == 404, "the pictures to go")
        assert http.get("api/state").json()["words"] == {"list": [], "pictures": None}
