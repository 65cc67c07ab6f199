"""The Flask apps of the comparison: one without a session, and the same behind each session interface."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from flask import Flask, Request, Response, session
from flask.sessions import SessionInterface, SessionMixin
from flask_session import Session as FlaskSession

from clustersession.config import Config
from clustersession.integrations.flask import ClusterSession

from . import traffic
from .redis_servers import Servers, TwoCopies
from .traffic import WsgiApp

SECRET = "the key of the comparison's signed cookies"


class NoSession(SessionMixin, dict[str, object]):
    """Stands where Flask wants an object; nothing is loaded or saved."""

    accessed = modified = False


class NoSessions(SessionInterface):
    """The baseline: Flask without sessions. Its own does work in every request that has a secret key."""

    _none = NoSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return self._none

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """There is nothing to save."""


def base() -> WsgiApp:
    app = _app()
    app.session_interface = NoSessions()
    app.view_functions["read"] = lambda: traffic.total(traffic.CART)
    app.view_functions["write"] = lambda: traffic.change(traffic.CART)
    return WsgiApp(app, [None])


def signed_cookies() -> WsgiApp:
    app = _app()
    app.secret_key = SECRET
    return WsgiApp(app)


def ours(config: Config, cookies: Sequence[str]) -> WsgiApp:
    app = _app()
    ClusterSession(app, config)
    return WsgiApp(app, cookies)


def flask_session(servers: Servers) -> WsgiApp:
    return WsgiApp(_on_redis(redis.Redis("127.0.0.1", servers.alone)))


def flask_session_two_copies(servers: Servers) -> WsgiApp:
    return WsgiApp(_on_redis(TwoCopies("127.0.0.1", servers.replicated)))


def _on_redis(client: redis.Redis) -> Flask:
    app = _app()
    app.config["SESSION_TYPE"] = "redis"
    app.config["SESSION_REDIS"] = client
    FlaskSession(app)
    return app


def _app() -> Flask:
    app = Flask("comparison")
    app.add_url_rule("/none", "none", lambda: traffic.total(traffic.CART))
    app.add_url_rule("/read", "read", lambda: traffic.read(session))
    app.add_url_rule("/write", "write", lambda: traffic.write(session))
    app.add_url_rule("/seed", "seed", lambda: traffic.seed(session))
    return app
