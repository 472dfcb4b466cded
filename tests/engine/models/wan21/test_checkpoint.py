"""Every checkpoint layout loads strictly, and errors say what is wrong with a file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import CheckpointError
from engine.models.wan21 import read_only
from engine.models.wan21.checkpoint import load, read
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape
from engine.network.lora import updates
from engine.network.lora.merge import merged
from engine.network.lora.names import LAYOUTS as SPELLINGS
from engine.network.lora.names import ModuleNames
from tests.support.platforms import constants_on

SHAPE = DiTShape(dim=24, heads=2, layers=2, ffn=16, text_dim=8)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    network = CausalDiT(SHAPE)
    network.init_weights(torch.Generator().manual_seed(1))
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.fixture(params=["as torch maps", "for reading only"], autouse=True)
def mapping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test reads in both ways: as on Linux, and as on Windows."""
    monkeypatch.setattr(read_only, "WANTED", request.param == "for reading only")
    return request.param


def prefixed(weights: dict[str, Tensor], prefix: str = "model.") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def opened(path: Path) -> CausalDiT:
    with torch.device("meta"):
        network = CausalDiT(SHAPE)
    load(network, read(path), str(path))
    return network


def assert_same(network: CausalDiT, weights: dict[str, Tensor]) -> None:
    found = network.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


LAYOUTS = {
    "bare": lambda w: w,
    "generator": lambda w: {"generator": prefixed(w)},
    "generator_ema": lambda w: {"generator_ema": prefixed(w)},
    "state_dict": lambda w: {"state_dict": w},
    "generator before its average": lambda w: {"generator_ema": {"other": torch.zeros(1)}, "generator": w, "step": 3},
    "wrapped for training": lambda w: {"generator_ema": prefixed(w, "model._fsdp_wrapped_module.")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pickles(layout: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(LAYOUTS[layout](weights), path)
    assert_same(opened(path), weights)


def test_pickles_from_before_the_zip_format(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert_same(opened(path), weights)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_file_and_folder(prefix: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(prefixed(weights, prefix), path)
    assert_same(opened(path), weights)
    assert_same(opened(tmp_path), weights)


def shards(weights: dict[str, Tensor], folder: Path) -> Path:
    names = sorted(weights)
    index = {}
    for number in range(3):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-00003.safetensors"
        part = {name: weights[name] for name in names[number::3]}
        save_file(part, folder / file)
        index |= dict.fromkeys(part, file)
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return path


def test_shards(weights: dict[str, Tensor], tmp_path: Path) -> None:
    index = shards(weights, tmp_path)
    assert_same(opened(index), weights)
    assert_same(opened(tmp_path), weights)


def test_missing_shard_is_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    index = shards(weights, tmp_path)
    (tmp_path / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of 3 shards: diffusion_pytorch_model-00002"):
        read(index)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_tensors_are_memory_mapped(name: str, mapping: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    """A private mapping that may be written to is charged as memory, by Windows for the whole file at once."""
    path = tmp_path / name
    torch.save(weights, path) if path.suffix == ".pt" else save_file(weights, path)
    network = opened(path)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not list its mappings")
    rights = {line.split()[1] for line in maps.read_text().splitlines() if str(path) in line}
    assert rights == {"r--s"} if mapping == "for reading only" else {"rw-p"}
    assert_same(network, weights)


def test_files_are_mapped_for_reading_only_on_windows() -> None:
    assert constants_on("win32", read_only)["WANTED"] is True
    assert constants_on("linux", read_only)["WANTED"] is False


def test_tensors_of_every_form_are_read(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    wanted = {
        "part": whole[1:3, 2:5],
        "turned": whole.T,
        "one": torch.tensor(7),
        "none": torch.empty(0, 3),
        "truth": torch.tensor([True, False, True]),
        "half": whole.bfloat16()[3],
        "eight": whole.to(torch.float8_e4m3fn),
        "weight": torch.nn.Parameter(whole + 1),
    }
    torch.save(wanted, tmp_path / "a.pt")
    save_file({name: tensor.detach().contiguous() for name, tensor in wanted.items()}, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        found = read(path)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
            assert torch.equal(found[name].float(), tensor.float())


def test_wrong_file_lists_what_differs(weights: dict[str, Tensor], tmp_path: Path) -> None:
    wrong = dict(weights) | {f"extra.{i}": torch.zeros(1) for i in range(20)}
    del wrong["head.head.bias"]
    wrong["blocks.0.ffn.0.weight"] = torch.zeros(5, 24)
    path = tmp_path / "wrong.pt"
    torch.save(wrong, path)
    with pytest.raises(CheckpointError) as caught:
        opened(path)
    text = str(caught.value)
    assert "1 keys missing (head.head.bias)" in text
    assert "20 keys unexpected (extra.0, " in text and "and 12 more" in text
    assert "blocks.0.ffn.0.weight [5, 24] instead of [16, 24]" in text
    assert len(text) < 1500


def test_damaged_files_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("model.pt", "model.safetensors"):
        path = tmp_path / name
        torch.save(weights, path) if path.suffix == ".pt" else save_file(weights, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match="cannot be read"):
            read(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path / "absent.pt")


class Unsafe:
    def __reduce__(self) -> tuple:
        return (print, ("a pickle ran code",))


def test_pickles_that_run_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.pt"
    torch.save({"generator": Unsafe()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        (tmp_path / "plain.pt").write_bytes(pickle.dumps(Unsafe(), protocol=2))
        read(tmp_path / "plain.pt")
    assert "ran code" not in capsys.readouterr().out


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "name": "x"}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        read(tmp_path / "a.pt")
    torch.save([torch.zeros(1)], tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="several checkpoints"):
        read(tmp_path)


def adapter(weights: dict[str, Tensor], rank: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    pairs = {}
    for name in ("blocks.0.self_attn.q", "blocks.1.ffn.2"):
        out_features, in_features = weights[f"{name}.weight"].shape
        pairs[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, in_features, generator=generator)
        pairs[f"base_model.model.{name}.lora_B.weight"] = torch.randn(out_features, rank, generator=generator)
    return pairs


def test_an_adapter_is_added_as_its_layers_would(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"generator_lora": adapter(weights)}, tmp_path / "lora.pt")
    pairs = read(tmp_path / "lora.pt")
    found = merged(weights, [(updates.read(pairs, weights, "lora.pt"), 1.0)])
    x = torch.randn(5, 24)
    down, up = (pairs[f"base_model.model.blocks.0.self_attn.q.lora_{side}.weight"] for side in "AB")
    expected = x @ weights["blocks.0.self_attn.q.weight"].T + x @ down.T @ up.T
    torch.testing.assert_close(x @ found["blocks.0.self_attn.q.weight"].T, expected)
    assert found["blocks.0.self_attn.k.weight"] is weights["blocks.0.self_attn.k.weight"]


def test_an_adapter_of_another_network_is_refused(weights: dict[str, Tensor]) -> None:
    pairs = adapter(weights)
    with pytest.raises(CheckpointError, match=r"1 keys for other networks \(blocks.9.q.lora_A.weight\)"):
        updates.read(pairs | {"blocks.9.q.lora_A.weight": torch.ones(1, 1)}, weights, "x")
    with pytest.raises(CheckpointError, match="it is empty"):
        updates.read({}, weights, "x")
    with pytest.raises(CheckpointError, match=r"the weight is \[24, 16\], the pair \[24, 3\] x \[3, 25\]"):
        wide = {"base_model.model.blocks.1.ffn.2.lora_A.weight": torch.ones(3, 25)}
        updates.read(pairs | wide, weights, "x")


def slashes(name: str, names: ModuleNames) -> str | None:
    """A layout as an extension would add it: slashes instead of dots."""
    bare = name.replace("/", ".")
    return bare if "/" in name and bare in names.parameters else None


def test_two_adapters_of_two_layouts_are_what_their_sum_is(weights: dict[str, torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    q, ffn = "blocks.0.self_attn.q.weight", "blocks.1.ffn.2.weight"
    own = adapter(weights)
    other = {}
    spelled = (("blocks/0/self_attn/q", q), ("blocks/1/ffn/2", ffn))
    for module, name in spelled:
        out_features, in_features = weights[name].shape
        other[f"{module}.lora_down.weight"] = torch.randn(2, in_features, generator=generator)
        other[f"{module}.lora_up.weight"] = torch.randn(out_features, 2, generator=generator)
        other[f"{module}.alpha"] = torch.tensor(1.0)
    peft = updates.read(own, weights, "peft")
    extended = updates.read(other, weights, "slashes", layouts=(*SPELLINGS, slashes))
    found = merged(weights, [(peft, 0.5), (extended, -2.0)])
    for bare, name in spelled:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        first = own[f"{module}.lora_B.weight"].double() @ own[f"{module}.lora_A.weight"].double()
        second = other[f"{bare}.lora_up.weight"].double() @ other[f"{bare}.lora_down.weight"].double()
        torch.testing.assert_close(found[name], (weights[name].double() + 0.5 * first - 2.0 * 0.5 * second).float())
    still = merged(weights, [(peft, 0.0)])
    assert torch.equal(still[q], weights[q])
    with pytest.raises(CheckpointError, match=r"of no known layout"):
        updates.read(other, weights, "slashes")
