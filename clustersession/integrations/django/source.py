"""The engine of a Django project: one for the process, from the environment and Django's settings."""

from __future__ import annotations

from dataclasses import replace

from django.conf import settings

from ...config import Config, Lifetimes
from ...middleware.assembly import EngineSource, Settings

_current: EngineSource | None = None


def engine_source() -> EngineSource:
    """Made when it is first asked for, since Django's settings must be there. Raises `ConfigError`."""
    global _current  # noqa: PLW0603
    if _current is None:
        _current = _made(None)
    return _current


def use(chosen: Settings) -> EngineSource:
    """Middlewares and stores made from now on use `chosen` (None: the environment again)."""
    global _current  # noqa: PLW0603
    _current = _made(chosen)
    return _current


def _made(chosen: Settings) -> EngineSource:
    lifetimes = Lifetimes(idle_s=float(settings.SESSION_COOKIE_AGE), absolute_s=None)
    source = EngineSource(chosen, framework="Django", lifetimes=lifetimes, defaults=_defaults())
    if chosen is None and _is_plain_dev(source.config):
        # Django's test client, and browser tests, put `session_key` into a cookie of this name
        cookie = replace(source.config.cookie, names=(settings.SESSION_COOKIE_NAME,))
        return EngineSource(replace(source.config, cookie=cookie), framework="Django")
    return source


def _is_plain_dev(config: Config) -> bool:
    return config.mode == "dev" and config.cookie.names == ("cs",)


def _defaults() -> dict[str, str]:
    """What SESSION_COOKIE_* say, as settings of ours. Only what differs from Django's defaults can have been meant."""
    found: dict[str, str] = {}
    if settings.SESSION_COOKIE_SAMESITE:
        found["CLUSTERSESSION_COOKIE_SAMESITE"] = str(settings.SESSION_COOKIE_SAMESITE)
    if settings.SESSION_COOKIE_DOMAIN or settings.SESSION_COOKIE_PATH != "/":  # a "__Host-" cookie can have neither
        found["CLUSTERSESSION_COOKIE_NAME"] = "__Secure-cs"
        found["CLUSTERSESSION_COOKIE_PATH"] = settings.SESSION_COOKIE_PATH
        if settings.SESSION_COOKIE_DOMAIN:
            found["CLUSTERSESSION_COOKIE_DOMAIN"] = settings.SESSION_COOKIE_DOMAIN
    return found
