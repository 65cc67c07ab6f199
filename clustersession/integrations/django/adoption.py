"""Sessions of the engine that a Django project had before: asked itself, it is more exact than any reader of its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import b62_decode
from django.db import close_old_connections
from django.http import HttpRequest

from ...errors import SourceUnavailable
from ...middleware.assembly import OldSessions
from ...sources.source import Legacy

SETTING: Final = "CLUSTERSESSION_ADOPT_ENGINE"
SIGNED_COOKIES: Final = "django.contrib.sessions.backends.signed_cookies"
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
        if self.keyless:
            stamped = float(b62_decode(cookie.split(":")[-2]))
            return Legacy(items, None, stamped=stamped, expires=stamped + settings.SESSION_COOKIE_AGE)
        return Legacy(items, cookie.encode(), expires=self._asked(lambda: _expires(store, cookie)))

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

    def _asked(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            raise SourceUnavailable(f"{self.name}: {type(error).__name__}: {error}") from error
        finally:
            close_old_connections()  # in async code this runs in a thread that no request tidies up after


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


def sessions_of_before(get_response: Callable[[HttpRequest], Any]) -> SessionMiddleware:
    """Django's own middleware over the engine of before: what mode `off` is. Raises `ImproperlyConfigured`."""
    engine = getattr(settings, SETTING, None)
    if engine is None:
        raise ImproperlyConfigured(f"CLUSTERSESSION_MODE is 'off', and {SETTING} does not say which engine has the sessions")
    middleware = SessionMiddleware(get_response)
    middleware.SessionStore = _store_type(str(engine))
    return middleware
