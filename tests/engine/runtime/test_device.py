"""Which devices can be chosen."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelError
from engine.runtime.device import device_for


def test_apples_gpu_is_refused_by_name_because_it_has_no_float64() -> None:
    with pytest.raises(ModelError, match=r"do not run on mps.*Choose auto, cpu"):
        device_for("mps")
    assert device_for("cpu") == torch.device("cpu")
