"""Reads `AppConfig` from a TOML file and the command line.

For an unknown key or a bad value the error names file and line and offers the nearest known key. Needs the table of
controls; imports neither torch nor sockets.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.config import AppConfig
from bridge.control.modulation.controls import check_modulator
from bridge.control.osc.allow import networks
from bridge.control.table import ControlTable
from bridge.control.values import Snapshot
from bridge.process.engine.choice import AUTO, IDENTITY, lora_files, size_text
from bridge.table import TABLE, start_values
from engine.coercion import shown
from engine.errors import ConfigError, ControlError

CONFIGS_DIR = Path(str(resources.files("configs")))
"""Folder of the presets that ship with Tidecast; `--config laptop` finds `laptop.toml` in it."""

SECTION_HINT = "Name one setting in a section, as in --set output.fps=25"


def start_controls(config: AppConfig, table: ControlTable = TABLE) -> Snapshot:
    """The values of the live controls at the start: those in `[controls]`, what the section `[engine]` says, and the
    files in the folder of LoRAs.

    Raises:
        ConfigError: if `[controls]` names an unknown control or gives one an invalid value.
    """
    engine = config.engine
    model = IDENTITY if config.process.kind == "identity" else engine.model
    loras: dict[str, Any] = {f"lora_{number}": lora.strength for number, lora in enumerate(engine.loras, 1)}
    if model != IDENTITY:  # those of the configuration need no control: they are loaded with the model
        files = list(enumerate(lora_files(engine), 1))[len(engine.loras) :]
        loras |= {f"lora_{number}_file": file for number, file in files if file}
    values = loras | dict(config.controls)
    size = None if engine.size == AUTO else (engine.width, engine.height)
    chosen = {"engine_model": model, "engine_size": size_text(size)}
    return start_values(chosen | {name: start_value(name, value, table) for name, value in values.items()}, table)


def start_value(name: str, value: Any, table: ControlTable = TABLE) -> Any:
    """The value of the live control `name` that `value`, as written in `[controls]`, stands for.

    Raises:
        ConfigError: for an unknown name or an invalid value; unlike a live change, one out of range is not clamped.
    """
    control = table.by_name.get(name)
    if control is None:
        raise ConfigError(f"There is no control named {name!r}.", suggestion(name, table.by_name))
    try:
        valid = control.coerce(value)
        check_modulator(name, valid, table)
    except ControlError as error:
        raise ConfigError(f"{name} = {error.message}", error.remedy) from None
    if control.numeric and float(value) != float(valid):
        raise ConfigError(f"{name} = {shown(value)} is outside its range.", f"Use {control.low:g} to {control.high:g}.")
    return valid


def suggestion(word: str, known: Mapping[str, Any]) -> str:
    """A sentence that offers the known word nearest to `word`, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.55)
    return f"Did you mean {near[0]}?" if near else "Known here: " + ", ".join(known) + "."


def load(source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> AppConfig:
    """Read a configuration, then apply the command line's settings.

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
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        raise ConfigError(f"{path}: not valid TOML: {error}.", "Correct that line.") from None
    for dotted, value in (overrides or {}).items():
        _assign(tree, dotted, value)
    return _validate(tree, text, path, overrides or {})


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one setting of the tree by its dotted name.

    Raises:
        ConfigError: if a part of the name but the last one is not a section.
    """
    *sections, key = dotted.split(".")
    table = tree
    for number, section in enumerate(sections, 1):
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            name = ".".join(sections[:number])
            raise ConfigError(f"{dotted} cannot be set: {name} is {shown(inner)}, not a section.", SECTION_HINT)
        table = inner
    table[key] = value


def find(source: str | Path) -> Path:
    """The file that `--config` names: a path, or a preset.

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
        if first["type"] == "model_type":
            raise ConfigError(
                f"{place(keys)}{name} = {shown(first['input'])} is not valid: {name} is a section.", SECTION_HINT
            ) from None
        raise ConfigError(
            f"{place(keys)}{name} = {shown(first['input'])} is not valid: {first['msg'].lower()}.", _help_at(keys)
        ) from None
    for name, value in config.controls.items():
        try:
            start_value(name, value)
        except ConfigError as error:
            raise ConfigError(f"{place(('controls', name))}{error.message}", error.remedy) from None
    try:
        networks(config.osc.allow)
    except ConfigError as error:
        raise ConfigError(f"{place(('osc', 'allow'))}{error.message}", error.remedy) from None
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
