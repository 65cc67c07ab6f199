"""Chromium without a window, driven over its DevTools protocol through pipes: no further package is needed for that.

The protocol: https://chromedevtools.github.io/devtools-protocol/, messages of JSON that end with a zero byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
ENDS_S: Final = 10.0
_READS, _WRITES = 3, 4  # the descriptors that --remote-debugging-pipe talks on
_FLAGS: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it needs rights that root in a container lacks; only pages of the test itself are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--window-size=1200,900",
)


def found() -> str | None:
    """The browser of this machine, if it has one that starts (some have a stand-in that only names a package)."""
    paths = (path for name in NAMES if (path := shutil.which(name)))
    return next(
        (path for path in paths if subprocess.run([path, "--version"], check=False, capture_output=True).returncode == 0), None
    )


class ScriptFailed(AssertionError):
    """What a page was told to do did not work."""


class Chromium:
    """One browser with one page. As a context it leaves no process behind."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, from_browser = os.pipe(), os.pipe()
        with (profile.parent / "chromium.log").open("wb") as log:
            self._browser = subprocess.Popen(
                [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=False,
                preexec_fn=_on_the_pipes(to_browser[0], from_browser[1]),
            )
        os.close(to_browser[0])
        os.close(from_browser[1])
        self._to, self._from = os.fdopen(to_browser[1], "wb", 0), os.fdopen(from_browser[0], "rb", 0)
        self._unread = b""
        self._asked = 0
        self._session: str | None = None
        page = next(each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._browser.terminate()
        try:
            self._browser.wait(ENDS_S)
        finally:
            self._browser.kill()
            self._to.close()
            self._from.close()

    def open(self, url: str) -> None:
        """Begins to load the page."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        done = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise ScriptFailed(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._asked:
            pass  # events of the browser, and nobody waits for them
        if "error" in answer:
            raise ScriptFailed(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            data = self._from.read(1 << 16)
            if not data:
                raise ScriptFailed("the browser has ended")
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read


def _on_the_pipes(reads: int, writes: int) -> Callable[[], None]:
    def place() -> None:
        aside = os.dup(writes)  # the one may lie where the other belongs
        os.dup2(reads, _READS)
        os.dup2(aside, _WRITES)

    return place
