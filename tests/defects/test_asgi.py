"""What other session libraries for ASGI do to their users, reproduced with the library, and how the same app fares here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.memory import MemoryStore
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarletteMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from clustersession.integrations.starlette import SessionMiddleware
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import Answer, call_asgi

HOW = ("nested", "streaming", "background")


async def _page(request: Request) -> Response:
    session, what = request.session, request.path_params["what"]

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        session["late"] = "streaming"
        yield b"two"

    async def later() -> None:
        session["late"] = "background"

    match what:
        case "begin":
            session["cart"] = ["apple"]
        case "nested":
            session["cart"].append("pear")
        case "streaming":
            return StreamingResponse(body())
        case "background":
            session.get("cart")
            return JSONResponse({}, background=BackgroundTask(later))
    return JSONResponse(dict(session))


def shop(middleware: Middleware) -> Starlette:
    return Starlette(routes=[Route("/{what}", _page)], middleware=[middleware])


def _changed(app: Starlette, how: str) -> Any:
    """What the session holds after it was changed in that way."""
    begun = call_asgi(app, "/begin")
    cookie = begun.pair
    changed = call_asgi(app, f"/{how}", cookie)
    cookie = changed.pair if changed.cookies else cookie
    return json.loads(call_asgi(app, "/look", cookie).body)


@pytest.mark.parametrize("how", HOW)
def test_starlette_loses_it_without_a_word(how: str) -> None:
    """A change of a nested value, or one made while or after the response is sent, is gone, and nobody is told."""
    app = shop(Middleware(StarletteMiddleware, secret_key="the app's own"))
    assert _changed(app, how) == {"cart": ["apple"]}


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ("nested", {"cart": ["apple", "pear"]}),
        ("streaming", {"cart": ["apple"], "late": "streaming"}),
        ("background", {"cart": ["apple"], "late": "background"}),
    ],
)
def test_every_change_is_saved(how: str, after: dict[str, Any]) -> None:
    """However late it comes, as long as the session is there to be saved to."""
    app = shop(Middleware(SessionMiddleware, config=InProcessCluster()["a"].engine))
    assert _changed(app, how) == after


# --- visitors who only look ----------------------------------------------------------------------------------------------------


def _litestar() -> tuple[Any, MemoryStore]:
    @get("/")
    async def look(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
        return dict(request.session)

    store = MemoryStore()
    config = ServerSideSessionConfig(key="cs")
    return Litestar([look], middleware=[config.middleware], stores={"sessions": store}), store


def _asked(app: Any, cookie: str | None = None) -> Answer:
    return call_asgi(app, "/", cookie)


def test_litestar_stores_a_session_for_who_only_looks() -> None:
    """Each visit of a robot is an entry and a cookie."""
    app, store = _litestar()
    answer = _asked(app)
    assert answer.cookies
    assert len(store._store) == 1


def test_litestar_takes_the_id_that_a_client_has_chosen() -> None:
    """Whoever plants it knows the session of the victim (fixation)."""
    app, store = _litestar()
    _asked(app, "cs=chosen-by-an-attacker")
    assert list(store._store) == ["chosen-by-an-attacker"]


@pytest.mark.parametrize("cookie", [None, "cs=chosen-by-an-attacker", "__Host-cs=chosen-by-an-attacker"])
def test_who_only_looks_leaves_nothing(cookie: str | None) -> None:
    """No entry, no cookie, and an ID that this cluster did not make is none."""
    cluster = InProcessCluster()
    app = shop(Middleware(SessionMiddleware, config=cluster["a"].engine))
    assert call_asgi(app, "/look", cookie).cookies == []
    assert cluster.entries() == 0
