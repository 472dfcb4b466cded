"""The LoRAs that come with a model, when another one is chosen."""

from __future__ import annotations

from bridge.control.store import ControlStore
from bridge.pipeline.model.own_loras import OwnLoras
from bridge.table import TABLE
from engine.controls import LORA_SLOTS, Controls

FILES = {"ember": ["xray.safetensors", "infrared.safetensors"], "other": ["noir.safetensors"], "plain": []}


def slots(store: ControlStore) -> list[tuple[str, float]]:
    controls = store.snapshot.of(Controls)
    found = list(zip(controls.lora_files(), controls.lora_strengths(), strict=True))
    while found and not found[-1][0]:
        found.pop()
    return found


def test_they_leave_with_it_and_come_back_as_they_were_left() -> None:
    store = ControlStore(TABLE)
    own = OwnLoras(store, FILES.__getitem__)
    own.change("plain", "ember")
    assert slots(store) == [("xray.safetensors", 0.0), ("infrared.safetensors", 0.0)]
    store.set_many({"lora_2": 0.7, "lora_3_file": "mine.safetensors", "lora_3": 0.5})
    own.change("ember", "other")
    assert slots(store) == [("noir.safetensors", 0.0), ("", 0.0), ("mine.safetensors", 0.5)]
    own.change("other", "ember")
    assert slots(store) == [("xray.safetensors", 0.0), ("infrared.safetensors", 0.7), ("mine.safetensors", 0.5)]
    own.change("ember", "plain")
    assert slots(store) == [("", 0.0), ("", 0.0), ("mine.safetensors", 0.5)]


def test_the_slots_of_the_configuration_and_files_that_somebody_chose_stay() -> None:
    store = ControlStore(TABLE)
    store.set_many({"lora_1": 1.0} | {f"lora_{n}_file": f"{n}.pt" for n in range(2, LORA_SLOTS)})
    OwnLoras(store, FILES.__getitem__, taken=1).change("plain", "ember")
    found = slots(store)
    assert found[0] == ("", 1.0) and found[1:7] == [(f"{n}.pt", 0.0) for n in range(2, LORA_SLOTS)]
    assert found[7] == ("xray.safetensors", 0.0), "no slot is left for the second"
