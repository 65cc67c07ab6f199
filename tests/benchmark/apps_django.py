"""The Django handlers of the comparison: one without a session, and the same behind each session engine.

Django's settings belong to the process: `configure` sets them once, each handler is made under its own, and what is still
looked up at a request is the same for all. This module is the URL configuration too, and a session engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import django
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as CacheSessions
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path

from clustersession.config import Config

from . import traffic
from .redis_servers import Servers, TwoCopies
from .traffic import WsgiApp

SECRET: Final = "the key of the comparison's signed cookies"
DJANGOS_OWN: Final = "django.contrib.sessions.middleware.SessionMiddleware"
OURS: Final = "clustersession.integrations.django.SessionMiddleware"
TWO_COPIES: Final = "two-copies"


class TwoCopiesClient(RedisCacheClient):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._client = TwoCopies


class TwoCopiesCache(RedisCache):
    """Django's own Redis cache, whose writes wait for the replica."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = TwoCopiesClient


class SessionStore(CacheSessions):
    """Django's cache sessions in the cache `TWO_COPIES`."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._cache = caches[TWO_COPIES]


def configure(servers: Servers) -> None:
    """Once in a process, before any handler is made."""
    settings.configure(
        ALLOWED_HOSTS=[traffic.HOST],
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": _location(servers.alone)},
            TWO_COPIES: {"BACKEND": f"{__name__}.TwoCopiesCache", "LOCATION": _location(servers.replicated)},
        },
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=__name__,
        SECRET_KEY=SECRET,
        USE_TZ=True,
    )
    django.setup()


def base() -> WsgiApp:
    with _settings(MIDDLEWARE=[]):
        return WsgiApp(WSGIHandler(), [None], under="/base")


def signed_cookies() -> WsgiApp:
    with _settings(MIDDLEWARE=[DJANGOS_OWN], SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        return WsgiApp(WSGIHandler())


def ours(config: Config, cookies: Sequence[str]) -> WsgiApp:
    from clustersession.integrations.django import source

    with _settings(MIDDLEWARE=[OURS], SESSION_ENGINE="clustersession.integrations.django"):
        source.use(config)
        return WsgiApp(WSGIHandler(), cookies)


def cache_sessions() -> WsgiApp:
    with _settings(MIDDLEWARE=[DJANGOS_OWN], SESSION_ENGINE="django.contrib.sessions.backends.cache"):
        return WsgiApp(WSGIHandler())


def cache_sessions_two_copies() -> WsgiApp:
    with _settings(MIDDLEWARE=[DJANGOS_OWN], SESSION_ENGINE=__name__):
        return WsgiApp(WSGIHandler())


@contextmanager
def _settings(**chosen: Any) -> Iterator[None]:
    former = {name: getattr(settings, name) for name in chosen}
    for name, value in chosen.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in former.items():
            setattr(settings, name, value)


def _location(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


# --- what the URLs lead to -------------------------------------------------------------------------------------------


def none(request: HttpRequest) -> HttpResponse:
    return HttpResponse(traffic.total(traffic.CART))


def base_write(request: HttpRequest) -> HttpResponse:
    return HttpResponse(traffic.change(traffic.CART))


def seed(request: HttpRequest) -> HttpResponse:
    return HttpResponse(traffic.seed(_session(request)))


def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(traffic.read(_session(request)))


def write(request: HttpRequest) -> HttpResponse:
    return HttpResponse(traffic.write(_session(request)))


def _session(request: HttpRequest) -> Any:  # SessionBase has what a mapping has, without being one
    return request.session


urlpatterns = [
    path("none", none),
    path("read", read),
    path("write", write),
    path("seed", seed),
    path("base/none", none),
    path("base/read", none),
    path("base/write", base_write),
]
