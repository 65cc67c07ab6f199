"""Starlette and FastAPI: `app.add_middleware(SessionMiddleware)`, in place of Starlette's own; then `request.session`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from starlette.requests import HTTPConnection

from ..middleware import asgi
from ..middleware.assembly import Settings
from ..runtime.cache import BoundedCache
from ..runtime.session import RequestSession
from ..sources.source import Source
from .app_settings import AppCookie, environment, samesite, with_app
from .starlette_session import Decoded, DecodedSession, StarletteSession

__all__ = ["SessionMiddleware", "StarletteSession", "session_of"]

DAY_S: Final = 24 * 60 * 60
SESSIONS_KEPT: Final = 2048


class SessionMiddleware(asgi.SessionMiddleware):
    """Takes what Starlette's takes, with its defaults: a cookie and a session that live for 14 days.

    The environment goes before the arguments. `secret_key` is not used; the cookie's name, and whether it is Secure, are
    ours unless given. `config` None: from the environment. `adopt`: sessions of this source are taken over when their cookies
    come, until CLUSTERSESSION_ADOPT_UNTIL. `before` makes the middleware that the app had; it runs in place of this one where
    CLUSTERSESSION_MODE is off. Raises `ConfigError` for settings that are wrong.
    """

    session_type = DecodedSession

    def __init__(
        self,
        app: asgi.App,
        secret_key: object = None,
        session_cookie: str | None = None,
        max_age: int | None = 14 * DAY_S,
        path: str | None = None,
        same_site: str | None = None,
        https_only: bool | None = None,
        domain: str | None = None,
        partitioned: bool | None = None,
        *,
        config: Settings = None,
        adopt: Source | None = None,
        before: Callable[[asgi.App], asgi.App] | None = None,
    ) -> None:
        if config is None:
            idle_s = 14 * DAY_S if max_age is None else max_age
            cookie = AppCookie(
                name=session_cookie,
                secure=https_only or None,
                samesite=samesite("same_site", same_site),
                domain=domain,
                path=path,
                partitioned=partitioned or None,
                max_age_s=None if max_age is None else max(max_age, 0),
            )
            config = with_app(environment("Starlette", idle_s), idle_s, cookie)
        super().__init__(app, config, adopt=adopt, before=before)
        self._decoded: BoundedCache[str, Decoded] = BoundedCache(SESSIONS_KEPT)

    def in_scope(self, session: RequestSession) -> StarletteSession:
        assert isinstance(session, DecodedSession)
        return StarletteSession(session, self._decoded)


def session_of(connection: HTTPConnection) -> StarletteSession:
    """`connection.session`, for type checkers that should know `end`, `rotate` and `id` too; a dependency in FastAPI."""
    return cast("StarletteSession", cast(Any, connection.session))
