"""`request.session`: Django's interface over the session of a request, or of none (shell, commands, tests)."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from copy import deepcopy
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.utils.asyncio import async_unsafe
from django.utils.module_loading import import_string

from ...errors import LateWrite, SessionUnavailable
from ...runtime.engine import Engine
from ...runtime.pipeline import Visit
from ...runtime.session import RequestSession, Whereabouts
from ..app_settings import SHORTEST_LIFE_S
from .checks import DJANGOS_OWN, MIDDLEWARE
from .errors import DjangoSessionUnavailable, update_error
from .operations import StoreOperations
from .source import engine_source

EXPIRY: Final = "_session_expiry"
HANDLE_CHARS: Final = 32
KEY_CHARS_MIN: Final = 8  # of what Django takes for a key


class DjangoSession(RequestSession):
    """Raises what Django's request handling understands."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a wrong name is an error for type checkers

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except SessionUnavailable as error:
                raise DjangoSessionUnavailable(error.why, retry_after_s=error.retry_after_s) from None

    @property
    def expiry(self) -> Any:
        """What `set_expiry` was given, in the form that is stored; most sessions have none."""
        return self.get(EXPIRY) if EXPIRY in self._values or EXPIRY in self._items else None

    def saved(self, changes: Mapping[str, bytes | None], handle: str | None) -> None:
        modified = self.modified
        super().saved(changes, handle)
        self._modified = modified  # as in Django, where only a new object is unmodified


class SessionStore(StoreOperations, SessionBase):
    """Django's session interface.

    `session_key` is the public handle, which is no cookie (but in dev mode, for tests). It changes when the session gets a
    new ID (`cycle_key`). In a request everything is stored before the response starts, by `save`, `create` and `delete` at
    once. Outside of a request `SessionStore(handle)` looks the session up in the whole cluster, and nothing but `flush`,
    `cycle_key` and these three stores anything.
    """

    _key: str | None = None
    _engine: Engine | None = None
    _visit: Visit | None = None
    in_request = False

    def __init__(self, session_key: str | None = None) -> None:
        if DJANGOS_OWN in settings.MIDDLEWARE:
            problem = f"MIDDLEWARE contains {DJANGOS_OWN!r}, which cannot work with SESSION_ENGINE = {settings.SESSION_ENGINE!r}"
            raise ImproperlyConfigured(f"{problem}; put {MIDDLEWARE!r} in its place")
        self._session_key = session_key

    @classmethod
    def of_request(cls, engine: Engine, visit: Visit) -> SessionStore:
        store = cls.__new__(cls)
        store._engine, store._visit, store.in_request = engine, visit, True
        store.inner = visit.session  # type: ignore[assignment]
        return store

    def leave_request(self) -> None:
        """The response is made: from now on it is as outside of a request. For tests, which go on with it."""
        inner, visit = self.inner, self.visit
        accessed, modified = inner.accessed, inner.modified
        asked_for = None if visit.ticket is None else visit.ticket.sid.handle
        self._session_key, self.in_request = inner.id if inner.loaded else asked_for, False
        self.inner.accessed, self.inner._modified = accessed, modified

    @property
    def visit(self) -> Visit:
        return self._opened()[1]

    def _opened(self) -> tuple[Engine, Visit]:
        if self._engine is None:
            self._engine = engine_source()()
        if self._visit is None:
            self._visit = _visit_of(self._engine, self._key or "")
        return self._engine, self._visit

    @cached_property
    def inner(self) -> DjangoSession:
        """The session itself, with what Django's interface does not have (`placement`, `end`, `rotate`)."""
        session = self.visit.session
        assert isinstance(session, DjangoSession)
        return session

    @property
    def placement(self) -> Whereabouts | None:
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
        visit = self._visit
        if visit is not None and visit.reserved is not None:
            return visit.reserved
        if visit is not None and (self.in_request or visit.session.loaded):
            return visit.session.id
        return self._claimed()

    def _claimed(self) -> str | None:
        """The key that was asked for. As with Django's engines nobody has looked yet whether there is such a session."""
        if self._key is None or len(self._key) <= HANDLE_CHARS:
            return self._key
        ticket = self.visit.ticket
        return None if ticket is None else ticket.sid.handle

    def _set_session_key(self, key: str | None) -> None:
        self._key = key if key and len(key) >= KEY_CHARS_MIN else None
        self._visit = None
        self.__dict__.pop("inner", None)

    _session_key = property(_get_session_key, _set_session_key)

    @property
    def session_key(self) -> str | None:
        return self._get_session_key()

    def __contains__(self, key: object) -> bool:
        return key in self.inner

    def __getitem__(self, key: str) -> Any:
        return self.inner[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.inner[key] = value

    def __delitem__(self, key: str) -> None:
        del self.inner[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(dict(self.inner), memo)  # a copy of its values: there is one store for each request

    def clear(self) -> None:
        self.inner.clear()

    def is_empty(self) -> bool:
        """True when there is no session and nothing in it."""
        return not self.session_key and not len(self.inner)

    # --- life ------------------------------------------------------------------------------------------------------------

    def cycle_key(self) -> None:
        """A new ID for the same data; the old one is dead before the response starts."""
        self._new_id()
        if not self.in_request:
            self._run_save()

    async def acycle_key(self) -> None:
        await self._aget_session()
        self._new_id()
        if not self.in_request:
            await self._arun_save()

    def _new_id(self) -> None:
        visit = self.visit
        if visit.session.id is None:
            visit.must_exist = True
        visit.session.rotate()
        visit.reserve()

    def _end(self) -> None:
        self.inner.end()
        self.visit.withdraw()

    def flush(self) -> None:
        """End the session. What is set later begins a new one."""
        self._end()
        if not self.in_request:
            self._run_save()

    async def aflush(self) -> None:
        await self._aget_session()
        self._end()
        if not self.in_request:
            await self._arun_save()

    def delete(self, session_key: str | None = None) -> None:
        """End this session, or another one by its handle, now."""
        own = self.session_key
        if session_key is None and own is None:
            return
        if self.in_request and session_key in (None, own):
            self._end()
            self._run_save()
        else:
            type(self)(session_key or own).flush()

    async def adelete(self, session_key: str | None = None) -> None:
        if self.in_request:
            await self._aget_session()
        own = self.session_key
        if session_key is None and own is None:
            return
        if self.in_request and session_key in (None, own):
            self._end()
            await self._arun_save()
        else:
            await type(self)(session_key or own).aflush()

    def create(self) -> None:
        """Store it under a new ID now, even if it is empty."""
        self._new_id()
        self._run_save()

    async def acreate(self) -> None:
        await self._aget_session()
        self._new_id()
        await self._arun_save()

    def save(self, must_create: bool = False) -> None:
        """Store what has changed now. Raises `SessionUnavailable`, and `LateWrite`, which is Django's `UpdateError`."""
        self._prepare_save(must_create)
        self._run_save()

    async def asave(self, must_create: bool = False) -> None:
        await self._aget_session()
        self._prepare_save(must_create)
        await self._arun_save()

    def _prepare_save(self, must_create: bool) -> None:
        visit = self.visit
        exists = visit.session.id is not None
        if must_create and exists:
            raise CreateError
        visit.must_exist = not exists
        if not exists:
            visit.session.modified = True  # as Django's `create` does
            self.keep_for_own_age()

    @async_unsafe
    def _run_save(self) -> None:
        engine, visit = self._opened()
        self.inner.id  # noqa: B018  (the look loads it)
        try:
            if visit.pending():
                engine.blocking.run(visit.carry_out(), visit.budget)
            elif visit.session.id is not None and not self.exists(visit.session.id):
                _refuse_late()
        except LateWrite as error:
            raise update_error(error) from None

    async def _arun_save(self) -> None:
        engine, visit = self._opened()
        try:
            if visit.pending():
                await engine.asynchronous.complete(visit.carry_out(), visit.budget)
            elif visit.session.id is not None and not await self.aexists(visit.session.id):
                _refuse_late()
        except LateWrite as error:
            raise update_error(error) from None

    def load(self) -> dict[str, Any]:
        """What is stored now, whatever this object has read or changed."""
        stored = type(self)(self.session_key)
        found = dict(stored.inner)
        self._found(stored)
        return found

    async def aload(self) -> dict[str, Any]:
        stored = type(self)(self.session_key)
        found = dict(await stored._aget_session())
        self._found(stored)
        return found

    def _found(self, stored: SessionStore) -> None:
        if stored.inner.id is None and not self.in_request:
            self._session_key = None

    def exists(self, session_key: str | None) -> bool:
        """Whether a session has this handle. Raises `SessionUnavailable` where that cannot be known now."""
        return type(self)(session_key).inner.id is not None

    async def aexists(self, session_key: str | None) -> bool:
        store = type(self)(session_key)
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
        self._live(self.inner.expiry)

    async def aset_expiry(self, value: Any) -> None:
        await self._aget_session()
        self.set_expiry(value)

    def _live(self, expiry: object) -> None:
        """What has expired already gets the shortest life there is."""
        if not expiry:  # None, or 0 for the cookie's life only
            self.inner.set_lifetime(float(self.get_session_cookie_age()), None)
            return
        age = max(float(self.get_expiry_age(expiry=expiry)), SHORTEST_LIFE_S)
        self.inner.set_lifetime(age, age if isinstance(expiry, str | datetime) else None)

    def keep_for_own_age(self) -> None:
        """A new session of an engine with a `get_session_cookie_age` of its own, for which nothing else was said."""
        own = type(self).get_session_cookie_age is not SessionBase.get_session_cookie_age
        if own and self.inner.id is None and self.inner.lifetime_change is None and not self.inner.ended:
            self._live(self.inner.expiry)

    def cookie_age_s(self) -> int | None:
        """Seconds for the cookie, None until the browser closes."""
        expiry = self.inner.expiry
        if expiry is None:
            if settings.SESSION_EXPIRE_AT_BROWSER_CLOSE:
                return None
            return self._opened()[0].config.cookie.max_age_s or int(self.get_session_cookie_age())
        return None if expiry == 0 else max(self.get_expiry_age(expiry=expiry), 0)

    def as_cookies(self) -> tuple[str, ...]:
        """Set-Cookie values for a session that was put into a request by hand. A handle alone makes none."""
        visit = self.visit
        if visit.id_text is None:
            return ()
        visit.max_age_s, visit.reissue = self.cookie_age_s(), True
        return visit.headers().cookies


def _refuse_late() -> NoReturn:
    raise LateWrite("the session was ended")


def _visit_of(engine: Engine, key: str) -> Visit:
    """For a whole ID, a handle, or nothing that names a session."""
    if len(key) > HANDLE_CHARS:
        return engine.visit((f"{engine.cookies.name}={key}",), blocking=True, session_type=DjangoSession)
    return engine.visit_by_handle(key, DjangoSession) if key else engine.visit((), blocking=True, session_type=DjangoSession)
