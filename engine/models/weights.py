"""Model files on this machine: where they lie, whether they are what they should be, and how to get them.

A file's hash is taken from the model table. Where the table has none, the hash of the first download is pinned in
`pins.json` beside the files ("trust on first use"), and every later check is against that. Knows nothing of what is
inside the files, and uses the network only in `pull`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

import platformdirs

from engine.errors import CheckpointError, ModelError, WeightsMissingError
from engine.models.spec import CODECS, ModelSpec, WeightFile

Report = Callable[[WeightFile, int, int], None]
"""Told of progress: the file, bytes done, bytes in all."""

SPARE_BYTES = 1 << 28
"""Free space that a download leaves on the disk."""


class State(StrEnum):
    """What is known of a file."""

    GOOD = "good"
    PINNED_HERE = "good (pinned at first download)"
    UNPINNED = "present, hash not known"
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_CONTENT = "wrong content"

    @property
    def fine(self) -> bool:
        """Whether the file can be used."""
        return self in (State.GOOD, State.PINNED_HERE, State.UNPINNED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of checking one file; `sha256` is that of the file found, empty if it was not read."""

    file: WeightFile
    path: Path | None
    state: State
    sha256: str = ""


def folder(configured: str = "") -> Path:
    """The folder that `Config.weights_dir` names, or the user's cache folder."""
    return Path(configured).expanduser() if configured else platformdirs.user_cache_path("tidecast") / "models"


def roles(vae: str = "all", *, text: bool = True) -> set[str]:
    """Roles of the files needed for an autoencoder (a name in `CODECS`, or "all"), and for encoding new prompts."""
    codecs = set(CODECS.values()) if vae == "all" else {CODECS[vae]}
    return {"dit", "adapter"} | codecs | ({"text", "tokenizer"} if text else set())


def find(file: WeightFile, root: Path) -> Path | None:
    """The file under `root`, where `pull` puts it or where a plain download of its repository would."""
    for parent in (root / file.repository, root / file.repository.rpartition("/")[2], root):
        if (parent / file.path).is_file():
            return parent / file.path
    return None


def locate(spec: ModelSpec, root: Path, *, vae: str) -> dict[str, Path]:
    """Paths by role, for `registry.Builder`. Files of the text encoder may be absent: known prompts do without.

    Args:
        spec: the row; one without files (random weights, weights of its own) gives an empty mapping.
        root: folder of model files.
        vae: the autoencoder, a name in `CODECS`.

    Raises:
        WeightsMissingError: if the network or the autoencoder is not on this machine.
    """
    found: dict[str, Path] = {}
    absent: list[WeightFile] = []
    for role in sorted(roles(vae)):
        files = [file for file in spec.files if file.role == role]
        paths = [path for file in files if (path := find(file, root))]
        if len(paths) < len(files):
            if role not in ("text", "tokenizer"):
                absent += [file for file in files if find(file, root) is None]
        elif role == "adapter":
            found |= {f"adapter.{number}": path for number, path in enumerate(paths)}
        elif paths:
            found[role] = paths[0] if len(paths) == 1 else paths[0].parent
    if absent:
        names = ", ".join(f"{file.repository}/{file.path}" for file in absent)
        raise WeightsMissingError(
            f"{spec.name} is not on this machine: {root} lacks {names}.", f"Run: tidecast models pull {spec.name}"
        )
    return found


def size(files: Iterable[WeightFile], root: Path) -> tuple[int, bool]:
    """Bytes of these files together, and whether that is exact."""
    total, exact = 0, True
    for file in files:
        path = find(file, root)
        known = file.bytes or (path.stat().st_size if path else 0)
        total, exact = total + (known or file.about_bytes), exact and known > 0
    return total, exact


def verify(files: Sequence[WeightFile], root: Path, report: Report | None = None) -> list[Verdict]:
    """Check each file against the table, or against the hash that was pinned at its first download."""
    pins = _Pins(root)
    return [_verdict(file, find(file, root), pins, report) for file in files]


def _verdict(file: WeightFile, path: Path | None, pins: _Pins, report: Report | None) -> Verdict:
    if path is None:
        return Verdict(file, None, State.MISSING)
    if file.bytes and path.stat().st_size != file.bytes:
        return Verdict(file, path, State.WRONG_SIZE)
    digest = _sha256(file, path, report)
    pinned = pins.sha256(file)
    if not (file.sha256 or pinned):
        return Verdict(file, path, State.UNPINNED, digest)
    if digest != (file.sha256 or pinned):
        return Verdict(file, path, State.WRONG_CONTENT, digest)
    return Verdict(file, path, State.GOOD if file.sha256 else State.PINNED_HERE, digest)


def _sha256(file: WeightFile, path: Path, report: Report | None) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            done += len(block)
            if report:
                report(file, done, total)
    return digest.hexdigest()


def pull(files: Sequence[WeightFile], root: Path, report: Report | None = None) -> list[Verdict]:
    """Download what is not there yet, going on where an earlier attempt stopped, and check every byte.

    Args:
        files: what to get; files that are there with the right size are left alone.
        root: folder to put them in, as `repository/path`.
        report: told of progress.

    Returns:
        One verdict per file that was downloaded; `State.PINNED_HERE` where its hash was not known before.

    Raises:
        ModelError: if the disk is too small or a file cannot be fetched.
        CheckpointError: if what came is not what it should be; it is removed.
    """
    with _alone(root):
        pins = _Pins(root)
        wanted = [file for file in files if not _present(file, root)]
        sources = [(file, _source(file, pins)) for file in wanted]
        _check_space(sources, root)
        return [_fetch(file, source, root, pins, report) for file, source in sources]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keeps two downloads into one folder apart."""
    import filelock

    try:
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / ".pull.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ModelError(f"Another download into {root} is running.", "Wait for it.") from None
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ModelError(f"The folder {root} cannot be used ({error}).", "Choose another with --dir.") from None


def _present(file: WeightFile, root: Path) -> bool:
    path = find(file, root)
    return path is not None and file.bytes in (0, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the server says of a file: where it is, the commit, its size, and its hash (large files) or nothing."""

    url: str
    revision: str
    bytes: int
    sha256: str


def _source(file: WeightFile, pins: _Pins) -> _Source:
    import huggingface_hub as hub

    revision = pins.revision(file) or file.revision or "main"
    with _fetching(file):
        url = hub.hf_hub_url(file.repository, file.path, revision=revision, endpoint=_endpoint())
        found = hub.get_hf_file_metadata(url, endpoint=_endpoint())
    etag = found.etag or ""
    digest = etag if len(etag) == 64 else ""
    expected = file.sha256 or pins.sha256(file)
    if (expected and digest and digest != expected) or (file.bytes and found.size not in (None, file.bytes)):
        raise CheckpointError(
            f"{file.repository}/{file.path} at {revision[:12]} is not the file that is known "
            f"({found.size} bytes, sha256 {digest or 'not told'}; "
            f"expected {file.bytes or '?'} bytes, sha256 {expected or '?'}).",
            "Do not use it; report it, or get the file from somewhere you trust.",
        )
    return _Source(url, found.commit_hash or revision, found.size or file.bytes, digest)


def _check_space(sources: Sequence[tuple[WeightFile, _Source]], root: Path) -> None:
    if not sources:
        return
    free = shutil.disk_usage(root).free
    parts = (_part(file, root) for file, _ in sources)
    begun = sum(part.stat().st_size for part in parts if part.is_file())
    needed = sum(source.bytes for _, source in sources) - begun + SPARE_BYTES
    if free < needed:
        raise ModelError(
            f"{root} has {free / 2**30:.1f} GiB free, but the download needs {needed / 2**30:.1f} GiB.",
            "Make room, or choose another folder with --dir (and weights_dir in the configuration).",
        )


def _part(file: WeightFile, root: Path) -> Path:
    """What has arrived of a file; it gets its own name once it is whole and right."""
    return root / file.repository / f"{file.path}.part"


def _fetch(file: WeightFile, source: _Source, root: Path, pins: _Pins, report: Report | None) -> Verdict:
    from huggingface_hub.file_download import http_get

    part = _part(file, root)
    with _fetching(file):
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            http_get(
                source.url,
                stream,
                resume_size=stream.tell(),
                headers=_headers(),
                expected_size=source.bytes or None,
                tqdm_class=_bar(file, source.bytes, report),
            )
    digest = _sha256(file, part, report)
    expected = file.sha256 or pins.sha256(file) or source.sha256
    if expected and digest != expected:
        part.unlink()
        raise CheckpointError(
            f"{file.repository}/{file.path} arrived damaged (sha256 {digest}, expected {expected}) and was removed.",
            "Try again.",
        )
    path = part.replace(part.with_suffix(""))
    if file.sha256:
        return Verdict(file, path, State.GOOD, digest)
    pins.add(file, source.revision, digest, path.stat().st_size)
    return Verdict(file, path, State.PINNED_HERE, digest)


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers()


def _endpoint() -> str | None:
    """The hub to use instead of the public one; read at each call, not once at import as the library does."""
    return os.environ.get("HF_ENDPOINT")


def _bar(file: WeightFile, total: int, report: Report | None) -> type:
    """A progress bar for huggingface_hub that draws nothing and tells `report`."""
    from tqdm.std import tqdm

    class Bar(tqdm):
        monitor_interval = 0

        def __init__(self, *args: object, **options: object) -> None:
            options |= {"disable": False, "file": io.StringIO()}
            options.pop("name", None)
            super().__init__(*args, **options)

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if report:
                report(file, int(self.n), int(self.total or total))
            return None

    return Bar


@contextmanager
def _fetching(file: WeightFile) -> Iterator[None]:
    """Turns what huggingface_hub and its transport raise into the product's errors."""
    from huggingface_hub import errors

    # The base error of the HTTP library that this version of the hub's library uses.
    transport_error = cast(type[Exception], errors.HfHubHTTPError.__mro__[1])
    name = f"{file.repository}/{file.path}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is not public ({_first_line(error)}).",
            "Accept its terms on its page, then log in with: hf auth login",
        ) from None
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(name, error) from None
        raise ModelError(f"{name} is no longer where it was ({_first_line(error)}).", "Report it.") from None
    except (transport_error, errors.FileMetadataError, OSError) as error:
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> ModelError:
    return ModelError(
        f"{name} cannot be fetched ({_first_line(error)}).",
        "Check the network; run the same command again and it goes on where it stopped.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Pins:
    """Hashes and revisions of files that the table does not know, as they were at their first download."""

    def __init__(self, root: Path) -> None:
        self._path = root / "pins.json"
        try:
            self._pins = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._pins = {}
        except (OSError, ValueError) as error:
            raise ModelError(f"{self._path} cannot be read ({error}).", "Repair or remove it.") from None

    def _pin(self, file: WeightFile) -> dict[str, str]:
        return self._pins.get(f"{file.repository}/{file.path}", {})

    def sha256(self, file: WeightFile) -> str:
        """The pinned hash, or nothing."""
        return self._pin(file).get("sha256", "")

    def revision(self, file: WeightFile) -> str:
        """The commit that was downloaded, or nothing."""
        return self._pin(file).get("revision", "")

    def add(self, file: WeightFile, revision: str, sha256: str, size: int) -> None:
        """Pin a file; the whole list is on disk when this returns."""
        self._pins[f"{file.repository}/{file.path}"] = {"revision": revision, "sha256": sha256, "bytes": size}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._pins, indent=2) + "\n", encoding="utf-8")
        part.replace(self._path)
