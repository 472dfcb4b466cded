"""Converts the weights of MediaPipe's selfie segmentation from TFLite to safetensors. Was run once; see README.md.

npm pack @mediapipe/selfie_segmentation@0.1.1675465747 && tar xzf mediapipe-selfie_segmentation-*.tgz
python -m engine.models.selfie.convert package/selfie_segmentation_landscape.tflite selfie.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from engine.errors import CheckpointError
from engine.models.selfie.network import SelfieNetwork
from engine.models.selfie.specs import SELFIE
from engine.models.selfie.tflite import Graph, read

WEIGHTED = ("conv", "depthwise", "Convolution2DTransposeBias")
"""Operators with weights and a bias; the last is MediaPipe's own, a transposed convolution."""


def convert(data: bytes) -> bytes:
    """The safetensors file, in fp16, of a TFLite file.

    Raises:
        CheckpointError: it is not the file that the row names, or holds another network.
    """
    if hashlib.sha256(data).hexdigest() != SELFIE.source_sha256:
        raise CheckpointError("This is another file.", f"Take {SELFIE.source}.")
    layers = weights_of(read(data))
    names = [
        name for name, module in SelfieNetwork().named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    if len(names) != len(layers):
        raise CheckpointError(f"The file has {len(layers)} layers with weights, the network {len(names)}.", "")
    tensors: dict[str, Tensor] = {}
    for name, (weight, bias) in zip(names, layers, strict=True):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias
    SelfieNetwork().load_state_dict(tensors)  # names and shapes are those of the network, or this raises
    return save(tensors, {"source": SELFIE.source, "licence": SELFIE.licence})


def weights_of(graph: Graph) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every layer, in the order of the graph and in PyTorch's layout."""
    constants = dict(graph.constants)
    layers = []
    for operator in graph.operators:
        if operator.kind == "widen":  # from fp16 to float32
            constants[operator.outputs[0]] = constants[operator.inputs[0]]
        elif operator.kind in WEIGHTED:
            weight, bias = (constants[number] for number in operator.inputs[1:3])
            layers.append((_in_order(weight, operator.kind), _tensor(bias)))
    return layers


def _in_order(weight: np.ndarray, kind: str) -> Tensor:
    """From TFLite's [out, H, W, in], or [1, H, W, channels] of a depthwise convolution."""
    if kind == "conv":
        return _tensor(weight.transpose(0, 3, 1, 2))
    return _tensor(weight.transpose(3, 0, 1, 2))  # the transposed one: [in, out, H, W]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float16, order="C"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the .tflite file")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    options = parser.parse_args()
    made = convert(options.source.read_bytes())
    options.target.write_bytes(made)
    print(f"{len(made)} bytes, sha256 {hashlib.sha256(made).hexdigest()}")
