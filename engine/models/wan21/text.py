"""Prompts for the Wan2.1 family: cleaned and tokenised as in Wan2.1, encoded by UMT5, and cached on disk.

The cache is keyed by the hash of the encoder and the text. A cached prompt needs neither the encoder's weights nor
transformers, so a cache can also be copied from another machine.

Shape letters: X tokens, E width of an embedding.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import logging
import os
import re
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import ModelError, WeightsMissingError
from engine.models.spec import Conditioning
from engine.models.wan21 import checkpoint, umt5
from engine.runtime.transfers import HostSideStream, SideStream, side_stream

log = logging.getLogger(__name__)


UNFINISHED_S = 600.0
"""Age, in s, from which an unfinished file belongs to nobody any more; writing one takes less than a second."""


class EmbeddingCache:
    """Prompt embeddings on disk, one file per prompt. Several processes may use the same folder.

    Args:
        folder: parent folder of the cache, created when the first file is written.
        encoder: identifies the encoder (hash of its weights, and the type in which they are stored).
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder = folder / hashlib.sha256(encoder.encode()).hexdigest()[:16]
        self.encoder = encoder
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """Remove what processes have left that were killed while they wrote; not what another one writes now."""
        with contextlib.suppress(OSError):  # no folder yet, or one that may only be read
            for part in self.folder.glob("*.part"):
                if time.time() - part.stat().st_mtime > UNFINISHED_S:
                    part.unlink()

    def path(self, text: str) -> Path:
        """The file of this prompt; extra white space in the prompt makes no difference."""
        return self.folder / f"{hashlib.sha256(collapse_spaces(text).encode()).hexdigest()}.safetensors"

    def get(self, text: str) -> Tensor | None:
        """The embedding [X, E] without padding; None if there is none or it cannot be read."""
        path = self.path(text)
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("embedding")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            log.warning("the cached prompt %s cannot be read (%s); the prompt will be encoded again", path, error)
            return None

    def put(self, text: str, embedding_XE: Tensor) -> None:
        """Store one prompt. The file appears only when it is complete.

        Raises:
            ModelError: if the folder cannot be written.
        """
        path = self.path(text)
        part = path.with_name(f"{path.stem}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"text": collapse_spaces(text), "encoder": self.encoder}
            save_file({"embedding": embedding_XE.contiguous().cpu()}, part, metadata=metadata)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise ModelError(
                f"The prompt's embedding cannot be stored in {path.parent} ({error}).",
                "Free some space there, or choose another folder with the variable XDG_CACHE_HOME.",
            ) from None


def collapse_spaces(text: str) -> str:
    """The text with every run of white space replaced by one space, and none at the ends."""
    return re.sub(r"\s+", " ", text).strip()


class Tokenizer:
    """Wan's tokenizer: repairs characters (ftfy), unescapes HTML twice, collapses white space, applies SentencePiece.

    Args:
        path: `tokenizer.json`, or the folder that holds it.
        length: most tokens, including the end-of-sequence token.

    Raises:
        ModelError: if the packages of the extra `wan` are not installed, or the file cannot be read.
    """

    def __init__(self, path: Path, length: int) -> None:
        try:
            import ftfy
            from tokenizers import Tokenizer as SentencePiece
        except ImportError as error:
            raise ModelError(
                f"Encoding a new prompt needs a package that is not installed ({error}).",
                'Install it with: pip install "tidecast[wan]".',
            ) from None
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            self._pieces = SentencePiece.from_str(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"The tokenizer {path} cannot be read ({error}).") from None
        except Exception as error:  # the tokenizers package raises bare Exception for a bad file
            raise ModelError(f"{path} is not a tokenizer ({error}).") from None
        self._repair = ftfy.fix_text
        self._length = length

    def cleaned(self, text: str) -> str:
        """The text, cleaned as in the training of the encoder."""
        return collapse_spaces(html.unescape(html.unescape(self._repair(text))))

    def __call__(self, text: str) -> list[int]:
        """Token ids, the end-of-sequence token last. A text that is too long is cut, with a warning in the log."""
        ids = self._pieces.encode(self.cleaned(text)).ids
        if len(ids) > self._length:
            log.warning("the prompt has %d tokens and is cut at %d: %.60s...", len(ids), self._length, text)
            ids = [*ids[: self._length - 1], ids[-1]]
        return ids


class WanTextEncoder:
    """Implements `engine.models.spec.TextEncoder`; its 11 GB of weights are loaded at the first prompt not cached.

    Args:
        name: the model's name, for errors.
        length, width: shape [length, width] of an embedding, padded with zero rows.
        cache: the cached embeddings.
        weights: the encoder's checkpoint; None if it is not on this machine.
        tokenizer: `tokenizer.json` or its folder; None if it is not on this machine.
        device: where the network runs.
        where: "cuda" keeps the encoder on `device`; "cpu" runs it on the CPU; "offload" keeps its weights on the CPU
            and copies them to `device` block by block for every prompt; "auto" is "offload" if `device` is a GPU,
            otherwise "cpu". On a GPU the encoder works in a stream of its own, beside the video.
        storage: type of the stored weights, "bfloat16", or "float8" for half the memory; arithmetic is in bfloat16.
    """

    def __init__(
        self,
        name: str,
        length: int,
        width: int,
        cache: EmbeddingCache,
        *,
        weights: Path | None,
        tokenizer: Path | None,
        device: torch.device,
        where: str = "auto",
        storage: str = "bfloat16",
    ) -> None:
        self._name, self._length, self._width = name, length, width
        self._cache, self._weights, self._tokenizer_path = cache, weights, tokenizer
        self._device = device
        self._where = ("cpu" if device.type == "cpu" else "offload") if where == "auto" else where
        self._storage = storage
        self._side: SideStream = HostSideStream()
        if self._where != "cpu":
            self._side = side_stream(device)
        self._tokenizer: Tokenizer | None = None
        self._network: nn.Module | None = None

    def encode(self, text: str) -> Conditioning:
        """Encode one prompt, or read it from the cache. One that cannot be stored in the cache is used all the same.

        The embedding is in host memory: whoever uses it on the device copies it in a stream of their choice.

        Raises:
            WeightsMissingError: if the prompt is not cached and the encoder is not on this machine.
            ModelError: if the encoder cannot be run.
        """
        embedding_XE = self._cache.get(text)
        trouble = ""
        if embedding_XE is None:
            embedding_XE = self._compute(text)
            try:
                self._cache.put(text, embedding_XE)
            except ModelError as error:
                log.warning("%s", error)
                trouble = str(error)
        length, width = embedding_XE.shape
        if length > self._length or width != self._width:
            raise ModelError(
                f"The prompt's embedding is [{length}, {width}], but {self._name} reads "
                f"[{self._length}, {self._width}].",
                "The text encoder belongs to another model.",
            )
        padded_XE = F.pad(embedding_XE.float(), (0, 0, 0, self._length - length))
        return Conditioning(text, padded_XE, trouble=trouble)

    def _compute(self, text: str) -> Tensor:
        if self._weights is None or self._tokenizer_path is None:
            raise WeightsMissingError(
                f"The prompt {text!r} is not cached for {self._name}, and its text encoder is not on this machine.",
                f"Run: tidecast models pull {self._name} (or, on a machine that has the encoder, "
                f"tidecast models encode-prompts FILE --model {self._name}, and copy {self._cache.folder}).",
            )
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self._tokenizer_path, self._length)
        with self._side.active():
            if self._network is None:
                self._network = self._load(self._weights)
            device = next(self._network.parameters()).device
            ids_1L = torch.tensor([self._tokenizer(text)], device=device)
            return umt5.embed(self._network, ids_1L, torch.ones_like(ids_1L))[0].cpu()

    def _load(self, weights: Path) -> nn.Module:
        network = umt5.build(checkpoint.read(weights), torch.bfloat16, str(weights))
        if self._storage == "float8":
            umt5.store_as_float8(network)
        if self._where == "offload":
            umt5.offload_by_block(network, self._device, self._side)
        elif self._where == "cuda":
            network = network.to(self._device)
        return network
