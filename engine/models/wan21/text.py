"""Prompts for the Wan2.1 family: cleaned and tokenised as Wan does, encoded by UMT5, remembered on disk.

A prompt that was encoded once, on this machine or another, needs neither the encoder's file nor transformers:
embeddings are kept by (hash of the encoder, text). Must not know streams or sessions.

Shape letters: X tokens, E width of an embedding.
"""

from __future__ import annotations

import hashlib
import html
import logging
import os
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import ModelError, WeightsMissingError
from engine.models.spec import Conditioning
from engine.models.wan21 import checkpoint, umt5

log = logging.getLogger(__name__)


class EmbeddingCache:
    """Embeddings on disk, one file per prompt. Several processes may use one folder.

    Args:
        folder: where the files lie; made when the first one is written.
        encoder: what tells this encoder from others (a hash of its weights, and how they are stored).
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder = folder / hashlib.sha256(encoder.encode()).hexdigest()[:16]
        self.encoder = encoder

    def path(self, text: str) -> Path:
        """The file of this prompt; spaces at its ends and runs of them make no difference."""
        return self.folder / f"{hashlib.sha256(squeezed(text).encode()).hexdigest()}.safetensors"

    def get(self, text: str) -> Tensor | None:
        """Embedding [X, E] without padding; None where there is none, or none that can be read."""
        path = self.path(text)
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("embedding")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            log.warning("the remembered prompt %s cannot be read (%s); it will be encoded anew", path, error)
            return None

    def put(self, text: str, embedding_XE: Tensor) -> None:
        """Remember one prompt; readers see the whole file or none.

        Raises:
            ModelError: if the folder cannot be written.
        """
        path = self.path(text)
        whole = path.with_name(f"{path.stem}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"text": squeezed(text), "encoder": self.encoder}
            save_file({"embedding": embedding_XE.contiguous().cpu()}, whole, metadata=metadata)
            whole.replace(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"The prompt's embedding cannot be kept in {path.parent} ({error}).",
                "Make room there, or choose another folder with the variable XDG_CACHE_HOME.",
            ) from None


def squeezed(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return re.sub(r"\s+", " ", text).strip()


class Tokenizer:
    """Wan's tokenizer: repaired characters, HTML entities resolved twice, squeezed spaces, then sentence pieces.

    Args:
        path: `tokenizer.json`, or the folder that holds it.
        length: most tokens, the closing one included.

    Raises:
        ModelError: if the packages of the extra `wan` are not installed, or the file cannot be read.
    """

    def __init__(self, path: Path, length: int) -> None:
        try:
            import ftfy
            from tokenizers import Tokenizer as Pieces
        except ImportError as error:
            raise ModelError(
                f"Encoding a new prompt needs a package that is not installed ({error}).",
                'Install it with: pip install "tidecast[wan]".',
            ) from None
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            self._pieces = Pieces.from_str(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"The tokenizer {path} cannot be read ({error}).") from None
        except Exception as error:  # the tokenizers package raises bare Exception for a bad file
            raise ModelError(f"{path} is no tokenizer ({error}).") from None
        self._repair = ftfy.fix_text
        self._length = length

    def cleaned(self, text: str) -> str:
        """The text as the encoder was trained to read it."""
        return squeezed(html.unescape(html.unescape(self._repair(text))))

    def __call__(self, text: str) -> list[int]:
        """Token numbers, the closing one last; a text that is too long is cut, and the log says so."""
        ids = self._pieces.encode(self.cleaned(text)).ids
        if len(ids) > self._length:
            log.warning("the prompt has %d tokens and is cut at %d: %.60s...", len(ids), self._length, text)
            ids = [*ids[: self._length - 1], ids[-1]]
        return ids


class WanTextEncoder:
    """Implements `engine.models.spec.TextEncoder`; its 11 GB of weights are opened by the first unknown prompt.

    Args:
        name: the model's name, for errors.
        length: rows of an embedding, [length, width].
        width: columns of an embedding.
        cache: where embeddings are remembered.
        weights: the encoder's checkpoint; None where it is not on this machine.
        tokenizer: `tokenizer.json` or its folder; None where it is not on this machine.
        device: where the model runs.
        where: "cuda" keeps the encoder on `device`, "cpu" runs it on the CPU, "offload" copies it to `device`
            block by block for every prompt, "auto" offloads to a GPU and otherwise runs on the CPU.
        storage: "bfloat16", or "float8" for half the memory; arithmetic is bfloat16 in both.
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
        self._tokenizer: Tokenizer | None = None
        self._network: nn.Module | None = None

    def encode(self, text: str) -> Conditioning:
        """Encode one prompt, or recall it.

        Raises:
            WeightsMissingError: if the prompt was never encoded and the encoder is not on this machine.
            ModelError: if the encoder cannot be run.
        """
        embedding_XE = self._cache.get(text)
        if embedding_XE is None:
            embedding_XE = self._computed(text)
            self._cache.put(text, embedding_XE)
        length, width = embedding_XE.shape
        if length > self._length or width != self._width:
            raise ModelError(
                f"The prompt's embedding is [{length}, {width}], but {self._name} reads "
                f"[{self._length}, {self._width}].",
                "The text encoder belongs to another model.",
            )
        padded_XE = F.pad(embedding_XE.float(), (0, 0, 0, self._length - length)).to(self._device)
        return Conditioning(text, padded_XE)

    def _computed(self, text: str) -> Tensor:
        if self._weights is None or self._tokenizer_path is None:
            raise WeightsMissingError(
                f"The prompt {text!r} was never encoded for {self._name}, and its text encoder is not on this machine.",
                f"Run: tidecast models pull {self._name} (or, where the encoder is, "
                f"tidecast models encode-prompts FILE --model {self._name}, and copy {self._cache.folder}).",
            )
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self._tokenizer_path, self._length)
        if self._network is None:
            self._network = self._opened(self._weights)
        device = next(self._network.parameters()).device
        ids_1L = torch.tensor([self._tokenizer(text)], device=device)
        return umt5.embed(self._network, ids_1L, torch.ones_like(ids_1L))[0].cpu()

    def _opened(self, weights: Path) -> nn.Module:
        network = umt5.build(checkpoint.read(weights), torch.bfloat16, str(weights))
        if self._storage == "float8":
            umt5.store_in_bytes(network)
        if self._where == "offload":
            umt5.visit_by_block(network, self._device)
        elif self._where == "cuda":
            network = network.to(self._device)
        return network
