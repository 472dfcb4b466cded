"""Gives masks of people for pictures, on the CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from engine.errors import CheckpointError, WeightsMissingError
from engine.models.selfie.network import SelfieNetwork
from engine.models.selfie.specs import SELFIE, MaskSpec


class Masker:
    """Finds people in pictures of the size of its row. Use it from one thread at a time.

    Args:
        spec: the row.

    Raises:
        WeightsMissingError: the file with the weights is missing.
        CheckpointError: it is another file, or damaged.
    """

    def __init__(self, spec: MaskSpec = SELFIE) -> None:
        self.spec = spec
        self._network = read(spec.weights, spec.sha256)

    @torch.inference_mode()
    def mask(self, pixels: np.ndarray) -> np.ndarray:
        """The mask of one picture.

        Args:
            pixels: RGB, uint8 [height, width, 3] of the row's size.

        Returns:
            How likely a pixel belongs to a person: uint8 [height, width], 255 for sure.

        Raises:
            ValueError: the picture has another size.
        """
        wanted = (self.spec.height, self.spec.width, 3)
        if pixels.shape != wanted:
            raise ValueError(f"the mask is made of pictures {list(wanted)}, got {list(pixels.shape)}")
        # [H, W, C] in memory is [N, C, H, W] in the layout that convolutions on a CPU are fastest in.
        x_NCHW = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).float() / 255.0
        probability_HW = self._network(x_NCHW)[0, 0]
        return (probability_HW * 255.0).round().to(torch.uint8).numpy()


def read(path: Path, sha256: str) -> SelfieNetwork:
    """The network with the weights of a file, in float32 and for inference.

    Raises:
        WeightsMissingError, CheckpointError: as `Masker`.
    """
    if not path.exists():
        raise WeightsMissingError(f"The weights of the person mask are not at {path}.", "Reinstall Tidecast.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path} is not the file that belongs to the person mask.", "Reinstall Tidecast.")
    network = SelfieNetwork()
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold this network: {error}.", "Reinstall Tidecast.") from None
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its annotations do not know it
    return network
