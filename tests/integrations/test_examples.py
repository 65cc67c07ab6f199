"""The apps in docs/how_to, as they are written there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clustersession.middleware.assembly import EngineSource
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import acall, answer_of, http_scope

PAGES = Path(__file__).parents[2] / "docs" / "how_to"


def app_on(page: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The `app` that the page's Python code makes."""
    (code,) = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType("clustersession_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where frameworks look for what annotations name
    exec(compile(code, page, "exec"), module.__dict__)
    return module.__dict__["app"]


async def ask(app: Any, method: str, path: str, cookie: str | None = None) -> Any:
    scope = {**http_scope(path, cookie), "method": method, "state": {}}
    return answer_of(await acall(app, scope))


@pytest.mark.parametrize("page", ["quart.md", "litestar.md"])
def test_the_example_logs_in_and_out(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie, the same session in the next request, and none after the logout."""
    app = app_on(page, monkeypatch)

    async def visit() -> None:
        stranger = await ask(app, "GET", "/")
        assert (stranger.status, stranger.body, stranger.cookies) == (200, b"Hello, stranger", [])
        assert stranger.varies
        cookie = (await ask(app, "POST", "/login/bob")).pair
        assert cookie.startswith("cs=")
        again = await ask(app, "GET", "/", cookie)
        assert (again.body, again.cookies) == (b"Hello, bob", [])
        gone = await ask(app, "POST", "/logout", cookie)
        assert "Max-Age=0" in gone.cookies[0]
        assert (await ask(app, "GET", "/", cookie)).body == b"Hello, stranger"

    asyncio.run(visit())


@pytest.mark.parametrize("page", ["quart.md", "litestar.md"])
def test_the_example_answers_for_sessions_that_cannot_be_reached(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, although the framework catches what a view raises."""
    cluster = InProcessCluster()
    current = ["a"]
    monkeypatch.setattr(EngineSource, "is_open", True)
    monkeypatch.setattr(EngineSource, "__call__", lambda self: cluster[current[0]].engine)
    app = app_on(page, monkeypatch)

    async def visit() -> None:
        cookie = (await ask(app, "POST", "/login/bob")).pair
        backup = next(each.target for each in cluster.sent if each.source == "a")
        cluster.down("a", backup)
        current[0] = next(name for name in "bc" if name != backup)
        answer = await ask(app, "GET", "/", cookie)
        assert (answer.status, answer.one("Retry-After"), answer.cookies) == (503, "1", [])

    asyncio.run(visit())


def test_the_tests_in_the_guide_pass(tmp_path: Path) -> None:
    """The conftest and the tests of docs/how_to/testing.md, in a pytest of their own; two of them fail if the app is wrong."""
    conftest, tests = re.findall(r"```python\n(.*?)```", (PAGES / "testing.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_shop.py").write_text(tests)
    (tmp_path / "test_wrong.py").write_text(tests.replace('session.append("cart", item)', 'session["cart"] = [item]'))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 failed, 4 passed" in done.stdout, done.stdout
    assert "FAILED test_wrong.py::test_a_cart_survives_its_host" in done.stdout
