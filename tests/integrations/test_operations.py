"""Operations and expectations where a framework's session has an interface of its own: Django's store, Starlette's dict,
Flask's error handlers."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from flask import Flask, Response, request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clustersession.core.calls import Apply, Deliver
from clustersession.errors import ConflictingWrite, LateWrite, ValueTypeMismatch
from clustersession.integrations.django import SessionStore, source
from clustersession.integrations.flask import ClusterSession, session
from clustersession.integrations.starlette import SessionMiddleware, session_of
from clustersession.testing.in_process import InProcessCluster

with warnings.catch_warnings(action="ignore"):  # it would rather have another HTTP client than the one that is installed
    from starlette.testclient import TestClient


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    made = InProcessCluster()
    source.use(made["a"].engine)
    yield made
    source._current = None


def test_djangos_store_has_them(cluster: InProcessCluster) -> None:
    """Two stores of one session, as two requests have them: both count."""
    first = SessionStore()
    first.create()
    second = SessionStore(first.session_key)
    for store in (first, second):
        assert store.incr("n") == 1
        store.append("log", "x")
        store.add("set", 1)
        store.discard("set", 2)
    first.save()
    second.save()
    assert SessionStore(first.session_key).load() == {"n": 2, "log": ["x", "x"], "set": {1}}


def test_djangos_async_store_has_them(cluster: InProcessCluster) -> None:
    """Each with its `a`, which loads the session first."""

    async def count() -> dict[str, Any]:
        first = SessionStore()
        await first.acreate()
        second = SessionStore(first.session_key)
        for store in (first, second):
            assert await store.aincr("n", by=2) == 2
            await store.aappend("log", "x")
            await store.aadd("set", 1)
            await store.adiscard("set", 2)
            await store.aexpect("none")
        await first.asave()
        await second.asave()
        await second.aexpect("n", 5)
        await second.aset("n", 6)
        with pytest.raises(ConflictingWrite):
            await second.asave()
        return await SessionStore(first.session_key).aload()

    assert asyncio.run(count()) == {"n": 4, "log": ["x", "x"], "set": {1}}


def test_a_conflict_in_djangos_save_is_its_update_error(cluster: InProcessCluster) -> None:
    """Code that expects `UpdateError` or `LateWrite` gets it, and the key."""
    store = SessionStore()
    store["seat"] = "free"
    store.save()
    store.expect("seat", "taken")
    store["seat"] = "mine"
    with pytest.raises(UpdateError) as caught:
        store.save()
    assert isinstance(caught.value, ConflictingWrite)
    assert isinstance(caught.value, LateWrite)
    assert caught.value.key == "seat"
    assert SessionStore(store.session_key).load() == {"seat": "free"}


def test_flasks_error_handlers_know_a_conflict(cluster: InProcessCluster) -> None:
    """By our class or by its status; the app's own page is the answer."""
    app = Flask("shop")
    engine = cluster["b"].engine
    ClusterSession(app, engine)

    @app.errorhandler(ConflictingWrite)
    def conflict(error: ConflictingWrite) -> tuple[str, int]:
        return f"{error.key} is gone", 409

    @app.get("/set")
    def first() -> str:
        session["seat"] = "free"
        return "ok"

    @app.get("/take")
    def take() -> Response:
        session.expect("seat", session["seat"])
        other = engine.visit((request.environ["HTTP_COOKIE"],), blocking=True)
        other.session["seat"] = "lost"
        engine.blocking.run(other.save(), other.budget)
        session["seat"] = "mine"
        return Response("yours")

    client = app.test_client()
    client.get("/set")
    answer = client.get("/take")
    assert (answer.status_code, answer.text) == (409, "seat is gone")


def starlette_client(cluster: InProcessCluster, *routes: Route) -> TestClient:
    return TestClient(Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, config=cluster["a"].engine)]))


def test_starlettes_dict_shows_what_they_make(cluster: InProcessCluster) -> None:
    """The dict, an object that the app got from it before, and what is saved are one; only the operation travels."""

    async def begin(request: Request) -> JSONResponse:
        request.session.update(n=1, cart=["a"], untouched=[1])
        return JSONResponse(None)

    async def change(request: Request) -> JSONResponse:
        found = session_of(request)
        cart = found["cart"]
        assert found.incr("n") == 2
        found.append("cart", "b")
        found.append("untouched", 2)
        found.append("new", "c")
        assert cart is request.session["cart"]
        with pytest.raises(ValueTypeMismatch):
            found.incr("cart")
        return JSONResponse(dict(request.session))

    client = starlette_client(cluster, Route("/begin", begin), Route("/change", change))
    client.get("/begin")
    cluster.sent.clear()
    after = {"n": 2, "cart": ["a", "b"], "untouched": [1, 2], "new": ["c"]}
    assert client.get("/change").json() == after
    cookie = f"cs={client.cookies['cs']}"
    assert dict(cluster["c"].engine.visit((cookie,), blocking=True).session) == after
    sent = [each.call.patch for each in cluster.sent if isinstance(each.call, Deliver | Apply)]
    assert [(set(patch.changes), patch.edits) for patch in sent] == [({"n", "cart", "untouched", "new"}, ())]
