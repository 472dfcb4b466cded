"""Reads a picture size, as every command takes it: "512x512"."""

from __future__ import annotations

import re

from engine.errors import ConfigError


def parse_size(text: str) -> tuple[int, int]:
    """Read "512x512" as (width, height) in pixels.

    Raises:
        ConfigError: if it is not two positive multiples of 16.
    """
    found = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", text)
    if not found or int(found[1]) % 16 or int(found[2]) % 16 or not int(found[1]) * int(found[2]):
        raise ConfigError(f"{text!r} is not a size.", "Write width x height, each a multiple of 16, such as 512x512.")
    return int(found[1]), int(found[2])
