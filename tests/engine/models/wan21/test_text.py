"""Prompts: cleaned as in Wan2.1, encoded by UMT5 with every way to store it, cached on disk; errors when files miss."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from bridge.cli.models import app
from engine.errors import CheckpointError, ModelError, WeightsMissingError
from engine.models import registry
from engine.models.spec import WeightFile
from engine.models.wan21 import build, text, umt5
from engine.models.wan21.text import EmbeddingCache, Tokenizer, WanTextEncoder
from engine.runtime import transfers
from engine.runtime.transfers import HostSideStream, PiecewiseUpload
from tests.support.side_stream import RecordingSideStream

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("transformers")

GOLDEN = Path(__file__).parents[3] / "golden" / "t_umt5_tiny.safetensors"
LENGTH, WIDTH = 40, 48
WORDS = ["<pad>", "</s>", "<unk>", "neon", "city", "rain", "at", "night", "it's"]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {key.removeprefix("w."): value for key, value in load_file(GOLDEN).items() if key.startswith("w.")}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with a tokenizer of few words that ends every text with </s>."""
    pieces = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    pieces.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    pieces.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture
def encoder_file(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "models_t5_tiny.pth"
    torch.save(weights, path)
    return path


def encoder(cache: Path, weights: Path | None, tokenizer: Path | None, **options: str) -> WanTextEncoder:
    return WanTextEncoder(
        "wan21-test",
        LENGTH,
        WIDTH,
        EmbeddingCache(cache, "hash"),
        weights=weights,
        tokenizer=tokenizer,
        device=torch.device("cpu"),
        **options,
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  neon\n\t city ", "neon city"),
        ("neon &amp;amp; rain", "neon & rain"),
        ("it’s “neon”", 'it\'s "neon"'),
        ("cafÃ©", "café"),
    ],
)
def test_texts_are_cleaned_as_in_wan(tokenizer: Path, text: str, cleaned: str) -> None:
    assert Tokenizer(tokenizer, 10).cleaned(text) == cleaned


def test_long_texts_are_cut_and_still_end_with_the_end_token(tokenizer: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Tokenizer(tokenizer, 10)("neon  city") == [3, 4, 1]
    assert Tokenizer(tokenizer, 4)("neon city rain at night") == [3, 4, 5, 1]
    assert "6 tokens and is cut at 4" in caplog.text


def test_a_padded_batch_equals_single_texts_followed_by_zeros(weights: dict[str, Tensor]) -> None:
    network = umt5.build(weights, torch.float32, "golden")
    data = load_file(GOLDEN)
    ids, mask = data["ids"], data["mask"]
    together = umt5.embed(network, ids, mask)
    length = int(mask[0].sum())
    torch.testing.assert_close(together[0, :length], umt5.embed(network, ids[:1, :length], mask[:1, :length])[0])
    assert together[0, length:].abs().max() == 0


def test_offloaded_weights_compute_the_same(weights: dict[str, Tensor]) -> None:
    data = load_file(GOLDEN)
    network = umt5.build(weights, torch.float32, "golden")
    stayed = umt5.embed(network, data["ids"], data["mask"])
    before = [parameter.data_ptr() for parameter in network.parameters()]
    umt5.offload_by_block(network, torch.device("cpu"), HostSideStream())
    assert torch.equal(umt5.embed(network, data["ids"], data["mask"]), stayed)
    assert [parameter.data_ptr() for parameter in network.parameters()] == before


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("fails", ["the forward", "the copy"])
def test_weights_return_to_the_cpu_when_a_block_fails(
    weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, error: BaseException, fails: str
) -> None:
    data = load_file(GOLDEN)
    network: Any = umt5.build(weights, torch.float32, "golden")
    stayed = umt5.embed(network, data["ids"], data["mask"])
    before = [parameter.data_ptr() for parameter in network.parameters()]
    umt5.offload_by_block(network, torch.device("cpu"), HostSideStream())
    sent = 0

    def fail(*_: Any, **__: Any) -> None:
        nonlocal sent
        sent += 1
        if fails == "the forward" or sent == 4:  # the embedding, then two weights of the first block
            raise error

    with monkeypatch.context() as patch:
        if fails == "the forward":
            patch.setattr(network.encoder.block[1].layer[1], "forward", fail)
        else:
            patch.setattr(PiecewiseUpload, "send", fail)
        with pytest.raises(type(error)):
            umt5.embed(network, data["ids"], data["mask"])
    assert [parameter.data_ptr() for parameter in network.parameters()] == before
    assert torch.equal(umt5.embed(network, data["ids"], data["mask"]), stayed)


def test_a_prompt_on_the_card_is_encoded_in_the_side_stream_from_page_locked_memory(
    tmp_path: Path, encoder_file: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = encoder(tmp_path / "a", encoder_file, tokenizer).encode("neon city").embedding
    side = RecordingSideStream()
    monkeypatch.setattr(text, "side_stream", lambda device: side)
    monkeypatch.setattr(transfers.PiecewiseUpload.__init__, "__defaults__", (1000,))  # several pieces a weight
    offloaded = encoder(tmp_path / "b", encoder_file, tokenizer, where="offload")
    with side.recording():
        found = offloaded.encode("neon city")
    assert torch.equal(found.embedding, on_cpu)
    assert found.embedding.device.type == "cpu"
    assert side.buffers == 2, "two page-locked buffers, however many copies there are"
    assert side.uploads > 100
    assert side.faults == []
    assert not side.is_active


def test_eight_bit_weights_need_a_quarter_and_are_close(weights: dict[str, Tensor]) -> None:
    data = load_file(GOLDEN)
    network = umt5.build(weights, torch.float32, "golden")
    exact = umt5.embed(network, data["ids"], data["mask"])
    linear_bytes = sum(m.weight.numel() * 4 for m in network.modules() if isinstance(m, nn.Linear))
    umt5.store_as_float8(network)
    stored = [m.stored for m in network.modules() if isinstance(m, umt5.Float8StoredLinear)]
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored) * 4 == linear_bytes
    error = (umt5.embed(network, data["ids"], data["mask"]) - exact).norm() / exact.norm()
    assert 0 < error < 0.2


def test_names_that_transformers_wrote_load_too(weights: dict[str, Tensor]) -> None:
    theirs = umt5.renamed(weights) | {"encoder.embed_tokens.weight": weights["token_embedding.weight"]}
    data = load_file(GOLDEN)
    ours = umt5.embed(umt5.build(weights, torch.float32, "a"), data["ids"], data["mask"])
    assert torch.equal(umt5.embed(umt5.build(theirs, torch.float32, "b"), data["ids"], data["mask"]), ours)


def test_a_file_of_something_else_is_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"has no tensor 'shared.weight'"):
        umt5.build({"head.weight": torch.zeros(1)}, torch.float32, "x.pth")
    broken = dict(weights)
    del broken["blocks.1.ffn.fc1.weight"]
    with pytest.raises(CheckpointError, match=r"1 keys missing \(encoder.block.1"):
        umt5.build(broken, torch.float32, "x.pth")


@pytest.mark.parametrize("storage", ["bfloat16", "float8"])
def test_a_prompt_is_encoded_once_and_then_needs_no_files(
    tmp_path: Path, encoder_file: Path, tokenizer: Path, storage: str
) -> None:
    first = encoder(tmp_path / "cache", encoder_file, tokenizer, storage=storage).encode(" neon  city")
    assert first.embedding.shape == (LENGTH, WIDTH)
    assert first.embedding[:3].abs().min(dim=1).values.max() > 0
    assert first.embedding[3:].abs().max() == 0
    again = encoder(tmp_path / "cache", None, None).encode("neon city")
    assert torch.equal(again.embedding, first.embedding)
    assert [path.suffix for path in (tmp_path / "cache").rglob("*.*")] == [".safetensors"]


def test_an_unknown_prompt_without_files_names_the_commands(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError) as caught:
        encoder(tmp_path, None, None).encode("neon city")
    assert "'neon city'" in str(caught.value)
    assert "tidecast models pull wan21-test" in str(caught.value)
    assert "tidecast models encode-prompts" in str(caught.value)


def test_what_a_killed_process_left_is_removed_and_what_another_writes_now_is_not(tmp_path):
    cache = EmbeddingCache(tmp_path, "a")
    cache.put("neon", torch.ones(2, WIDTH))
    left, under_way = cache.folder / "x.123.part", cache.folder / "y.456.part"
    left.write_bytes(b"half")
    os.utime(left, (1.0, 1.0))
    under_way.write_bytes(b"half")
    assert EmbeddingCache(tmp_path, "a").get("neon") is not None
    assert not left.exists() and under_way.exists()


def test_another_encoder_has_other_embeddings(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "a").put("neon", torch.ones(2, WIDTH))
    assert EmbeddingCache(tmp_path, "b").get("neon") is None
    assert EmbeddingCache(tmp_path, "a").get("neon") is not None


def test_a_damaged_file_is_encoded_again(
    tmp_path: Path, encoder_file: Path, tokenizer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = encoder(tmp_path / "cache", encoder_file, tokenizer)
    first = one.encode("rain")
    path = EmbeddingCache(tmp_path / "cache", "hash").path("rain")
    path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(one.encode("rain").embedding, first.embedding)
    assert "cannot be read" in caplog.text
    assert EmbeddingCache(tmp_path / "cache", "hash").get("rain") is not None


@pytest.mark.parametrize("fault", ["full", "a file where the folder should be"])
def test_a_prompt_that_cannot_be_stored_is_used_all_the_same(
    tmp_path: Path, encoder_file: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    one = encoder(tmp_path / "cache", encoder_file, tokenizer)
    if fault == "full":

        def full(self: Path, target: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "replace", full)
    else:
        (tmp_path / "cache").write_text("")
    found = one.encode("rain")
    assert "cannot be stored" in found.trouble and "Free some space" in found.trouble
    assert found.embedding[:2].abs().min(dim=1).values.max() > 0
    assert list(tmp_path.rglob("*.part")) == []
    if fault == "full":
        monkeypatch.undo()
        assert one.encode("rain").trouble == ""
        assert EmbeddingCache(tmp_path / "cache", "hash").get("rain") is not None


def test_an_embedding_of_another_width_is_refused(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "hash").put("neon", torch.ones(2, WIDTH + 1))
    with pytest.raises(ModelError, match=r"reads \[40, 48\]"):
        encoder(tmp_path, None, None).encode("neon")


def test_missing_packages_are_named(
    tmp_path: Path, encoder_file: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r'pip install "tidecast\[wan\]"'):
        encoder(tmp_path / "cache", encoder_file, tokenizer).encode("neon")
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ModelError, match=r'pip install "tidecast\[wan\]"'):
        encoder(tmp_path / "cache", encoder_file, tokenizer).encode("neon")


def test_a_bad_tokenizer_is_refused(tmp_path: Path, encoder_file: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Tokenizer(tmp_path / "none.json", 10)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is not a tokenizer"):
        Tokenizer(tmp_path, 10)


def test_prompts_are_encoded_beforehand_from_a_file(
    tmp_path: Path, encoder_file: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = registry.get("wan21-tiny")
    spec = replace(
        row,
        name="test-model",
        network=replace(row.network, text_len=LENGTH, text_dim=WIDTH),
        files=(
            WeightFile("text", encoder_file.name, "", 0, "someone/model", "main"),
            WeightFile("tokenizer", "tokenizer.json", "", 0, "someone/model", "main"),
        ),
    )
    monkeypatch.setitem(registry.REGISTRY, spec.name, spec)
    monkeypatch.setattr(build, "prompt_folder", lambda: tmp_path / "prompts")
    prompts = tmp_path / "show.txt"
    prompts.write_text("# the show\nneon city\n\nrain at night\nneon city\n", encoding="utf-8")
    result = CliRunner().invoke(
        app, ["encode-prompts", str(prompts), "--model", spec.name, "--dir", str(encoder_file.parent)]
    )
    assert result.exit_code == 0, result.output
    assert "2 prompts are ready for test-model" in result.output
    assert len(list((tmp_path / "prompts").rglob("*.safetensors"))) == 2
    files = {"text": encoder_file}
    recalled = build.build_text(spec, torch.device("cpu"), files).encode("rain at night")
    assert recalled.embedding[:4].abs().min(dim=1).values.max() > 0

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(build, "prompt_folder", lambda: tmp_path / "file")
    result = CliRunner().invoke(
        app, ["encode-prompts", str(prompts), "--model", spec.name, "--dir", str(encoder_file.parent)]
    )
    assert isinstance(result.exception, ModelError) and "cannot be stored" in result.exception.message


def test_prompts_for_a_model_that_needs_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "show.txt").write_text("neon city\n")
    result = CliRunner().invoke(app, ["encode-prompts", str(tmp_path / "show.txt"), "--model", "wan21-tiny"])
    assert "nothing to encode" in result.output
    assert isinstance(CliRunner().invoke(app, ["encode-prompts", str(tmp_path / "none.txt")]).exception, ModelError)
