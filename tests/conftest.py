"""Options of the test suite."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from bridge.process.priority import keep_objects

# Before torch is loaded, and for every process that a test starts. The tests' tensors are small: two threads share an
# operation of microseconds and then wait for each other. On an idle machine that gains nothing; where other programs
# keep every core busy, each operation waits until both threads have had their turn: a test of seconds takes minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).parent

SHM = Path("/dev/shm")
OURS = re.compile(r"(tidecast|pym-|sem\.mp-|torch_)")
"""Beginnings of the names of shared memory that Tidecast, multiprocessing and torch create."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=HERE / "golden",
        help="Folder of reference vectors for tests/engine/test_golden.py; without it, the selection in tests/golden.",
    )
    parser.addoption("--alone", choices=("no", "only"), help="Leave out the tests that run alone, or all others.")
    parser.addoption("--one-try", action="store_true", help="Run no test again, whatever the machine does to it.")


REAL_TIME = {
    "bridge/test_app.py",
    "bridge/control/tempo/test_flash.py",
    "bridge/control/tempo/test_in_the_bridge.py",
    "bridge/drills/test_fault_programs.py",
    "bridge/drills/test_faults.py",
    "bridge/pipeline/model/test_switch.py",
    "bridge/video/ndi/test_ndi.py",
    "bridge/web/test_demo.py",
    "bridge/web/test_page.py",
    "td_components/test_demo.py",
}
"""Modules whose tests run whole programs against the clock. A machine that pauses them gets two further tries, which
pytest counts in its last line."""


@pytest.fixture(scope="module", autouse=True)
def short_collections(request: pytest.FixtureRequest) -> None:
    """As the program does when it starts. Here a collection would look at what all other tests have left, too: it held
    the threads that send the picture for 2.8 s on a busy machine."""
    if request.path.relative_to(HERE).as_posix() in REAL_TIME:
        keep_objects()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module without a test that runs alone, where no other is wanted."""
    tests = collection_path.suffix == ".py" and config.getoption("--alone") == "only"
    return True if tests and "pytest.mark.alone" not in collection_path.read_text() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    assert all((HERE / name).is_file() for name in REAL_TIME), "a module of REAL_TIME was moved"
    if which := config.getoption("--alone"):
        left_out = [item for item in items if (item.get_closest_marker("alone") is None) == (which == "only")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        if config.getoption("--one-try"):
            break
        if item.path.relative_to(HERE).as_posix() in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured text printable: what a worker reports is sent as UTF-8, and some tests log lone surrogates."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "replace").decode()) for title, text in report.sections]
    return report


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line at the end of the run. What a test prints itself is lost where it runs in a worker process."""
    return lambda line: record_property("tell", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests tell, then how many had to be run again, which and why: a reason that comes back is mended."""
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        for name, line in report.user_properties:
            if name == "tell":
                terminalreporter.line(str(line))
    again = terminalreporter.stats.get("rerun", [])
    terminalreporter.line(f"tests that had to be run again: {len(again) or 'none'}")
    for report in again:
        terminalreporter.section(f"first try of {report.nodeid}", sep="_")
        terminalreporter.line(report.longreprtext)


def shared_memory() -> set[str]:
    """Names of shared memory that no process maps (on Linux): what a program left behind, if it is new."""
    names = {path.name for path in SHM.glob("*") if OURS.match(path.name)}
    for maps in Path("/proc").glob("[0-9]*/maps") if names else ():
        try:
            mapped = maps.read_text()
        except OSError:  # it has just ended, or belongs to somebody else
            continue
        names = {name for name in names if f"{SHM}/{name}" not in mapped}
    return names


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_in_shared_memory() -> Iterator[None]:
    """Fail the last test if the session has left shared memory behind."""
    before = shared_memory()
    yield
    deadline = time.monotonic() + 10.0
    while (left := shared_memory() - before) and time.monotonic() < deadline:
        time.sleep(0.1)  # a process that was just killed
    assert not left, f"left in {SHM}: {', '.join(sorted(left))}"
