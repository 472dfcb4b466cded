"""LoRAs when something goes wrong: no memory, a file that changes or goes, a fader that moves while another is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.controls import Controls
from engine.errors import CheckpointError
from engine.models import lora_file, lora_slots
from engine.network.lora import updates
from engine.network.lora.merge import merged
from engine.network.lora.target import Target
from engine.runtime.gpu_memory import is_lack_of_memory
from engine.session import Session
from tests.engine.test_loras import CONTROLS, NETWORK, faders, lora, opened, play, until

BOTH = {"lora_1": 1.0, "lora_2": -0.7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults")
    for number, name in enumerate(("noir", "ink"), 1):
        save_file(lora(number), path / f"{name}.safetensors")
    torch.save(NETWORK, path / "base.pt")
    only = [(updates.read(lora(1), NETWORK, "1"), 1.0)]
    torch.save(merged(NETWORK, only), path / "noir-merged.pt")
    return path


def weights(session: Session) -> dict[str, Tensor]:
    return session._stream.network.state_dict()  # type: ignore[attr-defined]


def finish(session: Session, **strengths: float) -> None:
    session._stream.loras.blend(faders(**strengths).lora_strengths(), float("inf"))


def until_trouble(session: Session, controls: Controls) -> int:
    """Play chunk after chunk until something is said; each has pictures. Returns the number of the next frame."""
    for n in range(5, 45, 4):
        assert len(play(session, controls, range(n, n + 4))) == 4
        if session.health.trouble:
            return n + 4
    raise AssertionError("nothing was said")


def failing(
    error: Exception, when: Callable[[Target, tuple[float, ...]], bool], failed: list[str]
) -> Callable[..., None]:
    """`Target.build` without memory for some of the weights, of which half has been written by then."""
    build = Target.build

    def made(target: Target, part: int, loras: object, strengths: tuple[float, ...]) -> bool:
        if when(target, strengths):
            failed.append(target.name)
            if target.base is not None:
                target.live.flatten()[: target.live.numel() // 2] = 1e3
            raise error
        return build(target, part, loras, strengths)  # type: ignore[arg-type]

    return made


OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
]


def test_the_errors_of_every_allocator_are_known() -> None:
    assert all(map(is_lack_of_memory, OUT))
    assert not is_lack_of_memory(RuntimeError("shapes differ")) and not is_lack_of_memory(ValueError("allocate memory"))


@pytest.mark.parametrize("error", OUT, ids=["CUDA", "Python", "Linux", "Windows"])
def test_without_memory_to_merge_the_newest_lora_goes_and_the_picture_goes_on(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder, network="noir-merged.pt") as session:
        play(session, CONTROLS)
        wanted = play(session, CONTROLS, range(13, 21))
    with opened(folder, "noir", "ink") as session:
        play(session, faders(lora_1=1.0, lora_2=0.0), range(5))
        failed: list[str] = []
        monkeypatch.setattr(lora_slots, "SHARE", 1e3)  # all of it before the next chunk
        build = failing(error, lambda target, s: s[1] != 0 and target.name.startswith("blocks.2"), failed)
        monkeypatch.setattr(Target, "build", build)
        end = until_trouble(session, faders(**BOTH))
        assert failed
        assert "LoRA 2 (ink) was taken out: there is no memory to merge it" in session.health.trouble
        assert session.health.loras == "1 noir"
        finish(session, **BOTH)
        kept = merged(NETWORK, [(updates.read(lora(1), NETWORK, "1"), 1.0)])
        for name, tensor in weights(session).items():
            torch.testing.assert_close(tensor, kept[name], atol=2e-6, rtol=1e-5)
        count = len(failed)
        found = play(session, faders(**BOTH), range(end, end + 8))
        assert len(failed) == count, "the file is not tried again, although the control still names it"
        assert found.shape == wanted.shape and session.health.trouble == ""


def test_without_memory_for_any_lora_the_network_is_the_released_one_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder, "noir", "ink") as session:
        play(session, faders(lora_1=0.4), range(5))
        monkeypatch.setattr(lora_slots, "SHARE", 1e3)
        monkeypatch.setattr(Target, "build", failing(OUT[0], lambda _, strengths: any(strengths), []))
        for _ in range(2):
            until_trouble(session, faders(lora_1=0.9))
        assert session.health.loras == ""
        monkeypatch.undo()
        finish(session, lora_1=0.9)
        assert all(torch.equal(tensor, NETWORK[name]) for name, tensor in weights(session).items())


def dora(seed: int) -> dict[str, Tensor]:
    """A LoRA with lengths for every matrix of the blocks, in half of them those of the inputs."""
    file, generator = lora(seed), torch.Generator().manual_seed(seed)
    for number, key in enumerate([key for key in file if key.endswith("lora_A.weight")]):
        module = key.removesuffix(".lora_A.weight")
        weight = NETWORK[f"{module.removeprefix('diffusion_model.')}.weight"]
        size = (weight.shape[0], 1) if number % 2 else (1, weight.shape[1])
        file[f"{module}.dora_scale"] = torch.rand(size, generator=generator) + 0.5
    return file


def test_a_dora_that_is_read_while_a_fader_moves_starts_from_the_released_weights(folder: Path) -> None:
    """What it adds depends on W0, and the weights that are there while it is read hold other LoRAs."""
    save_file(dora(3), folder / "dora.safetensors")
    with opened(folder, "noir") as session:
        play(session, faders(lora_1=0.3), range(5))
        loras = session._stream.loras
        base = loras.base
        file = lora_file.read(folder / "dora.safetensors")
        finish(session, lora_1=-1.5)  # while the file is read, the fader goes on
        loras.load(1, loras.place(file.fitted(base)))
        finish(session, lora_1=0.0, lora_2=1.0)
        alone = merged(NETWORK, [(updates.read(dora(3), NETWORK, "dora"), 1.0)])
        for name, tensor in weights(session).items():
            torch.testing.assert_close(tensor, alone[name], atol=2e-6, rtol=1e-5)


def test_a_dora_and_a_lora_on_faders_come_back_to_the_released_bits(folder: Path) -> None:
    save_file(dora(3), folder / "dora.safetensors")
    with opened(folder, "noir", "dora") as session:
        for n in range(40):
            session._stream.loras.blend(faders(lora_1=n / 20 - 1, lora_2=1 - n / 25).lora_strengths(), 0.002)
        finish(session, lora_1=0.5, lora_2=0.8)
        moved = {name: tensor.clone() for name, tensor in weights(session).items()}
        finish(session)
        assert all(torch.equal(tensor, NETWORK[name]) for name, tensor in weights(session).items())
        finish(session, lora_1=0.5, lora_2=0.8)
        assert all(torch.equal(tensor, moved[name]) for name, tensor in weights(session).items())


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "copied.safetensors"
    shutil.copy(folder / "ink.safetensors", path)
    read_bytes = Path.read_bytes

    def slowly(file: Path) -> bytes:
        contents = read_bytes(file)
        file.write_bytes(contents + b"more")  # somebody is still copying it
        return contents

    monkeypatch.setattr(Path, "read_bytes", slowly)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        lora_file.read(path)
    monkeypatch.setattr(Path, "read_bytes", lambda file: file.unlink() or b"")  # type: ignore[func-returns-value]
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file"):
        lora_file.read(path)
    monkeypatch.undo()
    path.write_bytes(read_bytes(folder / "ink.safetensors")[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        lora_file.read(path)
    with path.open("wb") as sparse:
        sparse.truncate(lora_file.MAX_BYTES + 1)
    with pytest.raises(CheckpointError, match=r"8\.0 GiB, which is no LoRA"):
        lora_file.read(path)


def test_a_loaded_file_may_be_cut_short_and_removed(folder: Path) -> None:
    path = folder / "on-a-stick.safetensors"
    shutil.copy(folder / "ink.safetensors", path)
    with opened(folder, "on-a-stick") as session:
        play(session, faders(lora_1=0.2), range(5))
        with path.open("r+b") as file:
            file.truncate(16)  # a mapped file would end the process now, with SIGBUS
        moved = play(session, faders(lora_1=1.0), range(5, 13))
        path.unlink()
        assert session.health.trouble == "" and session.health.loras == "1 on-a-stick"
        assert np.abs(moved - play(session, faders(lora_1=0.0), range(13, 21))[: len(moved)]).max() > 0


def test_a_file_that_is_gone_when_it_is_chosen_is_said(folder: Path) -> None:
    with opened(folder, "noir") as session:
        play(session, CONTROLS, range(5))
        gone = faders(lora_2_file=str(folder / "gone.safetensors"))  # type: ignore[arg-type]
        for _ in until(session, gone, "never"):
            pass
        assert "LoRA 2: There is no LoRA file" in session.health.trouble
        assert session.health.loras == "1 noir"
