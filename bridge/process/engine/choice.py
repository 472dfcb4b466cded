"""The choice of a model and of the size of its picture, which may change while the show runs. Loads no torch.

The controls take the names of the model table and sizes, never a path: whoever may set controls may choose.
"""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.control import NEVER, live
from engine.controls import LORA_ENDINGS, LORA_SLOTS
from engine.errors import ConfigError, ModelError, TidecastError
from engine.models import registry, weights

IDENTITY = "identity"
"""The name that stands for the bridge without a model: the engine returns its frames unchanged."""

AUTO = "auto"
"""The value of the control `engine_size` that has the size measured and chosen."""

MULTIPLE = 16
"""Both sides are multiples of this: the autoencoder's stride times the patch size."""

LEAST_SIDE, LARGEST_SIDE = 32, 4096
LARGEST_AREA = 3840 * 2160
"""Most pixels of the model's picture."""

Size = tuple[int, int]
"""Width and height in pixels."""

OFFERED_SIZES = (
    AUTO,
    "256x256",
    "336x192",
    "384x224",
    "512x288",
    "512x512",
    "640x352",
    "832x480",
    "1024x576",
    "1280x720",
)
"""What the page offers; every other valid size can be typed."""

_CONFIG = Config()


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """A model and the size of its picture.

    Attributes:
        model: a name in the model table, or `IDENTITY`.
        size: width and height in pixels; None to have it measured (`AUTO`).
    """

    model: str
    size: Size | None

    def __str__(self) -> str:
        return f"{self.model} {size_text(self.size)}"


@dataclass(frozen=True, slots=True)
class SizeTrial:
    """What is measured where the size is `AUTO`.

    Attributes:
        sizes: those that are tried, smallest first.
        fps: pictures per second that must hold.
    """

    sizes: tuple[Size, ...]
    fps: float


def size_text(size: Size | None) -> str:
    """A size as the control has it."""
    return AUTO if size is None else f"{size[0]}x{size[1]}"


def know(config: Config) -> None:
    """Add the families of models that the configuration names to the model table.

    Raises:
        ModelError: one of them is no family, or has a model whose name is taken.
    """
    for package in config.families:
        registry.register(package)


def check_model(name: str) -> None:
    """Check the value of the control `engine_model`.

    Raises:
        ModelError: there is no such model.
    """
    if name != IDENTITY and name not in registry.REGISTRY:
        raise ModelError(
            f"There is no model named {name[:40]!r}.", f"Choose one of {', '.join((*registry.REGISTRY, IDENTITY))}."
        )


def check_size(text: str) -> None:
    """Check the value of the control `engine_size`.

    Raises:
        ConfigError: it is no size that a model can have; the remedy names the nearest ones.
    """
    size = parse(text)
    if size is not None and size[0] * size[1] > LARGEST_AREA:
        raise _impossible(size)


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Size | None:
    """The size that `text` stands for; None for the word `AUTO`.

    Raises:
        ConfigError: it is neither, or a side is not a multiple of 16 or outside the limits of a configuration.
    """
    word = text.strip().lower()
    if word == AUTO:
        return None
    found = re.fullmatch(r"([0-9]{1,6})\s*[x×*, ]\s*([0-9]{1,6})", word)
    if found is None:
        raise ConfigError(
            f"{text[:40]!r} is no size for the model.", f"Write width x height, such as 512x288, or {AUTO}."
        )
    size = int(found[1]), int(found[2])
    if any(side % MULTIPLE or not LEAST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise _impossible(size)
    return size


def _impossible(size: Size) -> ConfigError:
    """The error for a size that no model can have."""
    nearest = " or ".join(size_text(near) for near in _nearest(size))
    return ConfigError(
        f"The model cannot work at {size_text(size)}: both sides are multiples of {MULTIPLE} from {LEAST_SIDE} to "
        f"{LARGEST_SIDE}, with at most as many pixels as 3840x2160.",
        f"Use {nearest}.",
    )


def _nearest(size: Size) -> list[Size]:
    """The next smaller and the next larger size that a model can have, as far as there are both."""
    shrink = min(1.0, (LARGEST_AREA / max(1, size[0] * size[1])) ** 0.5)
    found = []
    for extra in (0, MULTIPLE - 1):
        width, height = (int(side * shrink + extra) // MULTIPLE * MULTIPLE for side in size)
        near = min(max(width, LEAST_SIDE), LARGEST_SIDE), min(max(height, LEAST_SIDE), LARGEST_SIDE)
        if near not in found and near[0] * near[1] <= LARGEST_AREA:
            found.append(near)
    return found


def configured(config: Config, choice: EngineChoice, size: Size) -> Config:
    """The configuration of an engine with another model and size.

    What the configuration says about one model (autoencoder, cache rule, LoRAs) belongs to that of the start. Another
    model gets its own defaults.
    """
    changes: dict[str, Any] = {"width": size[0], "height": size[1]}
    if choice.model not in (config.model, IDENTITY):
        changes |= {"model": choice.model, "vae": "auto", "cache": "auto", "loras": ()}
    return config.model_copy(update=changes)


def lora_folder(config: Config, model: str = "") -> Path:
    """The folder whose LoRAs are on faders from the start: `loras/MODEL` among the model files, of the configured model
    or of another.

    Raises:
        ModelError: if `Config.weights_dir` cannot be a folder.
    """
    return weights.folder(config.weights_dir) / "loras" / (model or config.model)


def own_loras(config: Config, model: str) -> list[str]:
    """The LoRA files of a model: those in its folder, by name, then those that come with it."""
    files: list[str] = []
    for folder in (lora_folder(config, model), Path(registry.__file__).with_name(model) / "loras"):
        with contextlib.suppress(OSError):  # usually there is none
            files += sorted(str(path) for path in folder.iterdir() if path.suffix[1:].lower() in LORA_ENDINGS)
    return files


def lora_files(config: Config) -> tuple[str, ...]:
    """The file of each LoRA slot at the start; empty for none.

    The LoRAs of the configuration are in the first slots, then follow the model's own. Their faders are at 0, where a
    LoRA changes nothing. Those for which no slot is left are not loaded.
    """
    files = [lora.file for lora in config.loras] + own_loras(config, config.model)
    return (*files[:LORA_SLOTS], *("",) * (LORA_SLOTS - len(files)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineControls:
    """The model and its size."""

    engine_model: str = live(
        _CONFIG.model,
        "/engine/model",
        f"The model: a name that tidecast models list shows, or {IDENTITY} for none. "
        "While it loads, the output shows the input.",
        group="Video",
        label="Model",
        stored=NEVER,
        check=check_model,
    )
    engine_size: str = live(
        f"{_CONFIG.width}x{_CONFIG.height}",
        "/engine/size",
        "Size of the model's picture: width x height, both multiples of 16, such as 512x288; or auto, which measures "
        "the largest that this machine holds.",
        group="Video",
        label="Model size",
        stored=NEVER,
        check=check_size,
    )

    @property
    def choice(self) -> EngineChoice:
        """What is chosen."""
        return EngineChoice(self.engine_model, parse(self.engine_size))


def offered(config: Config) -> dict[str, Any]:
    """What the page offers: `models`, each with `name`, `title` and why it would not start here now (`note`), and
    `sizes`. Reads the folder of the model files.
    """
    rows = [
        {"name": spec.name, "title": spec.title, "note": _obstacle(config, spec.name)}
        for spec in registry.REGISTRY.values()
    ]
    identity = {"name": IDENTITY, "title": "No model: the input unchanged", "note": ""}
    return {"models": [*rows, identity], "sizes": list(OFFERED_SIZES)}


def _obstacle(config: Config, name: str) -> str:
    spec = registry.get(name)
    vae = spec.default_vae if config.vae == "auto" or name != config.model else config.vae
    try:
        weights.locate(spec, weights.folder(config.weights_dir), vae=vae)
    except (TidecastError, OSError):
        return f"Its files are not here: tidecast models pull {name}"
    return ""
