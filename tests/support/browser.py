"""A real headless Chromium for the tests, driven over the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--no-proxy-server",
)


def chromium() -> str:
    """The browser's command."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    raise RuntimeError("These tests need Chromium: install the package chromium.")


class Tab:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection, port: int, ident: str) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._close_url = f"http://127.0.0.1:{port}/json/close/{ident}"
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """Evaluate; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def until(self, expression: str, what: str = "", timeout_s: float = 240.0) -> Any:
        """Wait until the expression is true in the page."""
        return wait(lambda: self.js(expression), what or expression, timeout_s)

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """x, y, width, height of an element, scrolled into view."""
        found = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x, b.y, b.width, b.height]; })()"
        )
        return tuple(found)  # type: ignore[return-value]

    def click(self, selector: str, at: tuple[float, float] = (0.5, 0.5)) -> None:
        """A real mouse click at a point of an element, given as shares of its size."""
        x, y, width, height = self.box(selector)
        self.mouse("mousePressed", x + at[0] * width, y + at[1] * height)
        self.mouse("mouseReleased", x + at[0] * width, y + at[1] * height)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        """Drag with the mouse between two points of an element."""
        x, y, width, height = self.box(selector)
        point = lambda p: (x + p[0] * width, y + p[1] * height)  # noqa: E731
        self.mouse("mousePressed", *point(start))
        for i in range(1, steps + 1):
            share = i / steps
            self.mouse("mouseMoved", *point(tuple(a + (b - a) * share for a, b in zip(start, end, strict=True))))
        self.mouse("mouseReleased", *point(end))

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left",
            clickCount=1,
            buttons=0 if kind == "mouseReleased" else 1,
        )

    def touch(self, *points: tuple[float, float], begin: bool = True, lift: bool = True, at: float = 0.0) -> None:
        """Put a finger down at the first point, move it through the others, and lift it.

        Each call waits for a page that may be slow. Where the time between touches matters, `at` says when this one
        happened, Unix time; 0 for now.
        """
        when = {"timestamp": at} if at else {}
        kinds = ["touchStart" if begin and not n else "touchMove" for n in range(len(points))]
        for kind, (x, y) in zip(kinds, points, strict=True):
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}], **when)
        if lift:
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[], **when)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def key(self, key: str, code: str = "", number: int = 0, *, at: float = 0.0, held_s: float = 0.0) -> None:
        """Press and release a key, such as "k" or "Enter".

        Where the time between the two matters, `at` says when it was pressed, Unix time, as in `touch`; it is released
        `held_s` later.
        """
        text = key if len(key) == 1 else "\r" if key == "Enter" else ""
        params = {"key": key, "code": code or key, "windowsVirtualKeyCode": number or ord(key.upper()[0])}
        if key == "Enter":
            params["windowsVirtualKeyCode"] = 13
        down, up = ({"timestamp": at}, {"timestamp": at + held_s}) if at else ({}, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **params, **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **params, **up)

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """Messages of the console: script errors and violations of the content security policy."""
        self.js("0")
        out = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                out.append(details.get("exception", {}).get("description", details["text"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                out.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return out

    def listen_to_network(self) -> None:
        """Record requests for `hosts`; not always on, because every picture would be reported as well."""
        self.call("Network.enable")

    def hosts(self) -> set[str]:
        """Every host that the page asked for something since `listen_to_network`."""
        self.js("0")
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"] + [
            e["params"]["url"] for e in self.events if e["method"] == "Network.webSocketCreated"
        ]
        return {u.split("/")[2] for u in urls if "://" in u}

    def close(self) -> None:
        self._socket.close()
        urllib.request.urlopen(self._close_url).read()


class Browser:
    """One Chromium with a fresh profile; a context manager."""

    def __enter__(self) -> Browser:
        self._sockets = contextlib.ExitStack()
        self._profile = tempfile.mkdtemp(prefix="tidecast-chromium-")
        self._process = subprocess.Popen(
            [chromium(), *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = Path(self._profile) / "DevToolsActivePort"
        wait(lambda: told.exists() and told.read_text().count("\n"), "Chromium", 30.0)
        port, path = told.read_text().split()
        self.port, self._url = int(port), f"ws://127.0.0.1:{port}{path}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._sockets.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    @contextlib.contextmanager
    def page(
        self,
        url: str,
        ready: str,
        what: str = "",
        *,
        size: tuple[int, int] = (1440, 900),
        mobile: bool = False,
        expected: str = "",
    ) -> Iterator[Tab]:
        """A page that is open and ready. At its end its console holds no complaint.

        Args:
            ready, what: the expression to wait for, and its name; see `Tab.until`.
            expected: complaints with this text in them are not counted; by default all are.
        """
        tab = self.tab()
        tab.size(*size, mobile=mobile)
        tab.open(url)
        tab.until(ready, what)
        yield tab
        complaints = [text for text in tab.complaints() if not expected or expected not in text]
        tab.close()
        assert complaints == []

    def tab(self) -> Tab:
        """A new page in a window of its own, so that several are visible at a time."""
        with connect(self._url, max_size=None, proxy=None) as browser:
            params = {"url": "about:blank", "newWindow": True}
            browser.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": params}))
            while "result" not in (answer := json.loads(browser.recv(timeout=30))):
                pass
        ident = answer["result"]["targetId"]
        url = f"ws://127.0.0.1:{self.port}/devtools/page/{ident}"
        return Tab(self._sockets.enter_context(connect(url, max_size=None, proxy=None)), self.port, ident)


def wait(condition: Callable[[], Any], what: str, timeout_s: float = 240.0) -> Any:
    """Poll until the condition is true."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout_s:g} s: {what}")
        time.sleep(0.05)
