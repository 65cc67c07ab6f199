"""`request.session`: Django's interface over the session of a request, or of none (shell, commands, tests)."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.utils.asyncio import async_unsafe
from django.utils.module_loading import import_string

from ...errors import LateWrite, SessionUnavailable
from ...runtime.engine import Engine
from ...runtime.pipeline import Visit
from ...runtime.session import RequestSession
from .checks import DJANGOS_OWN, MIDDLEWARE
from .errors import DjangoLateWrite, DjangoSessionUnavailable
from .source import engine_source

EXPIRY: Final = "_session_expiry"
SHORTEST_LIFE_S: Final = 1.0


class _Inner(RequestSession):
    """Raises what Django's request handling understands."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except SessionUnavailable as error:
            raise DjangoSessionUnavailable(error.why, retry_after_s=error.retry_after_s) from None


class SessionStore(SessionBase):
    """Django's session interface.

    `session_key` is the public handle, which is no cookie. It changes when the session gets a new ID (`cycle_key`); the
    middleware stores everything before the response starts, `save` and `create` at once.

    Outside of a request `SessionStore(handle)` looks the session up in the whole cluster, and nothing is stored without
    `save`. There, in dev mode only, `session_key` is the whole ID, because tests put it into a cookie.
    """

    def __init__(self, session_key: str | None = None) -> None:
        if DJANGOS_OWN in settings.MIDDLEWARE:
            raise ImproperlyConfigured(f"MIDDLEWARE contains {DJANGOS_OWN!r}; put {MIDDLEWARE!r} in its place")
        self._key = session_key
        self._engine: Engine | None = None
        self._visit: Visit | None = None
        self._in_request = False

    @classmethod
    def of_request(cls, engine: Engine, visit: Visit) -> SessionStore:
        store = cls.__new__(cls)
        store._key, store._engine, store._visit, store._in_request = None, engine, visit, True
        store.inner = visit.session
        return store

    def _opened(self) -> tuple[Engine, Visit]:
        if self._engine is None or self._visit is None:
            self._engine = engine = engine_source()()
            self._visit = _visit_of(engine, self._key)
        return self._engine, self._visit

    @cached_property
    def inner(self) -> RequestSession:
        """The session itself, with what Django's interface does not have (`placement`, `end`, `rotate`)."""
        return self._opened()[1].session

    @property
    def placement(self) -> object:
        """Which nodes keep it: `master`, `backup`, `epoch`; None while nothing of it is stored."""
        return self.inner.placement

    # --- what SessionBase builds on ------------------------------------------------------------------------------------

    def _get_session(self, no_load: bool = False) -> MutableMapping[str, Any]:
        return self.inner

    _session = property(_get_session)

    async def _aget_session(self, no_load: bool = False) -> MutableMapping[str, Any]:
        if self._engine is None:
            await engine_source().opened()
        engine, visit = self._opened()
        if not visit.session.loaded:
            await engine.asynchronous.run(visit.load(), visit.budget)
        return visit.session

    @property
    def accessed(self) -> bool:
        return self.inner.accessed

    @accessed.setter
    def accessed(self, accessed: bool) -> None:
        self.inner.accessed = accessed

    @property
    def modified(self) -> bool:
        return self.inner.modified

    @modified.setter
    def modified(self, modified: bool) -> None:
        if modified or self.inner.modified:
            self.inner.modified = modified

    @property
    def serializer(self) -> Any:
        return import_string(settings.SESSION_SERIALIZER)

    def _get_session_key(self) -> str | None:
        visit = self._opened()[1]
        if visit.reserved is not None:
            return visit.reserved
        if not self._in_request and self._opened()[0].config.mode == "dev":
            self._load_now()
            return visit.id_text
        return visit.session.id

    session_key = property(_get_session_key)
    _session_key = property(_get_session_key)

    def __contains__(self, key: object) -> bool:
        return key in self.inner

    def __getitem__(self, key: str) -> Any:
        return self.inner[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.inner[key] = value

    def __delitem__(self, key: str) -> None:
        del self.inner[key]

    def clear(self) -> None:
        self.inner.clear()

    def is_empty(self) -> bool:
        """True when there is no session and nothing in it."""
        return not self.session_key and not len(self.inner)

    # --- life ------------------------------------------------------------------------------------------------------------

    def cycle_key(self) -> None:
        """A new ID for the same data; the old one is dead before the response starts."""
        visit = self._opened()[1]
        self._new_id(visit)

    async def acycle_key(self) -> None:
        await self._aget_session()
        self._new_id(self._opened()[1])

    def _new_id(self, visit: Visit) -> None:
        if visit.session.id is None:
            visit.must_exist = True
        visit.session.rotate()
        visit.reserve()

    def flush(self) -> None:
        """End the session. What is set later begins a new one."""
        self.inner.end()
        if not self._in_request:
            self._run_save()

    async def aflush(self) -> None:
        await self._aget_session()
        self.inner.end()
        if not self._in_request:
            await self._arun_save()

    def delete(self, session_key: str | None = None) -> None:
        """End this session, or another one by its handle."""
        if session_key is None or session_key == self.session_key:
            self.flush()
        else:
            SessionStore(session_key).flush()

    async def adelete(self, session_key: str | None = None) -> None:
        await self._aget_session()
        if session_key is None or session_key == self.session_key:
            await self.aflush()
        else:
            await SessionStore(session_key).aflush()

    def create(self) -> None:
        """Store it under a new ID now, even if it is empty."""
        self.cycle_key()
        self._run_save()

    async def acreate(self) -> None:
        await self.acycle_key()
        await self._arun_save()

    def save(self, must_create: bool = False) -> None:
        """Store what has changed now. Raises `SessionUnavailable`, and `LateWrite`, which is Django's `UpdateError`."""
        self._prepare_save()
        self._run_save()

    async def asave(self, must_create: bool = False) -> None:
        await self._aget_session()
        self._prepare_save()
        await self._arun_save()

    def _prepare_save(self) -> None:
        visit = self._opened()[1]
        visit.session.accessed = True
        visit.must_exist = visit.session.id is None

    @async_unsafe
    def _run_save(self) -> None:
        engine, visit = self._opened()
        self._load_now()
        try:
            engine.blocking.run(visit.save(), visit.budget)
        except LateWrite as error:
            raise DjangoLateWrite(error.reason) from None

    async def _arun_save(self) -> None:
        engine, visit = self._opened()
        try:
            await engine.asynchronous.run(visit.save(), visit.budget)
        except LateWrite as error:
            raise DjangoLateWrite(error.reason) from None

    def _load_now(self) -> None:
        if not self.inner.loaded:
            self.inner.id  # noqa: B018  (the look loads it)

    def load(self) -> dict[str, Any]:
        return dict(self.inner)

    async def aload(self) -> dict[str, Any]:
        return dict(await self._aget_session())

    def exists(self, session_key: str) -> bool:
        """Whether a session has this handle. Raises `SessionUnavailable` where that cannot be known now."""
        return SessionStore(session_key).inner.id is not None

    async def aexists(self, session_key: str) -> bool:
        store = SessionStore(session_key)
        await store._aget_session()
        return store.inner.id is not None

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing to do: the nodes drop what has expired."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """Nothing to do: the nodes drop what has expired."""

    # --- how long ----------------------------------------------------------------------------------------------------------

    def set_expiry(self, value: Any) -> None:
        """As Django's: seconds of inactivity, a datetime or timedelta from now, 0 (until the browser closes), or None."""
        super().set_expiry(value)
        self._live(self.get(EXPIRY))

    async def aset_expiry(self, value: Any) -> None:
        await self._aget_session()
        self.set_expiry(value)

    def _live(self, expiry: object) -> None:
        usual = float(self.get_session_cookie_age())
        if not expiry:  # None, or 0 for the cookie's life only
            self.inner.set_lifetime(usual, None)
        elif isinstance(expiry, str | datetime):
            age = max(float(self.get_expiry_age(expiry=expiry)), SHORTEST_LIFE_S)
            self.inner.set_lifetime(age, age)
        else:
            self.inner.set_lifetime(max(float(self.get_expiry_age(expiry=expiry)), SHORTEST_LIFE_S), None)

    def cookie_age_s(self) -> int | None:
        """Seconds for the cookie, None until the browser closes."""
        expiry = self.inner.get(EXPIRY)
        if expiry is None:
            return None if settings.SESSION_EXPIRE_AT_BROWSER_CLOSE else int(self.get_session_cookie_age())
        return None if expiry == 0 else max(self.get_expiry_age(expiry=expiry), 0)


def _visit_of(engine: Engine, session_key: str | None) -> Visit:
    """For a whole ID, a handle, or nothing that names a session."""
    text = session_key or ""
    if len(text) > 32:
        return engine.visit((f"{engine.cookies.name}={text}",), blocking=True, session_type=_Inner)
    return engine.visit_by_handle(text, _Inner) if text else engine.visit((), blocking=True, session_type=_Inner)
