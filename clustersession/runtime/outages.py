"""What this process remembers of sessions that could not be loaded, so that "unavailable" is neither asked nor said for ever."""

from __future__ import annotations

from typing import Final

from ..core.operations import Lost
from ..core.record import Key
from .cache import BoundedCache

PATIENCE_S: Final = 60.0  # so long a session may be unavailable
FORGOTTEN_S: Final = 300.0  # without a request for so long, it is a new outage
LOST_KEPT_S: Final = 10.0
SAID_EVERY_S: Final = 1.0
RECENTLY_LOST: Final = Lost(())
_KEPT_MAX: Final = 4096


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
