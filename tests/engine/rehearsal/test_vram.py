"""The memory of every preset for GPUs, as computed from shapes, against the whole stream on the device `meta`."""

from __future__ import annotations

import pytest

from bridge.config_file import load, presets
from engine.config import Config
from engine.models import registry, vram
from engine.models.spec import ModelSpec
from engine.planning.vram import CONTEXT
from tests.engine.rehearsal import meta_stream

ERROR = 0.05
"""Largest relative error of the computed memory."""


def configurations() -> dict[str, Config]:
    """The engine's settings of every preset whose memory is known, and some more; those that are alike only once."""
    found = {name: load(name).engine for name in presets()}
    found["most steps"] = Config(model="wan21-1.3b", width=832, height=480)
    found["light"] = Config(model="wan21-1.3b", width=832, height=480, vae="light", max_steps=2)
    found["self-forcing"] = Config(model="self-forcing-1.3b", width=832, height=480)
    found["float8"] = Config(model="wan21-14b", width=512, height=288, vae="tiny", max_steps=1, weights_dtype="float8")
    found["long blocks, tiny"] = Config(model="longlive-1.3b", width=832, height=480, vae="tiny")
    distinct: dict[tuple[object, ...], str] = {}
    for name, config in found.items():
        spec = registry.get(config.model)
        needed = vram.need_of(spec, config)
        if needed is not None:
            vae = vram.setting_of(spec, config).vae
            shape = (config.model, vae, config.width, config.height, config.max_steps)
            distinct.setdefault((*shape, config.weights_dtype, len(config.devices), str(needed)), name)
    return {name: found[name] for name in distinct.values()}


CONFIGURATIONS = configurations()


def rehearse(patch: pytest.MonkeyPatch, spec: ModelSpec, config: Config) -> meta_stream.Bytes:
    gpus = max(1, len(config.devices))
    return meta_stream.run(
        patch,
        spec,
        vram.setting_of(spec, config).vae,
        width=config.width,
        height=config.height,
        max_steps=min(config.max_steps, len(spec.schedule.steps)),
        float8=config.weights_dtype == "float8",
        graphs=gpus == 1,
        blocks=None if gpus == 1 else (0, -(-spec.network.layers // gpus)),
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_whole_stream_takes_what_was_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGURATIONS[name]
    spec = registry.get(config.model)
    needed = vram.need_of(spec, config)
    assert needed is not None
    found = rehearse(monkeypatch, spec, config)
    assert found.trouble == ""
    without_text = needed.total - CONTEXT - needed.text
    gib = f"{without_text / 2**30:.2f} GiB computed, {found.most / 2**30:.2f} counted, {needed}"
    assert without_text == pytest.approx(found.most, rel=ERROR), gib
    assert needed.steady == pytest.approx(found.steady, rel=ERROR), f"{needed}, steady {found}"
