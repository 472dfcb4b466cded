"""A mistake in a configuration is named with its file, its line and what was probably meant."""

from __future__ import annotations

import pytest

from bridge.config import AppConfig
from bridge.config_file import line_of, load, presets, start_controls
from bridge.table import TABLE, start_values
from engine.errors import ConfigError


@pytest.fixture
def written(tmp_path):
    """Write a configuration and give its path."""

    def write(text: str):
        path = tmp_path / "show.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[engine]\nmodel = "ember"\nwidht = 512\n', 3, ("widht", "Did you mean width")),
        ("[engine]\nwidth = 500\n", 2, ("500", "multiple of 16")),
        ("[engin]\nwidth = 512\n", 1, ("engin", "Did you mean engine")),
        ("[osc]\n# a comment\nport = 70000\n", 3, ("70000", "65535")),
        ('[osc]\nport = "nine"\n', 2, ("nine", "integer")),
        ("osc.prot = 9000\n", 1, ("prot", "Did you mean port")),
        ("[controls]\nstrength = 0.5\nstrenght = 0.5\n", 3, ("strenght", "Did you mean strength")),
        ("[controls]\nprompt_1 = 'fire'\nsteps = 9\n", 3, ("9", "1 to 4")),
        ("[controls]\nfit = 'squeeze'\n", 2, ("squeeze", "cover, contain, stretch")),
        ("[input]\nuri = 7\n", 2, ("input.uri", "7", "string")),
        ("input = 'ndi:CAM'\n", 1, ("input", "ndi:CAM")),
        ("[engine\nwidth = 512\n", 1, ("TOML",)),
        ("engine = 3\n", 1, ("engine = 3", "section")),
    ],
)
def test_a_mistake_is_named_with_file_and_line(written, text, line, words):
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    said = str(caught.value)
    assert f"{path}" in said
    assert f":{line}" in said or f"line {line}" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("text", ["a = 1" + "0" * 5000, "a = " + "[" * 5000])
def test_a_file_that_cannot_be_read_is_named(written, text):
    path = written(text)
    with pytest.raises(ConfigError, match="TOML") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_every_preset_is_valid_and_changes_something():
    assert {"demo", "laptop", "gpu-24"} <= set(presets())
    for name in presets():
        config = load(name)
        assert config != AppConfig(), name
        start_controls(config)


def test_the_command_line_wins_over_the_file(written):
    path = written("[engine]\nwidth = 512\n[controls]\nstrength = 0.25\n")
    config = load(path, {"engine.width": 640, "input.uri": "file:a.mp4"})
    assert config.engine.width == 640
    assert config.input.uri == "file:a.mp4"
    assert start_controls(config).value("strength") == 0.25


def test_a_mistake_on_the_command_line_does_not_blame_the_file(written):
    path = written("[engine]\nheight = 512\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {"engine.width": 7})
    assert str(path) not in str(caught.value)
    assert "engine.width" in str(caught.value)


def test_a_missing_file_names_the_presets():
    with pytest.raises(ConfigError, match="laptop"):
        load("no-such-show")


def test_every_control_can_be_set_at_the_start():
    values = {control.name: control.default for control in TABLE.controls}
    config = load(None, {f"controls.{name}": value for name, value in values.items()})
    assert start_controls(config) == start_values({})


def test_lines_are_found_in_every_way_of_writing():
    text = "a.b = 1\n[c]\n'd' = 2\n[c.e]\nf = 3\n[[g]]\n"
    assert line_of(text, ("a", "b")) == 1
    assert line_of(text, ("c", "d")) == 3
    assert line_of(text, ("c", "e", "f")) == 5
    assert line_of(text, ("c", "e", "missing")) == 4
    assert line_of(text, ("nowhere",)) == 0


def test_the_engine_starts_with_what_its_section_says_unless_the_controls_say_otherwise(written):
    path = written('[engine]\nmodel = "wan21-1.3b"\nwidth = 512\nheight = 288\n')
    start = start_controls(load(path))
    assert (start.value("engine_model"), start.value("engine_size")) == ("wan21-1.3b", "512x288")
    assert start_controls(load(path, {"engine.size": "auto"})).value("engine_size") == "auto"
    start = start_controls(load(path, {"controls.engine_model": "ember", "controls.engine_size": "64x64"}))
    assert (start.value("engine_model"), start.value("engine_size")) == ("ember", "64x64")
    assert start_controls(load(path, {"process.kind": "identity"})).value("engine_model") == "identity"
    with pytest.raises(ConfigError, match=r"engine_size = .*Use 288x192 or 304x208"):
        load(path, {"controls.engine_size": "300x200"})
