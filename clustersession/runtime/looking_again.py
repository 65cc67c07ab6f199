"""A session that is looked at for longer than a page takes: what is stored of it now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.effects import Operation
from ..core.operations import Ended, Loaded, Lost, Target, Unavailable, load
from ..errors import SessionUnavailable
from .budget import Budget

if TYPE_CHECKING:
    from .engine import Engine
    from .session import RequestSession
    from .stored import Stored


def budget_of(engine: Engine) -> Budget:
    return Budget(engine.config.timeouts.budget_s)


def found_now(engine: Engine, stored: Stored) -> Operation[Loaded | Ended | Lost]:
    """No network where this host may answer alone. Raises `SessionUnavailable`."""
    record = engine.host.vouched(stored.key, stored.floor)
    if record is not None:
        return Loaded(record)
    master, backup = stored.owners
    found = yield from load(engine.cluster(), Target(stored.key, master, backup, backup is None, stored.floor, 0.0))
    if isinstance(found, Unavailable):
        raise SessionUnavailable(found.why)
    return found


def refreshed(engine: Engine, session: RequestSession) -> Operation[None]:
    """Let `session` show what is stored now. Raises `SessionUnavailable`; it shows then what it has shown."""
    stored = session.stored
    if stored is None:
        return  # nobody else has the ID of a session that is not stored yet
    match (yield from found_now(engine, stored)):
        case Loaded() as found:
            stored.record = found.record
            session.show(engine.items_of(stored.key, found.record))
        case _:
            session.show_ended()


class Watch:
    """Over the session of an open WebSocket, which has been looked at as it was when it was opened."""

    __slots__ = ("_engine", "_looked_at", "_session")

    def __init__(self, engine: Engine, session: RequestSession) -> None:
        self._engine, self._session, self._looked_at = engine, session, engine.now()

    @property
    def is_due(self) -> bool:
        """Whether the last look is older than any other copy may be that is served."""
        return self._engine.now() - self._looked_at >= self._engine.config.timeouts.lease_s

    async def is_over(self) -> bool:
        """Whether the session has ended meanwhile, or is another user's. Where nobody can say so it is not, for now."""
        engine, stored, now = self._engine, self._session.kept, self._engine.now()
        if stored is None:
            return False
        try:
            found = await engine.asynchronous.run(found_now(engine, stored), budget_of(engine))
        except SessionUnavailable:
            return False
        self._looked_at = now
        return not isinstance(found, Loaded) or found.record.principal != stored.record.principal
