"""What a session adds to a request that reads it on its owner's host: `python -m tests.benchmark.pipeline [--profile]`.

Each app is called without a server, once without a session, once with the framework's own signed cookie, once with ours over
the shared store; the figure is CPU time per request over that of the app without a session, median of interleaved rounds.
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import logging
import pstats
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import process_time
from typing import Any

import flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookie
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from clustersession import hostclock
from clustersession.integrations.flask import ClusterSession
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.runtime.engine import Engine
from clustersession.store.lmdb_store import LmdbStore
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import environ_of, http_scope

ROUNDS, CALLS = 15, 300
NEIGHBOURS = "theme=dark; _ga=GA1.2.1234567890.1700000000; lang=en"
VALUES: dict[str, Any] = {"_user_id": "42", "_fresh": True, **{f"cart:item{n}": n for n in range(20)}}

Call = Callable[[], object]


def read(session: Any) -> str:
    return f"{session['_user_id']} {session['cart:item7']}"


def begin(session: Any) -> None:
    session.update(VALUES)


def engine(directory: Path) -> Engine:
    def store(name: str) -> LmdbStore:
        return LmdbStore(directory / name, cluster="default", node=name, now=hostclock.now, bytes_max=64 * 2**20, lock_s=1.0)

    return InProcessCluster(store=store)["a"].engine


# --- apps: each gives a call that reads, with the cookie in it --------------------------------------------------------------


def wsgi_call(app: Any, cookie: str | None) -> Call:
    environ = environ_of("/read", cookie)

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
        assert status[:3] == "200", (status, headers)
        seen[:] = [value for name, value in headers if name == "Set-Cookie"]
        return lambda data: None

    def call() -> list[str]:
        body = app({**environ, "wsgi.input": io.BytesIO()}, start_response)
        for _ in body:
            pass
        getattr(body, "close", int)()
        return seen

    seen: list[str] = []
    return call


def flask_calls(engine: Engine) -> dict[str, Call]:
    def made(setup: Callable[[flask.Flask], object]) -> flask.Flask:
        app = flask.Flask("bench")
        setup(app)

        @app.get("/begin")
        def first() -> str:
            begin(flask.session)
            return "ok"

        @app.get("/read")
        def index() -> str:
            return read(flask.session) if setup is not plain else "ok"

        return app

    def plain(app: flask.Flask) -> None:
        """No session is looked at."""

    def signed(app: flask.Flask) -> None:
        app.secret_key = "a secret for measuring only"

    apps = {"none": made(plain), "signed cookie": made(signed), "clustersession": made(lambda app: ClusterSession(app, engine))}
    return {name: wsgi_call(app, None if name == "none" else begun_wsgi(app)) for name, app in apps.items()}


def begun_wsgi(app: Any) -> str:
    cookies: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
        cookies.extend(value for name, value in headers if name == "Set-Cookie")
        return lambda data: None

    list(app(environ_of("/begin"), start_response))
    return f"{NEIGHBOURS}; {cookies[-1].strip().partition(';')[0]}"


def django_calls(engine: Engine) -> dict[str, Call]:
    from tests.benchmark import django_bench

    return {name: wsgi_call(app, None if name == "none" else begun_wsgi(app)) for name, app in django_bench.apps(engine).items()}


def starlette_calls(engine: Engine, loop: asyncio.AbstractEventLoop) -> dict[str, Call]:
    async def first(request: Request) -> PlainTextResponse:
        begin(request.session)
        return PlainTextResponse("ok")

    async def index(request: Request) -> PlainTextResponse:
        return PlainTextResponse(read(request.session))

    async def bare(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    def made(endpoint: Any, *middleware: Middleware) -> Starlette:
        return Starlette(routes=[Route("/begin", first), Route("/read", endpoint)], middleware=middleware)

    apps = {
        "none": made(bare),
        "signed cookie": made(index, Middleware(SignedCookie, secret_key="a secret for measuring only")),
        "clustersession": made(index, Middleware(SessionMiddleware, config=engine)),
    }
    return {name: asgi_call(app, loop, begin_first=name != "none") for name, app in apps.items()}


def asgi_call(app: Any, loop: asyncio.AbstractEventLoop, *, begin_first: bool) -> Call:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    cookie = None
    if begin_first:
        loop.run_until_complete(app(http_scope("/begin"), receive, send))
        cookie = f"{NEIGHBOURS}; {dict(sent[0]['headers'])[b'set-cookie'].decode().partition(';')[0]}"
    scope = http_scope("/read", cookie)

    def call() -> list[Any]:
        sent.clear()
        request: Awaitable[None] = app(dict(scope), receive, send)
        try:
            request.send(None)  # type: ignore[attr-defined]  # nothing in it waits, so the loop would only be measured too
        except StopIteration:
            pass
        return [value for name, value in sent[0]["headers"] if name == b"set-cookie"]

    return call


# --- measuring -------------------------------------------------------------------------------------------------------------


def measure(calls: dict[str, Call]) -> dict[str, float]:
    """Microseconds of CPU per call over "none"."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(CALLS):
            call()
        assert not call(), "a read must not set a cookie"
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = process_time()
            for _ in range(CALLS):
                call()
            times[name].append((process_time() - began) / CALLS * 1e6)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {name: medians[name] - medians["none"] for name in calls if name != "none"}


def pipeline_call(engine: Engine) -> Call:
    """The pipeline alone, as the WSGI middleware runs it."""
    visit = engine.visit((), blocking=True)
    begin(visit.session)
    engine.blocking.run(visit.save(), visit.budget)
    field = f"{NEIGHBOURS}; {visit.headers().cookies[0].partition(';')[0]}"

    def call() -> object:
        visit = engine.visit((field,), blocking=True)
        read(visit.session)
        assert not visit.pending()
        headers = visit.headers()
        visit.close()
        return headers.cookies

    return call


def main() -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        shared = engine(Path(directory))
        loop = asyncio.new_event_loop()
        rows = {
            "pipeline": {"none": lambda: (), "clustersession": pipeline_call(shared)},
            "Starlette": starlette_calls(shared, loop),
            "Flask": flask_calls(shared),
            "Django": django_calls(shared),
        }
        if "--profile" in sys.argv:
            profile(rows["pipeline"]["clustersession"])
        for name, calls in rows.items():
            print(f"{name:10}", "   ".join(f"{kind} {cost:5.1f} us" for kind, cost in measure(calls).items()))
        loop.close()


def profile(call: Call) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(20_000):
        call()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
