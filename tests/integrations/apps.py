"""One small app in every framework, on every host of an in-process cluster, with the same paths and JSON answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from copy import copy, deepcopy
from typing import Any

import flask as flask_package
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from clustersession.integrations.flask import ClusterSession
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.middleware.asgi import SessionMiddleware as AsgiMiddleware
from clustersession.middleware.wsgi import SessionMiddleware as WsgiMiddleware
from clustersession.runtime.engine import Engine
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import Answer, call_asgi, call_wsgi

Caller = Callable[[str, str | None], Answer]


def act(session: Any, path: str) -> Any:  # noqa: C901  (a table of what a page can do)
    """What the app does at `path`. `/op/...` are all the ways a mapping can be looked at or changed."""
    _, action, *words = path.split("/")
    match action, words:
        case "quiet", _:
            return "nothing"
        case "login", [user]:
            session["_user_id"] = user
        case "logout", _:
            end(session)
        case "set", [key, value]:
            session[key] = value
        case "append", [key, value]:
            session.setdefault(key, [])
            session[key].append(value)
        case "add", [key, value]:  # as apps do whose sessions don't notice what is changed in place
            session[key] = [*session.get(key, []), value]
        case "rotate", _:
            (session.cycle_key if hasattr(session, "cycle_key") else session.rotate)()
        case "relogin", [user]:
            end(session)
            act(session, f"/login/{user}")
        case "boom", _:
            session["before"] = "boom"
            raise ZeroDivisionError
        case "logout_boom", _:
            end(session)
            session["before"] = "boom"
            raise ZeroDivisionError
        case "rotate_boom", _:
            act(session, "/rotate")
            raise ZeroDivisionError
        case "lock_boom", [name]:
            session.lock(name, wait_s=0)
            session.expect(name)
            act(session, "/boom")
        case "lock_both", [name, other]:
            session.lock(name, wait_s=0)
            session.lock(other, wait_s=0)
        case "interrupted", [key, value]:
            session.get(key)
            meanwhile.pop()()
            session[key] = value
        case "interrupted_look", _:
            list(session.keys())
            meanwhile.pop()()
            return {}
        case "pop", [key]:
            session.pop(key)
        case "clear", _:
            session.clear()
        case "interrupted_clear", _:
            list(session.keys())
            meanwhile.pop()()
            session.clear()
        case "large", _:
            session["large"] = "x" * 100_000
        case "strange", _:
            session["strange"] = object()
            return "strange"
        case "count", [key]:
            count = session.incr(key)
            session.append(f"{key} log", count)
            session.add(f"{key} set", 1)
            session.discard(f"{key} set", 2)
            for elsewhere in [meanwhile.pop()] if meanwhile else []:
                elsewhere()
            return count
        case "take", [key]:
            session.expect(key, session[key])
            meanwhile.pop()()
            session[key] = "taken"
        case "sessions", [user]:
            return [each._asdict() for each in session.users.sessions_of(user)]
        case "end_others", [user]:
            return session.users.end_all(user, except_=session.session_key if hasattr(session, "cycle_key") else session.id)
        case "fresh", [seconds]:
            session.require_fresh(float(seconds))
        case "relogin_now", _:
            session.refresh_login()
        case "refresh", [key]:
            session.get(key)
            meanwhile.pop()()
            session.refresh()
        case "set_refresh", [key, value]:
            session[key] = value
            act(session, f"/refresh/{key}")
        case "copies", [key]:
            session[key] = ["own"]
            for each in [deepcopy(session)] + ([] if hasattr(session, "cycle_key") else [copy(session)]):
                each[key] = "another's"
                each["only there"] = 1
            deep = deepcopy(session)
            deep.pop(key).append("another's")
            return type(deep).__name__
        case "lock", [name]:
            session.lock(name, wait_s=0)
            session[name] = "done"
        case "op", [name]:
            return repr(OPERATIONS[name](session))
    return {key: session[key] for key in sorted(session.keys())}


meanwhile: list[Callable[[], object]] = []
"""What happens elsewhere while `/interrupted` is at work."""


def end(session: Any) -> None:
    session.flush() if hasattr(session, "flush") else session.end()


def _swallow(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(session: Any) -> Any:
        try:
            return function(session)
        except KeyError:
            return None

    return call


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "getitem": _swallow(lambda session: session["none"]),
    "get": lambda session: session.get("none"),
    "in": lambda session: "none" in session,
    "keys": lambda session: list(session.keys()),
    "values": lambda session: list(session.values()),
    "items": lambda session: list(session.items()),
    "pop": lambda session: session.pop("none", None),
    "setitem": lambda session: session.__setitem__("k", 1),
    "setdefault": lambda session: session.setdefault("k", 1),
    "update": lambda session: session.update({"k": 1}),
    "delitem": _swallow(lambda session: session.__delitem__("none")),
    "clear": lambda session: session.clear(),
}
MORE_OPERATIONS: dict[str, Callable[[Any], Any]] = {  # Django's interface has none of these
    "len": len,
    "iter": list,
    "bool": bool,
    "eq": lambda session: session == {},
    "id": lambda session: session.id,
    "is_new": lambda session: session.is_new,
}
OPERATIONS.update(MORE_OPERATIONS)
CHANGING = frozenset({"setitem", "setdefault", "update"})


# --- the frameworks ------------------------------------------------------------------------------------------------------


def wsgi(engine: Engine) -> Caller:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        session = environ["clustersession.session"]
        if path == "/stream":
            return _streaming(session, start_response)
        body = json.dumps(act(session, path)).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Set-Cookie", "theme=dark")])
        return [body]

    def _streaming(session: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one "
        session["streamed"] = "yes"
        yield b"two"

    wrapped = WsgiMiddleware(app, engine)
    return lambda path, cookie: call_wsgi(wrapped, path, cookie)


def flask(engine: Engine) -> Caller:
    app = flask_package.Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.logger.disabled = True
    ClusterSession(app, engine)

    @app.get("/stream")
    def stream() -> flask_package.Response:
        def body() -> Iterator[str]:
            yield "one "
            flask_package.session["streamed"] = "yes"
            yield "two"

        return flask_package.Response(flask_package.stream_with_context(body()))

    @app.get("/", defaults={"path": ""})
    @app.get("/<path:path>")
    def anything(path: str) -> flask_package.Response:
        found = act(flask_package.session, f"/{path}")
        response = flask_package.Response(json.dumps(found), mimetype="application/json")
        response.set_cookie("theme", "dark")
        return response

    return lambda path, cookie: call_wsgi(app, path, cookie)


def django(engine: Engine) -> Caller:
    from tests.integrations import django_project

    handler = django_project.wsgi_handler(engine)
    return lambda path, cookie: call_wsgi(handler, path, cookie)


def django_async(engine: Engine) -> Caller:
    from tests.integrations import django_project

    handler = django_project.asgi_handler(engine)
    return lambda path, cookie: call_asgi(handler, f"/async{path}", cookie)


def asgi(engine: Engine) -> Caller:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session, path = scope["session"], scope["path"]
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            session["streamed"] = "yes"
            await send({"type": "http.response.body", "body": b"two"})
            return
        body = json.dumps(act(session, path)).encode()
        headers = [(b"content-type", b"application/json"), (b"set-cookie", b"theme=dark")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    wrapped = AsgiMiddleware(app, engine)
    return lambda path, cookie: call_asgi(wrapped, path, cookie)


def starlette(engine: Engine) -> Caller:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "one "
            request.session["streamed"] = "yes"
            yield "two"

        return StreamingResponse(body())

    async def anything(request: Request) -> Response:
        response = JSONResponse(act(_session(request), request.url.path))
        response.set_cookie("theme", "dark")
        return response

    app = Starlette(
        routes=[Route("/stream", stream), Route("/{path:path}", anything)],
        middleware=[Middleware(SessionMiddleware, config=engine)],
    )
    return lambda path, cookie: call_asgi(app, path, cookie)


def _session(request: Request) -> Any:
    """To Starlette, `request.session` is a look at it."""
    return None if request.url.path == "/quiet" else request.session


def fastapi(engine: Engine) -> Caller:
    app = FastAPI(openapi_url=None)
    app.add_middleware(SessionMiddleware, config=engine)

    @app.get("/stream")
    def stream(request: Request) -> Response:
        def body() -> Iterator[str]:
            yield "one "
            request.session["streamed"] = "yes"
            yield "two"

        return StreamingResponse(body())

    @app.get("/{path:path}")
    def anything(request: Request, path: str) -> Response:
        response = JSONResponse(act(_session(request), f"/{path}"))
        response.set_cookie("theme", "dark")
        return response

    return lambda path, cookie: call_asgi(app, path, cookie)


FRAMEWORKS: dict[str, Callable[[Engine], Caller]] = {
    each.__name__: each for each in (wsgi, flask, django, django_async, asgi, starlette, fastapi)
}


class Site:
    """The app on every host of `cluster`."""

    def __init__(self, framework: str, cluster: InProcessCluster) -> None:
        self.framework, self.cluster = framework, cluster
        self._callers = {node.name: FRAMEWORKS[framework](node.engine) for node in cluster}

    def get(self, host: str, path: str, cookie: str | None = None) -> Answer:
        """One GET to that host."""
        return self._callers[host](path, cookie)

    def values(self, host: str, cookie: str | None = None) -> Any:
        """What the session holds, as that host sees it."""
        answer = self.get(host, "/", cookie)
        assert answer.status == 200, answer
        return json.loads(answer.body)


def session_cookies(answer: Answer) -> list[str]:
    """The Set-Cookie values that are not the app's own."""
    return [cookie.strip() for cookie in answer.cookies if "theme=" not in cookie]


def pair(answer: Answer) -> str:
    """`name=value` of the session's cookie in the answer."""
    (cookie,) = session_cookies(answer)
    return cookie.partition(";")[0]
