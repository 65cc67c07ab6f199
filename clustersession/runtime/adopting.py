"""The first request with a session of before, and none of ours."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from ..core.effects import Operation
from ..core.operations import Loaded, Unavailable
from ..core.session_id import SessionId, store_key
from .pipeline import Visit
from .session import RequestSession

if TYPE_CHECKING:
    from .adoption import Adoption
    from .engine import Engine
    from .sync_driver import SyncDriver


class AdoptingVisit(Visit):
    """Loads the session that the old cookie stands for: from then on it is one of ours, and the response says so."""

    adopts = True

    def __init__(
        self,
        engine: Engine,
        adoption: Adoption,
        cookie: str,
        blocking: SyncDriver | None,
        session_type: type[RequestSession],
    ) -> None:
        super().__init__(engine, None, blocking, session_type)
        self._adoption, self._cookie = adoption, cookie

    def load(self) -> Operation[None]:
        """What cannot be told now is unavailable, never an empty session."""
        if self._outcome is not None:
            return
        now = self._engine.now()
        found = yield from self._adoption.adopted(self._engine, self._cookie)
        self._outcome, token = found.outcome, found.token
        self._adopted_as = key = store_key(token or self._cookie.encode())
        sid = SessionId(kid=-1, born=int(time()) // 60, token=token, master="", backup="", epoch=0, version=0, key=key)
        match self._outcome:
            case Loaded() as loaded:
                self._loaded(loaded, sid, now)
            case Unavailable() as unknown:
                self._not_loaded(unknown, now, sid)
            case _:
                self.session.fill({})
