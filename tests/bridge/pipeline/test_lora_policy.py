"""Which senders may choose which LoRA files."""

from __future__ import annotations

import pytest

from bridge.control.origin import INTERNAL, Origin, Trust
from bridge.pipeline.lora_policy import LoraPolicy
from bridge.pipeline.monitor import topic_of
from engine.errors import ControlError

HERE, THERE = Origin("page", Trust.MACHINE), Origin("osc:192.168.1.7", Trust.NETWORK)


@pytest.mark.parametrize("origin", [INTERNAL, HERE, THERE])
def test_everybody_may_choose_what_is_configured_or_nothing(origin: Origin) -> None:
    rule = LoraPolicy(2, ["/shows/noir.safetensors"])
    assert rule("/shows/noir.safetensors", origin) == "/shows/noir.safetensors"
    assert rule("", origin) == ""


def test_other_machines_may_not_choose_other_files() -> None:
    rule = LoraPolicy(2, [])
    assert rule("/home/me/ink.safetensors", HERE) == "/home/me/ink.safetensors"
    with pytest.raises(ControlError, match="Senders on other machines") as caught:
        rule("/etc/shadow", THERE)
    assert caught.value.address == "/tidecast/lora/2/file"


def test_a_file_on_another_machine_is_for_the_configuration() -> None:
    path = r"\\server\share\ink.safetensors"
    assert LoraPolicy(1, [])(path, INTERNAL) == path
    with pytest.raises(ControlError, match="on another machine"):
        LoraPolicy(1, [])(path, HERE)


def test_a_trouble_with_a_lora_is_told_about_its_file() -> None:
    assert topic_of("LoRA 2: There is no LoRA file x.") == "/tidecast/lora/2/file"
    assert topic_of("LoRA 8 (ink) was taken out: there is no memory to merge it.") == "/tidecast/lora/8/file"
    assert topic_of("The memory of cuda:0 is full.") == "engine"
