"""The package as a stranger gets it: built, installed outside the checkout, and used from another folder."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import bootstrap
from bridge.config_file import presets

Run = Callable[..., subprocess.CompletedProcess[str]]

EXAMPLE = """
import doctest, engine.session
failed, tried = doctest.testmod(engine.session)
print(tried, "lines tried")
raise SystemExit(failed or not tried)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source distribution and wheel; the wheel is built out of the source distribution, as an installer would."""
    where = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(where), str(bootstrap.ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(where.glob("*.tar.gz")), next(where.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment that holds the wheel, in a folder that is no checkout.

    The libraries are those of the environment that runs the tests, seen through a path file: its own path files, and
    with them the link to this checkout, are not read.
    """
    home = tmp_path_factory.mktemp("stranger")
    venv.create(home / "env", with_pip=False)
    scripts = home / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = next(scripts.glob("python.exe" if os.name == "nt" else "python"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(built[1])]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    print(f"\nenvironment with the wheel, without libraries: {size_of(home / 'env') / 1e6:.1f} MB")
    own = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], **_captured())
    (Path(own.stdout.strip()) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(program: str, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [scripts / program, *arguments], cwd=home, env=environment, timeout=timeout, **_captured()
        )

    return run


def _captured() -> dict[str, object]:
    return {"capture_output": True, "text": True}


def test_it_holds_what_it_needs_and_nothing_for_developers(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    print(f"\nwheel {wheel.stat().st_size / 1e6:.1f} MB, source distribution {sdist.stat().st_size / 1e6:.1f} MB")
    assert {f"configs/{name}.toml" for name in presets()} <= names
    for needed in (
        "bridge/web/static/index.html",
        "engine/models/ember/ember.safetensors",
        "engine/models/ember/words.jpg",
        "engine/models/ember/words.json",
        "td_components/build_in_td.py",
        "td_components/Tidecast.tox.toc",
        "engine/py.typed",
        "bridge/py.typed",
        "td_components/py.typed",
        "td_components/scripts/link.py",
        "td_components/output/build_steps.py",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for foreign in ("tests/", "bridge/bundle/", "bridge/drills/", "bridge/pins/", "engine/models/ember/training/"):
        assert not [name for name in names if name.startswith(foreign)]
    with tarfile.open(sdist) as source:
        assert any(name.endswith("/configs/demo.toml") for name in source.getnames())


def test_the_size_of_the_environment(tell: Callable[[str], None]) -> None:
    """Printed, so that the sizes that `bridge.bootstrap` and the quickstart name can be compared with it."""
    libraries = Path(sysconfig.get_path("platlib"))
    sizes = {place.name: size_of(place) for place in libraries.iterdir() if place.is_dir()}
    cuda = sum(size for name, size in sizes.items() if name.startswith(("nvidia", "triton")))
    build = importlib.metadata.version("torch")
    tell(
        f"libraries {sum(sizes.values()) / 1e9:.1f} GB, of which torch {build} {sizes['torch'] / 1e9:.1f} GB"
        f" and CUDA {cuda / 1e9:.1f} GB"
    )
    assert sizes["torch"] > 1e8


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_nothing_comes_from_the_checkout(installed: Run) -> None:
    program = "import engine, bridge, configs, td_components as t; print(engine, bridge, configs, t)"
    done = installed("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert str(bootstrap.ROOT / "engine") not in done.stdout
    assert done.stdout.count("stranger") == 4


def test_the_demo_runs_and_ends_by_itself(installed: Run) -> None:
    where = ["--output", f"ndi:Wheel test {os.getpid()}", "--osc-port", "0", "--web-port", "0"]
    for seconds in ("15", "45", "200"):  # a slow machine still loads the model then; the picture goes out before
        done = installed("tidecast", "demo", "--plain", "--seconds", seconds, *where, timeout=400.0)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "page    http://127.0.0.1:" in done.stdout
        assert re.search(r"out +[1-9]", done.stdout), done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        if "\nrunning" in done.stdout:
            return
    raise AssertionError(f"the model never ran: {done.stdout}{done.stderr}")


def test_doctor_looks_at_this_machine(installed: Run) -> None:
    done = installed("tidecast", "doctor")
    assert done.returncode in (0, 1), done.stderr  # 1: something here wants mending, and it says what
    assert "Traceback" not in done.stderr
    assert "ember" in done.stdout


def test_a_preset_is_found_and_its_model_asked_for(installed: Run) -> None:
    where = ["--output", "null:", "--input", "pattern:bars", "--osc-port", "0", "--web-port", "0"]
    done = installed("tidecast", "run", "--config", "gpu-24", "--plain", "--seconds", "60", *where)
    said = done.stdout + done.stderr
    assert "There is no configuration" not in said
    assert "wan21-1.3b" in said
    if done.returncode:  # without a card or without the model's files it ends with what to do
        assert done.returncode == 2, said
        assert "Traceback" not in said


def test_a_drill_says_where_it_is(installed: Run) -> None:
    done = installed("tidecast", "bench", "faults")
    assert done.returncode == 2
    assert "not part of the installed package" in done.stderr


def test_models_and_the_python_example(installed: Run) -> None:
    listed = installed("tidecast", "models", "list")
    assert listed.returncode == 0, listed.stderr
    assert "ember" in listed.stdout
    example = installed("python", "-c", EXAMPLE)
    assert example.returncode == 0, example.stdout + example.stderr
