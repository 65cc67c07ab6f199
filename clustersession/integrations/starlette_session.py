"""`request.session` as Starlette has it: a dict. Whatever looks into dicts directly (`json`, pydantic) finds its values."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Final, NamedTuple, Self

from ..config import Limits
from ..core.edits import Operations
from ..core.freshness import Freshness
from ..core.values import decode_value, is_immutable
from ..errors import SessionUnavailable
from ..runtime.cache import BoundedCache
from ..runtime.session import RequestSession, Whereabouts
from ..runtime.users import Users

DECODED_BYTES_MAX: Final = 8 * 1024  # of a session whose values are kept decoded

_MISSING: Final = object()
_NO_KEYS: Final[frozenset[str]] = frozenset()


class Decoded(NamedTuple):
    """A stored session with its values, which requests share; in the place of each of `mutable` is None."""

    items: Mapping[str, bytes]
    values: dict[str, Any]
    mutable: frozenset[str]


class DecodedSession(RequestSession):
    """The session behind a `StarletteSession`. As in Starlette, one that a request has emptied is removed."""

    __slots__ = ("unheard",)

    ends_when_empty = True
    unheard: SessionUnavailable | None
    """Why it could not be loaded when the app got it in its hands, and it has not been told since."""

    def __init__(self, demand: Callable[[], None], limits: Limits, on_undecodable: Callable[[str], None]) -> None:
        super().__init__(demand, limits, on_undecodable)
        self.unheard = None

    @property
    def loaded(self) -> bool:
        """Raises `SessionUnavailable` if the app may have taken an unknown session for an empty one."""
        if self.unheard is not None:
            raise self.unheard
        return self._demand is None

    def decoded(self, cache: BoundedCache[str, Decoded]) -> Decoded:
        """What is stored, at the first look of a request. Raises `SessionUnavailable`."""
        items, handle = self._items, self._handle
        kept = None if handle is None else cache.get(handle)
        if kept is None or kept.items is not items:
            newer = self._values, self._deleted
            self._values, self._deleted = {}, _NO_KEYS
            values = {key: self[key] for key in self}
            self._values, self._deleted = newer
            mutable = frozenset(key for key, value in values.items() if not is_immutable(value))
            kept = Decoded(items, values | dict.fromkeys(mutable), mutable)
            if handle is not None and sum(map(len, items.values())) <= DECODED_BYTES_MAX:
                cache.put(handle, kept)
        return kept

    @property
    def newer(self) -> Mapping[str, Any]:
        """What came with the load and is not stored yet: a host without clustersession has changed it."""
        return self._values

    @property
    def gone(self) -> Iterable[str]:
        """What was deleted in the same way."""
        return self._deleted

    def lend(self, key: str, value: Any) -> None:
        """The app has `value` in its hands, and may change it in place."""
        self._values.setdefault(key, value)

    def saved(self, changes: Any, handle: str | None) -> None:
        modified = self.modified
        super().saved(changes, handle)
        self._modified = modified  # Starlette's shows it also after the response


class StarletteSession(Operations, Freshness, dict[str, Any]):
    """A dict that writes through to the session. Attributes and methods beyond those of a dict are those of `Session`."""

    __slots__ = ("_cache", "_filled", "_inner", "_mutable")

    def __init__(self, inner: DecodedSession, cache: BoundedCache[str, Decoded]) -> None:
        self._inner, self._cache = inner, cache
        self._filled = False
        self._mutable: frozenset[str] = _NO_KEYS  # what can be changed in place, and the app has not had in its hands yet

    def _look(self) -> None:
        if self._filled:
            self._inner.accessed = True
        else:
            self._fill()

    def _fill(self) -> None:
        inner = self._inner
        inner.accessed, inner.unheard = True, None
        items, values, mutable = inner.decoded(self._cache)
        dict.update(self, values)
        if mutable:
            for key in mutable:
                dict.__setitem__(self, key, decode_value(items[key]))
            self._mutable = mutable
        for key, value in inner.newer.items():
            dict.__setitem__(self, key, value)
            self._mutable -= {key}
        for key in inner.gone:
            dict.pop(self, key, None)
        self._filled = True

    def _lend_all(self) -> None:
        self._look()
        for key in self._mutable:
            self._inner.lend(key, dict.__getitem__(self, key))
        self._mutable = _NO_KEYS

    # --- reading ---------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if self._filled:
            self._inner.accessed = True
        else:
            self._fill()
        value = dict.__getitem__(self, key)
        if key in self._mutable:
            self._mutable -= {key}
            self._inner.lend(key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        self._look()
        return dict.__contains__(self, key)

    def __iter__(self) -> Iterator[str]:
        self._look()
        return dict.__iter__(self)

    def __reversed__(self) -> Iterator[str]:
        self._look()
        return dict.__reversed__(self)

    def __len__(self) -> int:
        self._look()
        return dict.__len__(self)

    def __eq__(self, other: object) -> bool:
        self._look()
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        self._look()
        return dict.keys(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self._lend_all()
        return dict.values(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        self._lend_all()
        return dict.items(self)

    def copy(self) -> dict[str, Any]:
        self._lend_all()
        return dict.copy(self)

    def __or__(self, other: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {**self.copy(), **other}

    def __ror__(self, other: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {**other, **self.copy()}

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self._inner) if self._filled else "<Session not loaded>"

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (self.copy(),)  # a copy of it is no session

    # --- writing ---------------------------------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        self._look()
        self._inner[key] = value
        dict.__setitem__(self, key, value)
        self._mutable -= {key}

    def __delitem__(self, key: str) -> None:
        self._look()
        del self._inner[key]
        dict.__delitem__(self, key)
        self._mutable -= {key}

    def clear(self) -> None:
        self._look()
        self._inner.clear()
        self._forget()

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        if default is not _MISSING and key not in self:
            return default
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("the session is empty")

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def _forget(self) -> None:
        dict.clear(self)
        self._mutable = _NO_KEYS

    def _edit(self, operation: str, key: str, operand: object) -> Any:
        self.get(key)  # what the app changes in place, and what is edited, is one and the same
        result = self._inner._edit(operation, key, operand)
        dict.__setitem__(self, key, result)
        return result

    def _expect(self, key: str, data: bytes | None) -> None:
        self._look()
        self._inner._expect(key, data)

    # --- what `Session` has beyond a dict --------------------------------------------------------------------------------

    def mark_accessed(self) -> None:
        """Starlette's own, for each `request.session`. Raises nothing: a session that cannot be loaded can still be ended."""
        if self._filled:
            self._inner.accessed = True
            return
        try:
            self._fill()
        except SessionUnavailable as error:
            self._inner.unheard = error

    def mark_modified(self) -> None:
        """Starlette's own."""
        self._inner.modified = True

    @property
    def accessed(self) -> bool:
        return self._inner.accessed

    @property
    def modified(self) -> bool:
        return self._inner.modified

    @modified.setter
    def modified(self, modified: bool) -> None:
        self._inner.modified = modified

    @property
    def id(self) -> str | None:
        """The public handle: stays the same when owners change, is no cookie. None until the session has been stored."""
        return self._inner.id

    @property
    def is_new(self) -> bool:
        """Whether the request came without a session."""
        return self._inner.is_new

    @property
    def created_age_s(self) -> float | None:
        return self._inner.created_age_s

    @property
    def auth_age_s(self) -> float | None:
        """Seconds since the principal was set or confirmed: what `require_fresh` is decided by."""
        return self._inner.auth_age_s

    @property
    def placement(self) -> Whereabouts | None:
        """Which nodes keep it; None while nothing of it is stored."""
        return self._inner.placement

    @property
    def users(self) -> Users:
        """All sessions of a user: `await users.asessions_of(...)`, `await users.aend_all(...)`."""
        return self._inner.users

    def lock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        """`alock`, in a route that is no coroutine."""
        self._inner.lock(name, lease_s=lease_s, wait_s=wait_s)
        self._show_anew()

    async def alock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        """From here on to the end of this request no other request of the session has the lock `name`, on any host. Raises
        `SessionLocked` after `wait_s` seconds; `RequestSession.lock` says it all."""
        await self._inner.alock(name, lease_s=lease_s, wait_s=wait_s)
        self._show_anew()

    def refresh(self) -> None:
        """`arefresh`, in a route that is no coroutine."""
        self._inner.refresh()
        self._show_anew()

    async def arefresh(self) -> None:
        """Look again: show what is stored now, under what this request has changed; nothing if the session was ended
        elsewhere. Raises `SessionUnavailable`. `RequestSession.refresh` says it all."""
        await self._inner.arefresh()
        self._show_anew()

    def show_ended(self) -> None:
        """For the middleware: it was ended elsewhere, and whatever still looks at it sees nothing."""
        self._inner.show_ended()
        self._show_anew()

    def _show_anew(self) -> None:
        dict.clear(self)
        self._mutable, self._filled = _NO_KEYS, False

    def refresh_login(self) -> None:
        """The user has shown again who they are: the login counts as of now, and the session gets a new ID."""
        self._inner.refresh_login()

    def end(self) -> None:
        """Log out: the stored session is ended for good before the response starts. What is set later begins a new one."""
        self._inner.end()
        self._forget()
        self._filled, self._inner.unheard = True, None

    def rotate(self, grace: bool = False) -> None:
        """Move everything to a new ID and end the old one, at once or (`grace`) kept readable for parallel requests."""
        self._inner.rotate(grace)

    def set_lifetime(self, idle_s: float | None, absolute_in_s: float | None) -> None:
        """Let it live for `idle_s` after each request, and for `absolute_in_s` from now on; None is without that limit."""
        self._inner.set_lifetime(idle_s, absolute_in_s)
