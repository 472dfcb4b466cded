"""Everything that is chosen before the start: `AppConfig`, read from a TOML file and the command line.

Live controls are not here (they are `engine.controls.Controls`); the section `[controls]` only gives their
values at the start. Knows files and pydantic, neither torch nor sockets. An unknown key or a bad value is
named with file and line, and the nearest known key is offered.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.controls import BY_NAME, Config, Controls
from engine.errors import ConfigError, ControlError

CONFIGS_DIR = Path(__file__).resolve().parent.parent / "configs"
"""Folder of the presets that ship with Tidecast; `--config laptop` finds `laptop.toml` in it."""


class Section(BaseModel):
    """A table of the configuration file: frozen, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConfig(Section):
    """Where the picture comes from."""

    uri: str = Field("pattern:bars", description="ndi:NAME, spout:NAME, file:PATH, camera:0, pattern:NAME.")
    extra_ips: tuple[str, ...] = Field(
        (),
        description="Addresses of machines whose NDI sources mDNS does not reach.",
    )


class OutputConfig(Section):
    """Where the restyled picture goes."""

    uri: str = Field("ndi:Tidecast", description="ndi:NAME, spout:NAME, file:PATH or null:")
    fps: float = Field(0.0, ge=0.0, le=240.0, description="Frames per second; 0 follows the source.")


class OscConfig(Section):
    """The control port."""

    enabled: bool = Field(True, description="Listen for OSC.")
    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 for the whole network.")
    port: int = Field(9000, ge=0, le=65535, description="UDP port; 0 takes a free one.")
    compat: tuple[str, ...] = Field(
        (), description="Programs whose addresses are understood too: streamdiffusiontd, scope, resolume."
    )
    compat_port: int = Field(0, ge=0, le=65535, description="UDP port for them; 0 is the program's own.")


EXAMPLES = (
    "neon",
    "comic",
    "fire",
    "ink",
    "kaleidoscope",
    "gold",
    "hatch",
    "pixel",
    "blueprint",
    "acid",
    "halftone",
    "ocean",
)
"""Prompts that every model understands; the embedded one draws each of them well."""


class WebConfig(Section):
    """The control room page and OSCQuery."""

    enabled: bool = Field(True, description="Serve the control room.")
    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 for the whole network.")
    port: int = Field(9001, ge=0, le=65535, description="TCP port of page and OSCQuery; 0: a free one.")
    token: str = Field("", description="Token of the page; empty for a new one at each start where one is needed.")
    oscquery: bool = Field(True, description="Serve OSCQuery there also without the page.")
    announce: bool = Field(True, description="Announce OSCQuery by mDNS.")
    examples: tuple[str, ...] = Field(EXAMPLES, description="Prompts that the page offers, one tap each.")


class MidiConfig(Section):
    """A controller plugged in."""

    enabled: bool = Field(False, description="Listen to a MIDI controller.")
    port: str = Field("", description="Part of the controller's name; empty takes the first one.")


class EngineProcessConfig(Section):
    """How the engine process is watched."""

    kind: Literal["model", "identity"] = Field("model", description="A model, or the bridge alone.")
    stall_seconds: float = Field(
        0.75, ge=0.1, le=60.0, description="Wait for the engine before the input is shown; a slow model gets longer."
    )
    hang_seconds: float = Field(10.0, ge=0.2, le=3600.0, description="Silence that ends the engine.")
    load_seconds: float = Field(900.0, ge=1.0, le=86400.0, description="The same, while it loads.")
    backoff_seconds: float = Field(0.5, ge=0.0, le=60.0, description="First wait for a restart; doubles.")
    backoff_max_seconds: float = Field(15.0, ge=0.0, le=600.0, description="Longest wait for a restart.")
    debug: bool = Field(False, description="Obey the fault commands of `tidecast bench faults`.")


class StorageConfig(Section):
    """Where things that survive a restart are kept."""

    state_dir: str = Field("", description="Folder of snapshots and MIDI bindings; empty for the user's own.")
    record_dir: str = Field("", description="Folder of recordings; empty for the user's video folder.")


class AppConfig(Section):
    """Everything that is chosen before the start; frozen from then on."""

    engine: Config = Config()
    input: InputConfig = InputConfig()
    output: OutputConfig = OutputConfig()
    osc: OscConfig = OscConfig()
    web: WebConfig = WebConfig()
    midi: MidiConfig = MidiConfig()
    process: EngineProcessConfig = EngineProcessConfig()
    storage: StorageConfig = StorageConfig()
    controls: dict[str, Any] = Field(default_factory=dict, description="Live controls at the start, by name.")

    def start_controls(self) -> Controls:
        """The live controls that are in force at the start.

        Raises:
            ConfigError: if `controls` names an unknown control or holds a value that it cannot take.
        """
        values = {name: start_value(name, value) for name, value in self.controls.items()}
        return dataclasses.replace(Controls(), **values)


def start_value(name: str, value: Any) -> Any:
    """The valid value of the live control `name`, which `value` was written for in `[controls]`.

    Raises:
        ConfigError: for an unknown name or a value that the control cannot take; ranges are not clamped here.
    """
    control = BY_NAME.get(name)
    if control is None:
        raise ConfigError(f"There is no control named {name!r}.", suggestion(name, BY_NAME))
    try:
        valid = control.coerce(value)
    except ControlError as error:
        raise ConfigError(f"{name} = {error.message}", error.remedy) from None
    if control.numeric and float(value) != float(valid):
        raise ConfigError(f"{name} = {value!r} is outside its range.", f"Use {control.low:g} to {control.high:g}.")
    return valid


def suggestion(word: str, known: Mapping[str, Any]) -> str:
    """A sentence that offers the known word nearest to `word`, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.55)
    return f"Did you mean {near[0]}?" if near else "Known here: " + ", ".join(known) + "."


def load(source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> AppConfig:
    """Read a configuration and lay the command line's choices over it.

    Args:
        source: a TOML file, the name of a preset in `configs/`, or None for the defaults.
        overrides: dotted keys, such as `{"input.uri": "ndi:CAM"}`; they win over the file.

    Raises:
        ConfigError: naming file and line, what was wrong and the nearest valid choice.
    """
    text, path = "", None
    if source is not None:
        path = find(source)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.", "Name a TOML file in UTF-8.") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.", "Correct that line.") from None
    for dotted, value in (overrides or {}).items():
        *sections, key = dotted.split(".")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = value
    return _validate(tree, text, path, overrides or {})


def find(source: str | Path) -> Path:
    """The file that `--config` means: a path, or the name of a preset.

    Raises:
        ConfigError: if there is no such file; names the presets.
    """
    path = Path(source)
    if path.is_file():
        return path
    preset = CONFIGS_DIR / f"{source}.toml"
    if preset.is_file():
        return preset
    names = presets()
    raise ConfigError(
        f"There is no configuration {str(source)!r}.",
        f"Give a TOML file or one of the presets: {', '.join(names)}." if names else "Give a TOML file.",
    )


def presets() -> tuple[str, ...]:
    """Names of the presets in `configs/`."""
    return tuple(sorted(p.stem for p in CONFIGS_DIR.glob("*.toml")))


def _validate(tree: dict[str, Any], text: str, path: Path | None, overrides: Mapping[str, Any]) -> AppConfig:
    def place(keys: tuple[str, ...]) -> str:
        if ".".join(keys) in overrides:
            return f"--{keys[-1].replace('_', '-')}: "
        line = line_of(text, keys)
        if path is None:
            return ""
        return f"{path}:{line}: " if line else f"{path}: "

    try:
        config = AppConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(part) for part in first["loc"])
        name = ".".join(keys)
        if first["type"] == "extra_forbidden":
            known = _fields_at(keys[:-1])
            raise ConfigError(f"{place(keys)}unknown key {name}.", suggestion(keys[-1], known)) from None
        shown = repr(first["input"])[:60]
        raise ConfigError(
            f"{place(keys)}{name} = {shown} is not valid: {first['msg'].lower()}.", _help_at(keys)
        ) from None
    for name, value in config.controls.items():
        try:
            start_value(name, value)
        except ConfigError as error:
            raise ConfigError(f"{place(('controls', name))}{error.message}", error.remedy) from None
    return config


def _fields_at(keys: tuple[str, ...]) -> dict[str, Any]:
    model: Any = AppConfig
    for key in keys:
        model = model.model_fields[key].annotation
    return dict(model.model_fields)


def _help_at(keys: tuple[str, ...]) -> str:
    """The help of the setting at `keys`; empty inside lists and for whole sections."""
    model: Any = AppConfig
    help_text = ""
    for key in keys:
        fields = getattr(model, "model_fields", {})
        if key not in fields:
            break
        help_text = fields[key].description or ""
        model = fields[key].annotation
    return f"Meaning: {help_text}" if help_text else ""


_KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """Line (from 1) at which the TOML `text` sets `keys`, else that of its section; 0 if it is nowhere."""
    section: tuple[str, ...] = ()
    section_line = 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            section = _dotted(header.group(1))
            if section == keys[: len(section)]:
                section_line = number
            continue
        setting = re.match(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=", line)
        if setting and section + _dotted(setting.group(1)) in {keys[:n] for n in range(1, len(keys) + 1)}:
            return number
    return section_line


def _dotted(name: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in name.split("."))
