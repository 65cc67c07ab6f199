"""All sessions of one user, as an app asks for them: a list to show, and to log out everywhere."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from uuid import UUID

from ..core.bars import BAR_ID_BYTES, Bar, device_of, root_of
from ..core.effects import Operation
from ..core.operations import Unavailable, end_all
from ..core.record import Key, Record
from ..core.values import user_name
from ..errors import SessionUnavailable
from .budget import Budget
from .logins import listed

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")

HANDLE_BYTES: Final = 16


class UserSession(NamedTuple):
    """One live session of a user. Ages are in seconds, "" is unknown."""

    id: str  # the public handle, `session.id`
    created_age_s: float
    login_age_s: float
    unused_s: float  # since the last request, to the minute
    address: str  # from where the user logged in
    user_agent: str


class Users:
    """`session.users` in a request; `clustersession.Users()` elsewhere on a host of the cluster, set up by the environment.

    A user is named as in the session: what `_user_id` (Flask-Login), `_auth_user_id` (Django) or the key in
    CLUSTERSESSION_PRINCIPAL holds; numbers count as text. All apps of a cluster have the same users. Each method exists
    twice: blocking, and with an `a` before its name to be awaited. All raise `SessionUnavailable` where too few nodes answer.
    """

    __slots__ = ("_engine", "_error")

    def __init__(
        self, engine: Callable[[], Engine], error: Callable[[SessionUnavailable], SessionUnavailable] = lambda error: error
    ) -> None:
        """`error`: what a framework understands by it."""
        self._engine, self._error = engine, error

    def sessions_of(self, user: str | int | UUID) -> list[UserSession]:
        """Where the user is logged in, the latest login first. Asks every node."""
        engine = self._engine()
        return self._run(engine, _sessions_of(engine, _named(user)))

    async def asessions_of(self, user: str | int | UUID) -> list[UserSession]:
        """`sessions_of`, awaited."""
        engine = self._engine()
        return await self._arun(engine, _sessions_of(engine, _named(user)))

    def end_all(self, user: str | int | UUID, *, except_: str | None = None) -> int:
        """Log the user out everywhere, but for the session with the handle `except_`. How many sessions ended at once.

        What a host holds that cannot be reached now ends when it is back, before it serves anything. Nothing of the ended
        sessions is kept but that they have ended. Logins after this are not touched.
        """
        engine = self._engine()
        return self._run(engine, _end_all(engine, _named(user), except_))

    async def aend_all(self, user: str | int | UUID, *, except_: str | None = None) -> int:
        """`end_all`, awaited."""
        engine = self._engine()
        return await self._arun(engine, _end_all(engine, _named(user), except_))

    def _run(self, engine: Engine, operation: Operation[T]) -> T:
        try:
            return engine.blocking.run(operation, Budget(engine.config.timeouts.budget_s))
        except SessionUnavailable as error:
            raise self._error(error) from None

    async def _arun(self, engine: Engine, operation: Operation[T]) -> T:
        try:
            return await engine.asynchronous.run(operation, Budget(engine.config.timeouts.budget_s))
        except SessionUnavailable as error:
            raise self._error(error) from None


def _named(user: object) -> str:
    if isinstance(user, bool) or not isinstance(user, str | int | UUID):
        kind = type(user).__qualname__
        raise TypeError(f"a user is named by text or a number, as in the session, not by a {kind}; pass its id")
    if not str(user):
        raise ValueError("a user with an empty name is nobody")
    return user_name(str(user))


def _sessions_of(engine: Engine, user: str) -> Operation[list[UserSession]]:
    found = (yield from listed(engine, user)).sessions
    now = engine.now()
    return sorted((_shown(key, record, now) for key, record in found.items()), key=lambda each: (each.login_age_s, each.id))


def _shown(key: Key, record: Record, now: float) -> UserSession:
    device = device_of(record)
    return UserSession(
        key.hex(), now - record.created, now - record.logged_in, max(0.0, now - record.last_seen), device.address, device.agent
    )


def _end_all(engine: Engine, user: str, except_: str | None) -> Operation[int]:
    spared = (yield from _spared(engine, user, except_)) if except_ is not None else ()
    bar = Bar(engine.entropy.bytes(BAR_ID_BYTES), engine.host.bars.labels(user), engine.now(), spared)
    outcome = yield from end_all(engine.cluster(), bar)
    if isinstance(outcome, Unavailable):
        raise SessionUnavailable(outcome.why)
    if engine.adoption is not None:
        yield from engine.adoption.all_ended(engine, user, time())
    engine.count("session_ended", len(outcome.sessions))
    return len(outcome.sessions)


def _spared(engine: Engine, user: str, handle: str) -> Operation[tuple[Key, ...]]:
    """The session's key, and that of its login: it keeps being spared under the IDs that it gets later."""
    try:
        key = bytes.fromhex(handle)
    except ValueError:
        key = b""
    if len(key) != HANDLE_BYTES:
        raise ValueError(f"{handle[:40]!r} is not the handle of a session; pass session.id")
    listing = yield from listed(engine, user)
    record = listing.sessions.get(key)
    if record is None and listing.silent:
        raise SessionUnavailable(f"{listing.silent[0]} gave no answer, and may have the session that is to be spared")
    return (key,) if record is None else tuple({key: None, root_of(key, record): None})
