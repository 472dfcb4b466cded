"""Which models and sizes can be chosen, and what the refusal of another one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import AppConfig
from bridge.config_file import start_controls
from bridge.control.origin import Origin, Trust
from bridge.control.store import ControlStore
from bridge.process.engine.choice import (
    LARGEST_AREA,
    OFFERED_SIZES,
    EngineChoice,
    EngineControls,
    check_model,
    check_size,
    configured,
    lora_files,
    lora_folder,
    offered,
    parse,
)
from bridge.table import TABLE
from engine.config import Config, LoraConfig
from engine.errors import ConfigError, ControlError, ModelError
from engine.models import registry

STRANGER = Origin("osc:far", Trust.NETWORK)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512x288", (512, 288)),
        (" 512 X 288 ", (512, 288)),
        ("512×288", (512, 288)),
        ("32x4096", (32, 4096)),
        ("auto", None),
        ("AUTO", None),
    ],
)
def test_sizes_are_read(text: str, size: tuple[int, int] | None) -> None:
    assert parse(text) == size
    check_size(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("300x200", "288x192 or 304x208"),
        ("512x290", "512x288 or 512x304"),
        ("0x0", "32x32"),
        ("4096x4096", "2880x2880"),
        ("999999x16", "4096x32"),
        ("5000x100", "4096x96 or 4096x112"),
    ],
)
def test_a_size_that_no_model_can_have_names_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_size(text)
    assert caught.value.remedy == f"Use {nearest}."
    for near in nearest.split(" or "):
        check_size(near)
        width, height = map(int, near.split("x"))
        assert Config(width=width, height=height) and width * height <= LARGEST_AREA


@pytest.mark.parametrize("text", ["", "large", "512", "512x", "-16x16", "16.5x16", "1e3x16", "512x288x3"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"512x288, or auto"):
        check_size(text)


def test_a_configured_size_beyond_what_can_be_chosen_live_is_still_read() -> None:
    assert EngineControls(engine_size="4096x4096").choice == EngineChoice("ember", (4096, 4096))


@pytest.mark.parametrize("name", ["", "embers", "../ember", "/etc/passwd", "C:\\models\\a", "file:ember", "ember\0"])
def test_only_names_of_the_model_table_can_be_chosen_whoever_sends_them(name: str) -> None:
    with pytest.raises(ModelError, match="Choose one of ember"):
        check_model(name)
    store = ControlStore(TABLE)
    with pytest.raises(ControlError, match="There is no model named"):
        store.set("engine_model", name, STRANGER)
    assert store.snapshot.of(EngineControls).engine_model == "ember"


def test_a_stranger_may_choose_every_model_of_the_table() -> None:
    store = ControlStore(TABLE)
    for name in (*registry.REGISTRY, "identity"):
        store.set("engine_model", name, STRANGER)
        assert store.snapshot.of(EngineControls).choice.model == name


def test_neither_is_stored_in_snapshots_or_shows() -> None:
    assert {TABLE.by_name[name].stored for name in ("engine_model", "engine_size")} == {"never"}


def test_another_model_leaves_behind_what_was_configured_for_the_first() -> None:
    start = Config(model="wan21-1.3b", vae="tiny", cache="honest", threads=3, loras=(LoraConfig(file="a.safetensors"),))
    same = configured(start, EngineChoice("wan21-1.3b", (512, 512)), (512, 512))
    assert (same.vae, same.cache, len(same.loras), same.width, same.threads) == ("tiny", "honest", 1, 512, 3)
    other = configured(start, EngineChoice("ember", (64, 48)), (64, 48))
    assert (other.model, other.vae, other.cache, other.loras) == ("ember", "auto", "auto", ())
    assert (other.width, other.height, other.threads) == (64, 48, 3)
    assert configured(start, EngineChoice("identity", (64, 48)), (64, 48)).model == "wan21-1.3b"


def test_loras_in_the_folder_of_the_model_follow_those_of_the_configuration(tmp_path: Path) -> None:
    config = Config(model="wan21-tiny", weights_dir=str(tmp_path), loras=(LoraConfig(file="a.safetensors"),))
    assert lora_files(config) == ("a.safetensors", *[""] * 7), "usually there is no folder"
    folder = lora_folder(config)
    assert folder == tmp_path / "loras" / "wan21-tiny"
    folder.mkdir(parents=True)
    for name in ("noir.safetensors", "Ink.PT", "notes.txt"):
        (folder / name).touch()
    wanted = ("a.safetensors", str(folder / "Ink.PT"), str(folder / "noir.safetensors"))
    assert lora_files(config) == (*wanted, *[""] * 5)
    assert lora_files(config.model_copy(update={"model": "wan21-1.3b", "loras": ()})) == ("",) * 8
    for number in range(9):
        (folder / f"{number}.safetensors").touch()
    assert lora_files(config)[7] == str(folder / "6.safetensors"), "as many as there are slots"
    start = start_controls(AppConfig(engine=config))
    assert start.value("lora_1_file") == "" and start.value("lora_1") == 1.0, "it is loaded with the model"
    assert start.value("lora_2_file") == str(folder / "0.safetensors") and start.value("lora_2") == 0.0
    assert start_controls(AppConfig(engine=config, controls={"lora_2_file": "b.pt"})).value("lora_2_file") == "b.pt"


def test_the_page_is_told_which_models_have_no_files_here(tmp_path: Path) -> None:
    told = offered(Config(weights_dir=str(tmp_path)))
    notes = {row["name"]: row["note"] for row in told["models"]}
    assert set(notes) == {*registry.REGISTRY, "identity"}
    assert notes["wan21-1.3b"] == "Its files are not here: tidecast models pull wan21-1.3b"
    assert notes["ember"] == notes["wan21-tiny"] == notes["identity"] == ""
    assert told["sizes"] == list(OFFERED_SIZES)
    for text in OFFERED_SIZES:
        check_size(text)
