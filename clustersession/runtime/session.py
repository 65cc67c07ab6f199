"""The session of one request of the app: loaded when it is first looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..config import Limits
from ..core.session import Session
from ..core.values import HIDDEN, is_immutable
from ..errors import SessionUnavailable
from .locking import budget_for, checked, locked
from .looking_again import budget_of, refreshed

if TYPE_CHECKING:
    from .engine import Engine
    from .stored import Stored
    from .users import Users


class Whereabouts(NamedTuple):
    """Which nodes keep a session, since which change of owners."""

    master: str
    backup: str | None
    epoch: int


# What only a load can tell. Until then these attributes are missing, so that the first look at one of them ends up in
# `__getattr__`, and every later one costs nothing.
_LOADED: Final = frozenset({"_items", "_handle", "_is_new"})


class RequestSession(Session):
    """`Session`, filled by `demand` when the app first looks at it or changes it. `demand` may raise `SessionUnavailable`."""

    __slots__ = ("_demand", "_stored", "engine")

    engine: Engine

    ends_when_empty = False  # a request that deletes its last value ends it

    def __init__(self, demand: Callable[[], None], limits: Limits, on_undecodable: Callable[[str], None]) -> None:
        self._demand: Callable[[], None] | None = demand  # None once it is loaded
        self._stored: Stored | None = None
        self._begin(limits, on_undecodable)

    if not TYPE_CHECKING:  # a wrong name is an error for type checkers

        def __getattr__(self, name: str) -> Any:
            if name not in _LOADED:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.accessed = True
            if self._demand is not None:
                self._demand()
            return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return super().__repr__() if self.loaded else "<Session not loaded>"  # a log line must not load it

    @property
    def loaded(self) -> bool:
        """Whether it is known what the stored session holds, or that there is none."""
        return self._demand is None

    def fill(self, items: Mapping[str, bytes], handle: str | None = None, stored: Stored | None = None) -> None:
        """What was loaded; without a `handle` it is a session that nobody has stored yet."""
        self._items, self._handle, self._is_new, self._stored = items, handle, handle is None, stored
        self._demand = None  # with it goes the cycle of references between request and session

    def unload(self, demand: Callable[[], None]) -> None:
        """As before it was loaded: the next look at it asks `demand`, which says why there is nothing to see."""
        self._values.clear()
        for name in _LOADED:
            delattr(self, name)
        self._demand, self._stored = demand, None

    @property
    def is_lent(self) -> bool:
        """Whether the app has had a value in its hands that it can go on changing in place."""
        return not all(map(is_immutable, self._values.values()))

    def ends_with(self, changes: Mapping[str, bytes | None]) -> bool:
        """Whether `changes` leave nothing of it, and it ends then."""
        if not self.ends_when_empty or self._intent is not None:
            return False  # what the master holds decides
        return all(data is None or key.startswith(HIDDEN) for key, data in {**self._items, **changes}.items())

    def forgo(self) -> None:
        """What the app has asked for beyond its changes is not done, but for the end and the locks."""
        self._rotation = self._intent = self.lifetime_change = None
        self.login_refreshed = False

    def kept_in(self, stored: Stored) -> None:
        self._stored = stored

    @property
    def stored(self) -> Stored | None:
        """Where it is stored, and what this request has written to it; None while nothing is."""
        return None if self.id is None else self._stored

    @property
    def kept(self) -> Stored | None:
        """`stored`, as far as it is known without a look of the app."""
        return None if self._demand is not None or self._handle is None else self._stored

    @property
    def created_age_s(self) -> float | None:
        """Seconds since it was begun, now; None while nothing of it is stored."""
        stored = self.stored
        return None if stored is None else self.engine.now() - stored.record.created

    @property
    def auth_age_s(self) -> float | None:
        """Seconds since the principal was set or confirmed, now: what `require_fresh` is decided by."""
        stored = self.stored
        if stored is None or stored.record.auth_time is None:
            return None
        return self.engine.now() - stored.record.auth_time

    def refresh(self) -> None:
        """Look again: show what is stored now, under what this request has changed and not saved yet.

        If the session was ended elsewhere meanwhile it is empty from here on, and what is changed in it can't be saved
        (`LateWrite`): the next request begins a new one. Raises `SessionUnavailable` if nobody answers; then it shows what
        it has shown before. For code that takes its time: a WebSocket, a stream, a long job in a request.
        """
        self.engine.blocking.run(refreshed(self.engine, self), budget_of(self.engine))

    async def arefresh(self) -> None:
        """`refresh`, awaited."""
        await self.engine.asynchronous.run(refreshed(self.engine, self), budget_of(self.engine))

    def show_ended(self) -> None:
        """It was ended elsewhere. What this request has changed stays, so that its save is refused and not forgotten."""
        self.show({})
        self._handle = None

    def show(self, items: Mapping[str, bytes]) -> None:
        """Show what is stored now, but for what this request has changed."""
        changed = self._assigned | self._edited().keys()
        self._values = {k: v for k, v in self._values.items() if k in changed or self._is_changed(k, v)}
        self._items = items

    @property
    def users(self) -> Users:
        """All sessions of a user: `users.sessions_of(...)`, `users.end_all(...)`."""
        return self.engine.users

    def lock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        """From here on to the end of this request no other request of the session has the lock `name`, on any host.

        Waits at most `wait_s` seconds for it, then raises `SessionLocked` (a 409 if the app lets it pass). The session shows
        what is stored then. It is given up with what this request saves, before the response starts, or after `lease_s`
        seconds; if another one has got it by then, nothing of this request is saved (`LockLost`). Only requests that ask
        for the lock are kept apart. Raises `SessionUnavailable` where both owners cannot take it.
        """
        checked(name, lease_s, wait_s)
        self.engine.blocking.run(locked(self.engine, self, name, lease_s, wait_s), budget_for(self.engine, wait_s))

    async def alock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        """`lock`, awaited."""
        checked(name, lease_s, wait_s)
        await self.engine.asynchronous.run(locked(self.engine, self, name, lease_s, wait_s), budget_for(self.engine, wait_s))

    @property
    def placement(self) -> Whereabouts | None:
        """Which nodes keep it; None while nothing of it is stored."""
        if self.id is None or self._stored is None:
            return None
        epoch, (master, backup) = self._stored.placement
        return Whereabouts(master, backup, epoch)

    def end(self) -> None:
        """Log out: the stored session is ended for good before the response starts. What is set later begins a new one.

        Works also where the session cannot be reached: the end then waits at every node that can be, and the client gets a
        503 that removes the cookie. A cookie of the system before that may still open its session stays, to try again.
        """
        if self._demand is not None and not self.closed:
            try:
                self._demand()
            except SessionUnavailable:
                self.fill({})
        super().end()

    def _changing(self, key: str | None = None) -> None:
        if self._demand is not None and not self.closed:
            self._items  # noqa: B018  (a change of a session that cannot be reached raises here, not when it is saved)
        super()._changing(key)
