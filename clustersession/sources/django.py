"""Django's sessions in its database, with a cache before it, in its cache, and in files; `signed_cookies` is in `cookies`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final

from .files import DjangoFiles
from .forms import EXPIRY, DjangoCacheForm, DjangoForm, Opened, own_end, own_limits
from .keyed import Ids, KeyedSource
from .shelf import Kept, Shelf
from .signing import django_signer

_ID: Final = re.compile(r"[a-z0-9]{8,40}")
_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH: Final = 32
_SALT: Final = "django.contrib.sessions.SessionStore"  # every engine's class has this name
AGE_S: Final = 14 * 86400


def _new_id() -> str:
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))


def cache_prefix(engine: str, key_prefix: str = "", version: int = 1) -> str:
    """What stands before a session's key in the cache: Django's default key function, with KEY_PREFIX and VERSION."""
    return f"{key_prefix}:{version}:django.contrib.sessions.{engine}"


class _WithOwnEnd(KeyedSource):
    """A session may have an end of its own, which counts in `zone` if it names none (with USE_TZ off)."""

    _zone: tzinfo = UTC

    def _end(self, items: Mapping[str, Any], now: float) -> float:
        own = own_end(items, now, self._zone)
        return super()._end(items, now) if own is None else own

    def _own_limits(self, opened: Opened, kept: Kept, now: float) -> tuple[float | None, float | None]:
        return own_limits(opened.items, now, self._zone)


class DjangoSession(_WithOwnEnd):
    """The engine `db`, or `cached_db` with `cache`, where the entry of a session that is written or ended is dropped; it is
    read from the database, which Django writes first.

    `fallbacks` is SECRET_KEY_FALLBACKS, `age_s` SESSION_COOKIE_AGE, `browser_close` SESSION_EXPIRE_AT_BROWSER_CLOSE;
    `cached_as` is what `cache_prefix("cached_db", ...)` gives. `zone` is what a session's own end without a zone is in (with
    USE_TZ off).
    """

    def __init__(
        self,
        shelf: Shelf,
        secret_key: str | bytes,
        *,
        fallbacks: Iterable[str | bytes] = (),
        age_s: float = AGE_S,
        cookie_name: str = "sessionid",
        browser_close: bool = False,
        cache: Shelf | None = None,
        cached_as: str = cache_prefix("cached_db"),
        zone: tzinfo = UTC,
    ) -> None:
        form = DjangoForm(django_signer([secret_key, *fallbacks], _SALT), browser_close=browser_close)
        super().__init__("django", cookie_name, shelf, form, Ids(_ID, _new_id), lifetime_s=age_s)
        self._cache, self._cached_as, self._zone = cache, cached_as, zone

    def _put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        done = super()._put(key, data, expires, now, new=new)
        if self._cache is not None:
            self._cache.drop(self._cached_as + key)
        return done

    def _drop(self, key: str) -> None:
        super()._drop(key)
        if self._cache is not None:
            self._cache.drop(self._cached_as + key)


class DjangoFileSession(DjangoSession):
    """The engine `file`, where what has an end of its own counts it from when the file was written."""

    def __init__(
        self,
        directory: str | Path,
        secret_key: str | bytes,
        *,
        fallbacks: Iterable[str | bytes] = (),
        age_s: float = AGE_S,
        cookie_name: str = "sessionid",
        browser_close: bool = False,
        zone: tzinfo = UTC,
    ) -> None:
        shelf = DjangoFiles(directory, cookie_name=cookie_name, age_s=age_s)
        super().__init__(
            shelf, secret_key, fallbacks=fallbacks, age_s=age_s, cookie_name=cookie_name, browser_close=browser_close, zone=zone
        )

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        own = items.get(EXPIRY)
        if expires is not None and isinstance(own, int) and own:
            expires += self._lifetime_s - own  # the file is dated for the age to end it, and this counts instead
        return super().write(cookie, items, expires, now)

    def _end(self, items: Mapping[str, Any], now: float) -> float:
        return now + self._lifetime_s

    def _expires(self, kept: Kept, opened: Opened) -> float | None:
        own = None if kept.stamped is None else own_end(opened.items, kept.stamped, self._zone)
        return kept.expires if own is None else own


class DjangoCache(_WithOwnEnd):
    """The engine `cache` on Django's own Redis cache, or on django-redis as it is by default. `key_prefix` and `version` are
    the cache's KEY_PREFIX and VERSION."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        key_prefix: str = "",
        version: int = 1,
        age_s: float = AGE_S,
        cookie_name: str = "sessionid",
        browser_close: bool = False,
        zone: tzinfo = UTC,
    ) -> None:
        super().__init__(
            "django-cache",
            cookie_name,
            shelf,
            DjangoCacheForm(browser_close=browser_close),
            Ids(_ID, _new_id),
            prefix=cache_prefix("cache", key_prefix, version),
            lifetime_s=age_s,
        )
        self._zone = zone
