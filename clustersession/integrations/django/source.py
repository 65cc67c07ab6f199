"""The engine of a Django project: one for the process, from the environment and Django's settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from ...config import Config
from ...middleware.assembly import EngineSource, Settings
from ...runtime.engine import Engine
from ..app_settings import AppCookie, environment, samesite, with_app
from .adoption import old_sessions
from .handles import HandleCookies

_current: DjangoSource | None = None
_changes = 0  # of SESSION_* settings, which tests override while the process runs


class DjangoSource:
    """An `EngineSource` that follows Django's settings. Raises `ConfigError` when they are wrong."""

    def __init__(self, chosen: Settings) -> None:
        self._base = environment("Django", _age_s()) if chosen is None else None
        self._changes = _changes
        if self._base is None:
            self._source = EngineSource(chosen, framework="Django", old=old_sessions())
        else:
            self._source = _source_of(self._base)

    def __call__(self) -> Engine:
        """The engine, opened now if this is the first request in this process."""
        return self._followed()()

    @property
    def config(self) -> Config:
        return self._followed().config

    @property
    def is_open(self) -> bool:
        return self._followed().is_open

    async def opened(self) -> Engine:
        """The engine, without blocking the event loop."""
        return await self._followed().opened()

    def _followed(self) -> EngineSource:
        if self._changes != _changes:
            self._changes = _changes
            if self._base is not None:
                self._source = _source_of(self._base)
        return self._source


class _DevSource(EngineSource):
    def __call__(self) -> Engine:
        engine = super().__call__()
        if not isinstance(engine.cookies, HandleCookies):
            engine.cookies = HandleCookies(engine.config, engine.host, engine.ring, engine.counters)
        return engine


def engine_source() -> DjangoSource:
    """Made when it is first asked for, since Django's settings must be there. Raises `ConfigError`."""
    global _current  # noqa: PLW0603
    if _current is None:
        _current = DjangoSource(None)
    return _current


def use(chosen: Settings) -> DjangoSource:
    """Middlewares and stores made from now on use `chosen` (None: the environment again)."""
    global _current  # noqa: PLW0603
    _current = DjangoSource(chosen)
    return _current


def is_for_tests(engine: Engine) -> bool:
    """Whether it is that of a project under test or development, that has set nothing of ours."""
    return isinstance(engine.cookies, HandleCookies)


def _source_of(base: Config) -> EngineSource:
    old = old_sessions()
    if base.mode == "dev" and base.cookie.names == ("cs",) and old is None:
        return _DevSource(with_app(base, _age_s(), _cookie(settings.SESSION_COOKIE_NAME)), framework="Django")
    # where sessions are adopted, that is the old cookie's name
    name = None if old is not None or settings.SESSION_COOKIE_NAME == "sessionid" else settings.SESSION_COOKIE_NAME
    return EngineSource(with_app(base, _age_s(), _cookie(name)), framework="Django", old=old)


def _age_s() -> float:
    return float(settings.SESSION_COOKIE_AGE)


def _cookie(name: str | None) -> AppCookie:
    """Only what differs from Django's defaults can have been meant, or was set in so many words."""
    path = settings.SESSION_COOKIE_PATH
    return AppCookie(
        name=name,
        secure=bool(settings.SESSION_COOKIE_SECURE) if settings.is_overridden("SESSION_COOKIE_SECURE") else None,
        httponly=None if settings.SESSION_COOKIE_HTTPONLY else False,
        samesite=samesite("SESSION_COOKIE_SAMESITE", settings.SESSION_COOKIE_SAMESITE),
        domain=settings.SESSION_COOKIE_DOMAIN or None,
        path=None if path == "/" else path,
    )


def _follow(*, setting: str, **_: Any) -> None:
    global _changes  # noqa: PLW0603
    if setting.startswith(("SESSION_", "CLUSTERSESSION_")):
        _changes += 1


setting_changed.connect(_follow, dispatch_uid="clustersession")
