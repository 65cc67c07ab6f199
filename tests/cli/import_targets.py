"""What the tests of `clustersession import` name on its command line: apps and sources on Django's session files."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from starlette.applications import Starlette

from clustersession.integrations.flask import ClusterSession
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.middleware import asgi, wsgi
from clustersession.sources import DjangoFileSession, StarletteCookie

KEY = "the key of the old system"


def source() -> DjangoFileSession:
    return DjangoFileSession(os.environ["OLD_SESSIONS"], KEY)


class Unlisted:
    """A source that has no list."""

    name, cookie_name, keyless = "unlisted", "old", False

    def read(self, cookie: str, now: float) -> Any:
        return None


signed = StarletteCookie(KEY)
unlisted = Unlisted()
number = 7


def flask_app() -> Flask:
    app = Flask("shop")
    ClusterSession(app, adopt=source())
    return app


def plain_flask_app() -> Flask:
    return Flask("shop")


def wsgi_app() -> Any:
    inner = wsgi.SessionMiddleware(lambda environ, start_response: [], adopt=source())

    class Outer:
        app = inner

    return Outer()


def asgi_app() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    return asgi.SessionMiddleware(app, adopt=source())


def starlette_app() -> Starlette:
    app = Starlette()
    app.add_middleware(SessionMiddleware, adopt=source())
    return app


def adopting_nothing() -> Any:
    return wsgi.SessionMiddleware(lambda environ, start_response: [])
