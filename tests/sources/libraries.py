"""The libraries of before, each as two functions: one request that reads the session, and one that sets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http.cookies import SimpleCookie
from typing import Any, Protocol

import flask
from django.contrib.sessions.backends.base import SessionBase
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Library(Protocol):
    """A session library and its store."""

    def load(self, cookie: str | None) -> dict[str, Any]:
        """What the app sees in a request with this cookie, `{}` where there is no session."""
        ...

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        """A request that sets these items; the cookie of the response, None without one."""
        ...


class FlaskLibrary:
    """Any of Flask's session interfaces, in the app's own request cycle."""

    def __init__(self, app: flask.Flask, *, permanent: bool | None = None) -> None:
        self.app, self.permanent = app, permanent

    def load(self, cookie: str | None) -> dict[str, Any]:
        with self._request(cookie):
            return {key: value for key, value in dict(flask.session).items() if key != "_permanent"}

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        with self._request(cookie):
            for key in set(flask.session) - {"_permanent", *items}:
                del flask.session[key]
            flask.session.update(items)
            if self.permanent is not None:
                flask.session.permanent = self.permanent
            response = self.app.process_response(flask.Response())
        set_cookie = response.headers.get("Set-Cookie")
        return None if set_cookie is None else cookie_value(set_cookie)

    def _request(self, cookie: str | None) -> Any:
        return self.app.test_request_context(headers={} if cookie is None else {"Cookie": f"session={cookie}"})


class AsgiLibrary:
    """A middleware that keeps the session in the scope."""

    def __init__(self, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        self.wrap = wrap

    def load(self, cookie: str | None) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        self._request(cookie, seen.update)
        return seen

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        def change(session: Any) -> None:
            session.clear()
            session.update(items)

        return self._request(cookie, change)

    def _request(self, cookie: str | None, use: Callable[[Any], None]) -> str | None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            use(scope["session"])
            await send({"type": "http.response.start", "status": 200, "headers": []})

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        headers = [] if cookie is None else [(b"cookie", f"session={cookie}".encode())]
        asyncio.run(self.wrap(app)({"type": "http", "path": "/", "headers": headers}, receive, send))  # type: ignore[arg-type]
        found = [value.decode() for name, value in sent[0]["headers"] if name.lower() == b"set-cookie"]
        return cookie_value(found[0]) if found else None


class DjangoLibrary:
    """One of Django's session engines, used as its middleware does."""

    def __init__(self, engine: Callable[[str | None], SessionBase]) -> None:
        self.engine = engine

    def load(self, cookie: str | None) -> dict[str, Any]:
        return dict(self.engine(cookie).items())

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        session = self.engine(cookie)
        for key in set(session.keys()) - set(items):
            del session[key]
        session.update(dict(items))
        session.save()
        return session.session_key


def cookie_value(set_cookie: str) -> str:
    """The value of the one cookie in a Set-Cookie field."""
    (morsel,) = SimpleCookie(set_cookie).values()
    return morsel.value
