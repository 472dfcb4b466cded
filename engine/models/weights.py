"""Model files on this machine: finds, verifies and downloads them.

The expected hash of a file is in the model table. If the table has none, the hash of the first download is pinned in
`pins.json` in the same folder ("trust on first use") and used from then on. Only `pull` uses the network.
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

from engine.config import long_folder
from engine.errors import CheckpointError, ModelError, WeightsMissingError
from engine.models.cache_folder import cache_folder
from engine.models.spec import CODECS, ModelSpec, WeightFile

Report = Callable[[WeightFile, int, int], None]
"""A callback for progress: the file, bytes done, bytes in total."""

SPARE_BYTES = 1 << 28
"""Free space that a download leaves on the disk."""


class State(StrEnum):
    """Result of checking a file."""

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
    """Result of checking one file.

    Attributes:
        file: its row in the model table.
        path: where it was found; None if it is missing.
        state: the result.
        sha256: hash of the found file; empty if it was not read.
    """

    file: WeightFile
    path: Path | None
    state: State
    sha256: str = ""


def folder(configured: str = "") -> Path:
    """The folder of the model files: `configured` (`Config.weights_dir`); if empty, one in the user's cache folder.

    Raises:
        ModelError: if `configured` begins with the home of a user that does not exist.
    """
    if not configured:
        return cache_folder() / "models"
    try:
        return long_folder(Path(configured).expanduser())
    except RuntimeError:
        raise ModelError(f"{configured}: there is no such user.", "Name a folder of model files.") from None


def roles(vae: str = "all", *, text: bool = True) -> set[str]:
    """Roles of the files that a model needs.

    Args:
        vae: the autoencoder, a name in `CODECS`, or "all".
        text: whether to include those for encoding new prompts.
    """
    codecs = set(CODECS.values()) if vae == "all" else {CODECS[vae]}
    return {"dit", "adapter"} | codecs | ({"text", "tokenizer"} if text else set())


def find(file: WeightFile, root: Path) -> Path | None:
    """Path of the file under `root`, None if it is missing.

    It may be where `pull` stores it, in a folder with the repository's name without its owner, or in `root` itself.
    """
    for parent in (root / file.repository, root / file.repository.rpartition("/")[2], root):
        if (parent / file.path).is_file():
            return parent / file.path
    return None


def locate(spec: ModelSpec, root: Path, *, vae: str) -> dict[str, Path]:
    """Paths by role, for `registry.Builder`; the folder for a checkpoint in several shards.

    Files of the text encoder may be missing, since prompts that were encoded before do not need them.

    Args:
        spec: the row; the result is empty if it has no files.
        root: folder of the model files.
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
    """Total size of these files in bytes, and whether it is exact (a size may be known only approximately)."""
    total, exact = 0, True
    for file in files:
        path = find(file, root)
        known = file.bytes or (path.stat().st_size if path else 0)
        total, exact = total + (known or file.about_bytes), exact and known > 0
    return total, exact


def verify(files: Sequence[WeightFile], root: Path, report: Report | None = None) -> list[Verdict]:
    """Check the size and hash of each file against the model table or the pinned hash."""
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
    """Download the missing files and verify them; continues a download that was interrupted.

    Args:
        files: the wanted files; those that are present with the right size are not downloaded.
        root: folder to store them in, as `repository/path`; created if needed.
        report: called with the progress.

    Returns:
        One verdict per downloaded file; `State.PINNED_HERE` if its hash was not known before.

    Raises:
        ModelError: if the folder cannot be used, another download is running, the disk is too small, or a file cannot
            be fetched.
        CheckpointError: if a file is not the expected one; a damaged download is removed.
    """
    with _download_lock(root):
        pins = _Pins(root)
        wanted = [file for file in files if not _present(file, root)]
        remotes = [(file, _remote(file, pins)) for file in wanted]
        _check_space(remotes, root)
        return [_fetch(file, remote, root, pins, report) for file, remote in remotes]


@contextmanager
def _download_lock(root: Path) -> Iterator[None]:
    """Allows only one download into a folder at a time; creates the folder."""
    import filelock

    try:
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / ".pull.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ModelError(f"Another download into {root} is running.", "Wait until it has finished.") from None
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ModelError(f"The folder {root} cannot be used ({error}).", "Choose another with --dir.") from None


def _present(file: WeightFile, root: Path) -> bool:
    path = find(file, root)
    return path is not None and file.bytes in (0, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class _RemoteFile:
    """What the server reports about a file: URL, commit, size, and SHA-256 (of large files only; otherwise empty)."""

    url: str
    revision: str
    bytes: int
    sha256: str


def _remote(file: WeightFile, pins: _Pins) -> _RemoteFile:
    import huggingface_hub as hub

    revision = pins.revision(file) or file.revision or "main"
    with _product_errors(file):
        url = hub.hf_hub_url(file.repository, file.path, revision=revision, endpoint=_endpoint())
        found = hub.get_hf_file_metadata(url, endpoint=_endpoint())
    etag = found.etag or ""
    digest = etag if len(etag) == 64 else ""
    expected = file.sha256 or pins.sha256(file)
    if (expected and digest and digest != expected) or (file.bytes and found.size not in (None, file.bytes)):
        raise CheckpointError(
            f"{file.repository}/{file.path} at {revision[:12]} is not the file that is known "
            f"({found.size} bytes, sha256 {digest or 'unknown'}; "
            f"expected {file.bytes or '?'} bytes, sha256 {expected or '?'}).",
            "Do not use it. Report it, or get the file from a source that you trust.",
        )
    return _RemoteFile(url, found.commit_hash or revision, found.size or file.bytes, digest)


def _check_space(remotes: Sequence[tuple[WeightFile, _RemoteFile]], root: Path) -> None:
    if not remotes:
        return
    free = shutil.disk_usage(root).free
    parts = (_part(file, root) for file, _ in remotes)
    done = sum(part.stat().st_size for part in parts if part.is_file())
    needed = sum(remote.bytes for _, remote in remotes) - done + SPARE_BYTES
    if free < needed:
        raise ModelError(
            f"{root} has {free / 2**30:.1f} GiB free, but the download needs {needed / 2**30:.1f} GiB.",
            "Free some space, or choose another folder with --dir (and weights_dir in the configuration).",
        )


def _part(file: WeightFile, root: Path) -> Path:
    """Path of an unfinished download; it gets its final name after it was verified."""
    return root / file.repository / f"{file.path}.part"


def _fetch(file: WeightFile, remote: _RemoteFile, root: Path, pins: _Pins, report: Report | None) -> Verdict:
    from huggingface_hub.file_download import http_get

    part = _part(file, root)
    with _product_errors(file):
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            http_get(
                remote.url,
                stream,
                resume_size=stream.tell(),
                headers=_headers(),
                expected_size=remote.bytes or None,
                tqdm_class=_bar(file, remote.bytes, report),
            )
    digest = _sha256(file, part, report)
    expected = file.sha256 or pins.sha256(file) or remote.sha256
    if expected and digest != expected:
        part.unlink()
        raise CheckpointError(
            f"{file.repository}/{file.path} arrived damaged (sha256 {digest}, expected {expected}) and was removed.",
            "Try again.",
        )
    path = part.replace(part.with_suffix(""))
    if file.sha256:
        return Verdict(file, path, State.GOOD, digest)
    pins.add(file, remote.revision, digest, path.stat().st_size)
    return Verdict(file, path, State.PINNED_HERE, digest)


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers()


def _endpoint() -> str | None:
    """URL of a hub to use instead of the public one. Read at every call; the library reads it only once, at import."""
    return os.environ.get("HF_ENDPOINT")


def _bar(file: WeightFile, total: int, report: Report | None) -> type:
    """A progress bar class for huggingface_hub that draws nothing and calls `report`."""
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
def _product_errors(file: WeightFile) -> Iterator[None]:
    """Turns the exceptions of huggingface_hub and its HTTP library into a `ModelError` with a remedy."""
    from huggingface_hub import errors

    # The base exception of the HTTP library, which differs between versions of huggingface_hub.
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
        "Check the network and run the same command again; the download continues where it stopped.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Pins:
    """The file `pins.json`: hash and revision, at the first download, of files without a hash in the model table."""

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
        """The pinned SHA-256; empty if there is none."""
        return self._pin(file).get("sha256", "")

    def revision(self, file: WeightFile) -> str:
        """The pinned commit; empty if there is none."""
        return self._pin(file).get("revision", "")

    def add(self, file: WeightFile, revision: str, sha256: str, size: int) -> None:
        """Pin a file and write the list to disk; a crash leaves the old list or the new one."""
        self._pins[f"{file.repository}/{file.path}"] = {"revision": revision, "sha256": sha256, "bytes": size}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._pins, indent=2) + "\n", encoding="utf-8")
        part.replace(self._path)
