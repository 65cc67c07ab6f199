"""What happened in this process, as named counts, and from time to time added to those of the host."""

from __future__ import annotations

import logging
from threading import Lock
from typing import Final

from ..errors import ClusterSessionError
from ..ports import Store

log: Final = logging.getLogger("clustersession")


class Counters:
    """An `Observer` for one process. Never raises, and blocks for no longer than one addition."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<Counters {self.snapshot()}>"

    def count(self, event: str, by: int = 1) -> None:
        with self._lock:
            self._counts[event] = self._counts.get(event, 0) + by

    @property
    def any(self) -> bool:
        """Whether anything was counted since the last drain."""
        return bool(self._counts)

    def of(self, event: str) -> int:
        """How often `event` was counted so far."""
        return self._counts.get(event, 0)

    def snapshot(self) -> dict[str, int]:
        """A copy of all counts, by name."""
        with self._lock:
            return dict(self._counts)

    def drained(self) -> dict[str, int]:
        """All counts since the last drain, which start again at zero: for adding them to the host's own."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def hand_in(self, store: Store) -> None:
        """Add what was counted since the last time to the host's counters. What cannot be written is counted the next time."""
        counts = self.drained()
        if not counts:
            return
        try:
            store.add_counts(counts)
        except ClusterSessionError as error:
            log.debug("the counters of this process were not handed in: %s", error)
            for event, by in counts.items():
                self.count(event, by)
