"""Sessions of the engine that a Django project had before: asked itself, it is more exact than any reader of its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, tzinfo
from importlib import import_module
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import b62_decode
from django.db import close_old_connections
from django.http import HttpRequest

from ...config import Config
from ...errors import SourceUnavailable
from ...middleware.assembly import OldSessions
from ...middleware.old_side import MODE, asked_of
from ...sources import DjangoFileSession, Legacy, ListedSource, Page
from ...sources.forms import own_limits
from ...sources.keyed import unlisted
from ...sources.shelf import PAGE, after, told

SETTING: Final = "CLUSTERSESSION_ADOPT_ENGINE"
SIGNED_COOKIES: Final = "django.contrib.sessions.backends.signed_cookies"
DJANGOS_OWN: Final = "django.contrib.sessions.backends.db"
OURS: Final = "clustersession.integrations.django"
T = TypeVar("T")


class DjangoEngineSource:
    """Any session engine of Django's interface, by the module's name as it stood in SESSION_ENGINE.

    Raises `ImproperlyConfigured` if there is none of that name.
    """

    def __init__(self, engine: str) -> None:
        self._store_type = _store_type(engine)
        self.name = f"django:{engine.rpartition('.')[2]}"
        self.keyless = engine == SIGNED_COOKIES
        self.cookie_name: str = settings.SESSION_COOKIE_NAME

    def read(self, cookie: str, now: float) -> Legacy | None:
        store = self._store_type(cookie)
        items: dict[str, Any] = self._asked(store.load)
        if not items:
            return None
        idle_s, deadline = own_limits(items, now, _zone())
        if self.keyless:
            stamped = float(b62_decode(cookie.split(":")[-2]))
            expires = stamped + settings.SESSION_COOKIE_AGE
            return Legacy(items, None, stamped=stamped, expires=expires, idle_s=idle_s, deadline=deadline)
        row_ends = self._asked(lambda: _expires(store, cookie))
        return Legacy(items, cookie.encode(), expires=row_ends, idle_s=idle_s, deadline=deadline)

    @property
    def lifetime_s(self) -> float:
        return float(settings.SESSION_COOKIE_AGE)

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        """The whole session as the engine would save it; one that is not there any more gets another key."""
        store = self._store_type(cookie)
        known = cookie is not None and not self.keyless and self._asked(lambda: store.exists(cookie))
        if not known and not self.keyless:
            self._asked(store.create)
        store._session_cache = dict(items)  # type: ignore[attr-defined]
        self._asked(store.save)
        return None if store.session_key == cookie else store.session_key

    def end(self, cookie: str) -> None:
        if not self.keyless:
            self._asked(lambda: self._store_type(cookie).delete(cookie))

    def id_of(self, cookie: str) -> bytes | None:
        """The session's key; the store is not asked."""
        return cookie.encode() or None

    def listing(self) -> ListedSource:
        """A source that lists the same sessions. Raises `ConfigError`."""
        if hasattr(self._store_type, "get_model_class"):
            return self
        if not hasattr(self._store_type, "_get_storage_path"):
            why = "Django's caches do not list their keys: for one on Redis let --from name a DjangoCache"
            raise unlisted(self.name, why)
        return DjangoFileSession(
            self._store_type._get_storage_path(),
            settings.SECRET_KEY,
            fallbacks=settings.SECRET_KEY_FALLBACKS,
            age_s=settings.SESSION_COOKIE_AGE,
            cookie_name=self.cookie_name,
            browser_close=settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
            zone=_zone(),
        )

    def pages(self, cursor: str = "") -> Iterator[Page]:
        """The rows of the engine's table, in the order of their keys. Raises `SourceUnavailable`."""
        model: Any = self._store_type.get_model_class()  # type: ignore[attr-defined]
        last, more = cursor, True
        while more:
            rows = model.objects.filter(session_key__gt=last).order_by("session_key").values_list("session_key", flat=True)
            keys: list[str] = self._asked(lambda rows=rows: list(rows[:PAGE]))  # type: ignore[misc]
            more = len(keys) == PAGE
            last = keys[-1] if keys else last
            yield Page(tuple(keys), after(last, "") if more else "")

    def _asked(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            raise SourceUnavailable(f"{self.name}: {told(error)}") from error
        finally:
            close_old_connections()  # in async code this runs in a thread that no request tidies up after


def _zone() -> tzinfo:
    return UTC if settings.USE_TZ else ZoneInfo(settings.TIME_ZONE)


def _expires(store: SessionBase, key: str) -> float | None:
    """Where the engine keeps it in a row of its own."""
    model = getattr(store, "model", None)
    if model is None:
        return None
    row = model.objects.filter(session_key=key).first()
    return None if row is None else float(row.expire_date.timestamp())


def _store_type(engine: str) -> type[SessionBase]:
    problem = "it is clustersession's own"
    try:
        if not engine.startswith(OURS):
            found: type[SessionBase] = import_module(engine).SessionStore
            return found
    except (ImportError, AttributeError) as error:
        problem = str(error)
    raise ImproperlyConfigured(f"{SETTING}: {engine!r} will not do ({problem}); name the one that SESSION_ENGINE named before")


def old_sessions() -> OldSessions | None:
    """What the project's settings say. Raises `ImproperlyConfigured`."""
    engine = getattr(settings, SETTING, None)
    return None if engine is None else OldSessions(DjangoEngineSource(str(engine)))


def sessions_of_before(config: Config, get_response: Callable[[HttpRequest], Any]) -> SessionMiddleware:
    """Django's own middleware over the engine of before: what mode `off` is. Raises `ImproperlyConfigured`."""
    engine = getattr(settings, SETTING, None)
    if engine is None:
        problem = f"{MODE}: {asked_of(config)}, and which engine has the sessions of before is not known"
        remedy = f"Set {SETTING} in the project's settings to what SESSION_ENGINE was (unset, it was {DJANGOS_OWN!r})."
        raise ImproperlyConfigured(f"{problem}. {remedy}")
    middleware = SessionMiddleware(get_response)
    middleware.SessionStore = _store_type(str(engine))
    return middleware
