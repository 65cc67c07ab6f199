"""Starlette and FastAPI with their own test client: `request.session` as with Starlette's own middleware."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from clustersession.errors import ConfigError
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.testing.in_process import InProcessCluster

with warnings.catch_warnings(action="ignore"):  # it would rather have another HTTP client than the one that is installed
    from starlette.testclient import TestClient


async def show(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def login(request: Request) -> Response:
    request.session["_user_id"] = request.path_params["user"]
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/", 303)


ROUTES = [Route("/", show), Route("/login/{user}", login), Route("/logout", logout)]


def shop(cluster: InProcessCluster | None, host: str = "a", **more: Any) -> Starlette:
    config = None if cluster is None else cluster[host].engine
    return Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware, config=config)], **more)


def visits(request: Request) -> int:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return int(request.session["visits"])


def test_an_app_under_test_needs_no_settings() -> None:
    """Dev mode: memory, no port; the redirect after the login finds it stored, lifespan events pass."""
    started: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        started.append("up")
        yield
        started.append("down")

    with TestClient(shop(None, lifespan=lifespan)) as client:
        assert client.get("/login/7").json() == {"_user_id": "7"}
        assert client.get("/").json() == {"_user_id": "7"}
        assert client.get("/logout").json() == {}
    assert started == ["up", "down"]


def test_a_session_that_cannot_be_reached_is_a_503_in_the_test_client() -> None:
    """With Retry-After and without a Set-Cookie; the session is there when its owners are."""
    cluster = InProcessCluster()
    first = TestClient(shop(cluster))
    first.get("/login/7")
    backup = next(each.target for each in cluster.sent if each.source == "a")
    third = TestClient(shop(cluster, next(name for name in "bc" if name != backup)), cookies=dict(first.cookies))
    cluster.down("a", backup)
    for path in ("/", "/login/8", "/logout"):
        answer = third.get(path)
        assert (answer.status_code, answer.headers["Retry-After"], "set-cookie" in answer.headers) == (503, "1", False)
    cluster.back("a", backup)
    assert third.get("/").json() == {"_user_id": "7"}


def test_fastapi_dependencies_see_it() -> None:
    """Sync dependencies run in threads, endpoints on the loop: one session."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(SessionMiddleware)

    @app.get("/")
    async def index(request: Request, count: Annotated[int, Depends(visits)]) -> dict[str, int]:
        return {"dependency": count, "endpoint": request.session["visits"]}

    client = TestClient(app)
    assert [client.get("/").json() for _ in range(2)] == [{"dependency": n, "endpoint": n} for n in (1, 2)]


def test_a_wrong_setting_is_told_with_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette builds its middlewares when the app starts: before the first request at the latest."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    with pytest.raises(ConfigError, match="CLUSTERSESSION_SECRET"), TestClient(shop(None)):
        pass
