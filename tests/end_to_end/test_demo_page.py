"""`make demo` as a person sees it: the page in a real browser, its shop and the button of every fault."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .chromium import Chromium, found
from .processes import end_with_parent, until
from .servers import TOP, bare_environ

SHOP = "document.querySelector('iframe').contentDocument"
TABLE = "[...document.querySelectorAll('#hosts tr')].map(row => [...row.cells].slice(0, 3).map(cell => cell.textContent))"
BACK_S = 30.0
ENDS_S = 20.0


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The demo's address, printed when its three hosts are ready."""
    environ = {**bare_environ(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "demo_app", "--port", "0", "--loopback"]
    with subprocess.Popen(
        command, cwd=TOP, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent
    ) as demo:
        assert demo.stdout is not None
        try:
            printed = (re.search(r"http://\S+", line) for line in demo.stdout)
            yield next(match[0] for match in printed if match)
        finally:
            demo.terminate()
        assert demo.wait(ENDS_S) == 0


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    program = found()
    if program is None:
        pytest.skip("no chromium is installed: the demo's page was NOT tried in a browser")
    with Chromium(program, tmp_path / "profile") as chromium:
        yield chromium


class Visitor:
    """Clicks in the shop and on the panel above it."""

    def __init__(self, browser: Chromium) -> None:
        self._browser = browser

    def text(self) -> str:
        loaded = "document.querySelector('iframe')?.contentDocument?.readyState == 'complete'"
        return str(self._browser.run(f"{loaded} ? {SHOP}.body.innerText : ''"))

    def _next_page(self, click: str) -> str:
        """`click` loads a new page into the frame; its text."""
        self._browser.run(f"{SHOP}.body.dataset.old = '1'; {click}")
        until(lambda: self._browser.run(f"!!{SHOP}.body && !{SHOP}.body.dataset.old && {SHOP}.readyState == 'complete'"), click)
        return self.text()

    def log_in(self, name: str) -> str:
        return self._next_page(f"{SHOP}.querySelector('[name=user]').value = {json.dumps(name)}; {self._button('/login')}")

    def click(self, action: str) -> str:
        """The first button of a form of the shop."""
        return self._next_page(self._button(action))

    def look(self) -> str:
        return self._next_page("document.querySelector('iframe').contentWindow.location.reload()")

    @staticmethod
    def _button(action: str) -> str:
        return f"""{SHOP}.querySelector('form[action="{action}"] button').click()"""

    def order(self, host: str, action: str) -> None:
        """A button of the panel, which must be there and enabled."""
        row = f"[...document.querySelectorAll('#hosts tr')].find(row => row.cells[0].textContent == '{host}')"
        button = f"[...{row}.querySelectorAll('button:enabled')].find(each => each.textContent == '{action}')"
        until(lambda: self._browser.run(f"!!{button} && ({button}.click(), true)"), f"{action} cannot be clicked for {host}")

    def hosts(self) -> dict[str, tuple[str, str]]:
        """State and turn of each host, as the panel shows them."""
        rows: list[Any] = self._browser.run(TABLE)
        return {name: (state, turn) for name, state, turn in rows}

    def until_is(self, host: str, state: str, turn: str) -> None:
        until(lambda: self.hosts().get(host) == (state, turn), f"{host} is not {state} and {turn}: {self.hosts()}", BACK_S)


def owners_in(text: str) -> tuple[str, str]:
    match = re.search(r"your session: master (\w+), backup (\w+)", text)
    assert match, text
    return match[1], match[2]


def host_in(text: str) -> str:
    match = re.search(r"Served by (\w+)", text)
    assert match, text
    return match[1]


@pytest.mark.slow
def test_the_demo_in_a_browser(browser: Chromium, page: str) -> None:
    """Every host serves, the page names its host and both owners, and neither a kill, a pause nor a restart costs the login."""
    browser.open(page)
    ann = Visitor(browser)
    until(lambda: "Served by" in ann.text(), "the shop is not shown")
    for host in ("app1", "app2", "app3"):
        ann.until_is(host, "running", "in turn")
    ann.log_in("ann")
    bought = ann.click("/cart")
    assert "Hello ann" in bought
    assert "Coffee, 500 g · total 8.90" in bought
    pages = [ann.look() for _ in range(6)]
    assert {host_in(text) for text in pages} == {"app1", "app2", "app3"}
    [(master, backup)] = {owners_in(text) for text in pages}
    assert master != backup

    ann.order(master, "kill")
    ann.until_is(master, "dead", "out")
    after_kill = [ann.look() for _ in range(4)]
    assert all("Hello ann" in text and "Coffee, 500 g · total 8.90" in text for text in after_kill)
    assert master not in {host_in(text) for text in after_kill}
    until(lambda: master not in owners_in(ann.look()), "the killed host is still an owner")

    ann.order(master, "start")
    ann.until_is(master, "running", "in turn")
    paused, _ = owners_in(ann.look())
    ann.order(paused, "pause")
    ann.until_is(paused, "paused", "out")
    assert all("Hello ann" in ann.look() for _ in range(4))
    ann.order(paused, "resume")
    ann.until_is(paused, "running", "in turn")

    ann.order(paused, "restart")
    until(lambda: ann.hosts()[paused] != ("running", "in turn"), "the host was not restarted")
    ann.until_is(paused, "running", "in turn")
    assert all("Coffee, 500 g · total 8.90" in ann.look() for _ in range(6))
    assert "Hello" not in ann.click("/logout")
    assert all("Your cart is empty" in ann.look() for _ in range(3))
