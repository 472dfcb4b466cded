"""Model files: found in every usual folder, verified, downloaded from a hub on loopback with resume, and pinned."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli.models import app
from engine.errors import CheckpointError, ModelError, WeightsMissingError
from engine.models import registry, weights
from engine.models.spec import WeightFile
from engine.models.weights import State
from tests.support.hub import COMMIT, Hub

NETWORK = bytes(range(256)) * 2000
VAE = b"autoencoder" * 1000
TOKENS = b"{}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(role: str, path: str, content: bytes, *, pinned: bool, repository: str = "someone/Model-1") -> WeightFile:
    known = (sha256(content), len(content)) if pinned else ("", 0)
    return WeightFile(role, path, *known, repository=repository, revision=COMMIT if pinned else "main")


SPEC = replace(
    registry.get("wan21-tiny"),
    name="test-model",
    files=(
        file("dit", "net/model.pt", NETWORK, pinned=False),
        file("vae", "vae.pth", VAE, pinned=True, repository="other/Shared"),
        file("tokenizer", "tok/tokenizer.json", TOKENS, pinned=True, repository="other/Shared"),
    ),
)
DIT, CODEC, TOKENIZER = SPEC.files
SERVED = {
    "someone/Model-1/net/model.pt": NETWORK,
    "other/Shared/vae.pth": VAE,
    "other/Shared/tok/tokenizer.json": TOKENS,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(dict(SERVED)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.REGISTRY, SPEC.name, SPEC)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's library write every 32 KiB instead of every 10 MB, so that small files can be interrupted."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 32_768)


def resumed_at(hub: Hub) -> list[int]:
    return [int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0 for wanted in hub.ranges]


def put(root: Path, where: str, content: bytes = b"x") -> Path:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("where", ["someone/Model-1/net/model.pt", "Model-1/net/model.pt", "net/model.pt"])
def test_files_are_found_where_downloads_put_them(where: str, tmp_path: Path) -> None:
    assert weights.find(DIT, tmp_path) is None
    path = put(tmp_path, where)
    assert weights.find(DIT, tmp_path) == path


def test_locating_needs_network_and_autoencoder_but_no_text_encoder(tmp_path: Path) -> None:
    put(tmp_path, "net/model.pt")
    with pytest.raises(WeightsMissingError, match=r"lacks other/Shared/vae.pth.*tidecast models pull test-model"):
        weights.locate(SPEC, tmp_path, vae="full")
    put(tmp_path, "vae.pth")
    found = weights.locate(SPEC, tmp_path, vae="full")
    assert found == {"dit": tmp_path / "net/model.pt", "vae": tmp_path / "vae.pth"}
    put(tmp_path, "tok/tokenizer.json")
    assert weights.locate(SPEC, tmp_path, vae="full")["tokenizer"] == tmp_path / "tok/tokenizer.json"


def test_a_part_in_several_files_is_located_as_their_folder(tmp_path: Path) -> None:
    shards = tuple(file("dit", f"big/shard-{i}.safetensors", b"", pinned=False) for i in (1, 2))
    spec = replace(SPEC, files=shards)
    put(tmp_path, "big/shard-1.safetensors")
    with pytest.raises(WeightsMissingError, match=r"lacks someone/Model-1/big/shard-2"):
        weights.locate(spec, tmp_path, vae="full")
    put(tmp_path, "big/shard-2.safetensors")
    assert weights.locate(spec, tmp_path, vae="full") == {"dit": tmp_path / "big"}


def test_rows_without_files_need_none(tmp_path: Path) -> None:
    assert weights.locate(registry.get("wan21-tiny"), tmp_path, vae="full") == {}


def test_pull_downloads_pins_files_without_a_hash_and_verifies(hub: Hub, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    verdicts = weights.pull(SPEC.files, tmp_path, lambda f, done, total: heard.append((f.path, done, total)))
    assert [v.state for v in verdicts] == [State.PINNED_HERE, State.GOOD, State.GOOD]
    assert heard[-1][1] == heard[-1][2]
    pins = json.loads((tmp_path / "pins.json").read_text())
    assert pins == {
        "someone/Model-1/net/model.pt": {"revision": COMMIT, "sha256": sha256(NETWORK), "bytes": len(NETWORK)}
    }
    assert [v.state for v in weights.verify(SPEC.files, tmp_path)] == [State.PINNED_HERE, State.GOOD, State.GOOD]
    downloads = len(hub.ranges)
    assert weights.pull(SPEC.files, tmp_path) == []
    assert len(hub.ranges) == downloads
    assert weights.locate(SPEC, tmp_path, vae="full")["dit"].read_bytes() == NETWORK


def test_a_lost_connection_is_resumed(hub: Hub, small_chunks: None, tmp_path: Path) -> None:
    hub.cut_after = 300_000
    assert weights.pull([DIT], tmp_path)[0].path.read_bytes() == NETWORK
    assert resumed_at(hub) == [0, 294_912]


def test_an_interrupted_pull_continues_where_it_stopped(hub: Hub, small_chunks: None, tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def end(_file: WeightFile, done: int, _total: int) -> None:
        if done > 200_000:
            raise Ended

    with pytest.raises(Ended):
        weights.pull([DIT], tmp_path, end)
    assert weights.find(DIT, tmp_path) is None
    assert weights.pull([DIT], tmp_path)[0].path.read_bytes() == NETWORK
    assert len(resumed_at(hub)) == 2 and resumed_at(hub)[1] >= 196_608


def test_a_file_that_arrives_damaged_is_removed(hub: Hub, tmp_path: Path) -> None:
    hub.files["other/Shared/vae.pth"] = VAE[:-1] + b"!"
    hub.told_sha256["other/Shared/vae.pth"] = sha256(VAE)
    with pytest.raises(CheckpointError, match="arrived damaged"):
        weights.pull([CODEC], tmp_path)
    assert weights.find(CODEC, tmp_path) is None
    hub.files["other/Shared/vae.pth"] = VAE
    assert weights.pull([CODEC], tmp_path)[0].state is State.GOOD


def test_a_file_with_another_hash_is_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.files["other/Shared/vae.pth"] = b"something else"
    with pytest.raises(CheckpointError, match="is not the file that is known"):
        weights.pull([CODEC], tmp_path)
    assert hub.ranges == []


def test_a_file_that_changed_since_its_first_download_is_refused(hub: Hub, tmp_path: Path) -> None:
    path = weights.pull([DIT], tmp_path)[0].path
    path.unlink()
    hub.files["someone/Model-1/net/model.pt"] = b"swapped"
    with pytest.raises(CheckpointError, match="is not the file that is known"):
        weights.pull([DIT], tmp_path)


def test_too_little_disk_space_is_reported_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=weights.SPARE_BYTES + len(NETWORK)))
    with pytest.raises(ModelError, match=r"GiB free, but the download needs"):
        weights.pull(SPEC.files, tmp_path)
    assert hub.ranges == []
    assert weights.pull([DIT], tmp_path)[0].state is State.PINNED_HERE


def test_two_downloads_into_one_folder_are_refused(hub: Hub, tmp_path: Path) -> None:
    def second(*_: object) -> None:
        with pytest.raises(ModelError, match="Another download"):
            weights.pull([CODEC], tmp_path)

    assert weights.pull([DIT], tmp_path, second)[0].state is State.PINNED_HERE
    assert weights.pull([CODEC], tmp_path)[0].state is State.GOOD


def test_a_folder_that_cannot_be_used_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be used"):
        weights.pull([DIT], tmp_path / "file" / "models")


def test_errors_of_the_hub_have_clear_messages(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no longer where it was"):
        weights.pull([replace(DIT, path="gone.pt")], tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="Check the network"):
        weights.pull([DIT], tmp_path)


def test_verify_reports_what_is_wrong(tmp_path: Path) -> None:
    put(tmp_path, "vae.pth", VAE[:-1])
    put(tmp_path, "tok/tokenizer.json", b"[]")
    put(tmp_path, "net/model.pt", NETWORK)
    verdicts = weights.verify(SPEC.files, tmp_path)
    assert [v.state for v in verdicts] == [State.UNPINNED, State.WRONG_SIZE, State.WRONG_CONTENT]
    assert verdicts[0].sha256 == sha256(NETWORK)
    assert weights.verify([CODEC], tmp_path / "empty")[0].state is State.MISSING


def test_every_row_of_the_table_is_pinned_or_says_that_it_is_not() -> None:
    for spec in registry.REGISTRY.values():
        for one in spec.files:
            assert one.repository and one.path and one.revision, one
            assert len(one.sha256) in (0, 64), one
            assert one.bytes or one.about_bytes, one
            assert one.sha256 or len(one.revision) == 40 or one.revision == "main", one


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_commands_pull_verify_and_list(hub: Hub, row: None, tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path))
    code, text = run("verify", SPEC.name, *folder)
    assert code == 1 and text.count("missing") == 3 and "tidecast models pull test-model" in text
    assert "test-model" in run("list", *folder)[1]
    code, text = run("pull", SPEC.name, *folder)
    assert code == 0
    assert "3 files downloaded" in text and f"pinned as sha256 {sha256(NETWORK)}" in text.replace("\n", " ")
    assert "0 files downloaded" in run("pull", SPEC.name, *folder)[1]
    assert run("verify", SPEC.name, *folder)[0] == 0
    put(tmp_path, "someone/Model-1/net/model.pt", NETWORK[:-1] + b"!")
    code, text = run("verify", SPEC.name, *folder)
    assert code == 1 and "wrong content" in text


def test_pull_takes_only_what_is_asked_for(hub: Hub, row: None, tmp_path: Path) -> None:
    run("pull", SPEC.name, "--dir", str(tmp_path), "--vae", "full", "--no-text")
    assert weights.find(DIT, tmp_path) and weights.find(CODEC, tmp_path)
    assert weights.find(TOKENIZER, tmp_path) is None
    assert run("pull", SPEC.name, "--dir", str(tmp_path), "--vae", "big")[0] == 2


def test_unknown_models_and_models_without_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Choose one of"):
        run("pull", "nonsense")
    assert "needs no download" in run("pull", "wan21-tiny", "--dir", str(tmp_path))[1]
