"""What this process remembers of sessions that could not be loaded, so that "unavailable" is neither asked nor said for ever."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..core.operations import LoadOutcome, Lost, Unavailable
from ..core.record import Key
from ..core.session_id import SessionId
from .cache import BoundedCache

if TYPE_CHECKING:
    from .engine import Engine

PATIENCE_S: Final = 60.0  # so long a session may be unavailable
FORGOTTEN_S: Final = 300.0  # without a request for so long, it is a new outage
LOST_KEPT_S: Final = 10.0
SAID_EVERY_S: Final = 1.0
RECENTLY_LOST: Final = Lost(())
_KEPT_MAX: Final = 4096
log: Final = logging.getLogger("clustersession")


class Outages:
    """Times are of the host's clock."""

    __slots__ = ("_lost", "_said_at", "_silent")

    def __init__(self) -> None:
        self._lost: BoundedCache[Key, float] = BoundedCache(_KEPT_MAX)
        self._silent: BoundedCache[Key, tuple[float, float]] = BoundedCache(_KEPT_MAX)
        self._said_at = float("-inf")

    def patience_over(self, key: Key, now: float) -> bool:
        """Whether the session has been unavailable for the longest time allowed."""
        outage = self._silent.get(key)
        return outage is not None and now - outage[1] < FORGOTTEN_S and now - outage[0] >= PATIENCE_S

    def silent(self, key: Key, now: float) -> bool:
        """It was unavailable just now. Whether that is worth a line in the log: once a second, whatever the load."""
        outage = self._silent.get(key)
        first = now if outage is None or now - outage[1] >= FORGOTTEN_S else outage[0]
        self._silent.put(key, (first, now))
        return self.worth_saying(now)

    def worth_saying(self, now: float) -> bool:
        """Whether the log may have one more line about sessions that cannot be reached."""
        if now - self._said_at < SAID_EVERY_S:
            return False
        self._said_at = now
        return True

    def answered(self, key: Key) -> None:
        """It could be loaded, so the outage is over."""
        if self._silent.get(key) is not None:
            self._silent.drop(key)

    def lost(self, key: Key, now: float) -> None:
        self._lost.put(key, now + LOST_KEPT_S)

    def is_lost(self, key: Key, now: float) -> bool:
        """Whether everybody was asked a moment ago, so that asking them again is no use."""
        until = self._lost.get(key)
        return until is not None and now < until


def report(engine: Engine, outcome: LoadOutcome, now: float, sid: SessionId) -> bool:
    """Count, log and remember what kept a session from being loaded. Whether the app may be shown an empty one."""
    match outcome:
        case Unavailable():
            engine.count("session_unavailable")
            if engine.outages.silent(sid.key, now):
                log.warning("session %s cannot be reached: %s", sid.handle, outcome.why)
            return engine.anonymous
        case Lost() if outcome is not RECENTLY_LOST:
            engine.count("session_lost")
            engine.outages.lost(sid.key, now)
            log.warning("session %s is lost: %s hold nothing of it", sid.handle, ", ".join(outcome.asked) or "no nodes")
    return True
