"""What happened in this process, as named counts, and from time to time added to those of the host."""

from __future__ import annotations

import logging
import os
import time
from threading import Lock, Thread
from typing import Final

from ..errors import ClusterSessionError
from ..ports import Store

HANDED_IN_AFTER_S: Final = 1.0
log: Final = logging.getLogger("clustersession")


class Counters:
    """An `Observer` for one process. Never raises, and blocks for no longer than one addition."""

    __slots__ = ("_counts", "_lock", "_process", "_store", "_waiting")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lock = Lock()
        self._store: Store | None = None
        self._waiting, self._process = False, -1

    def __repr__(self) -> str:
        return f"<Counters {self.snapshot()}>"

    def count(self, event: str, by: int = 1) -> None:
        with self._lock:
            self._counts[event] = self._counts.get(event, 0) + by
            first = self._store is not None and not self._waiting
            self._waiting = self._waiting or first
        if first:
            self._hand_in_soon()

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

    def hand_in_to(self, store: Store) -> None:
        """From now on whatever is counted is added to the host's counters about a second later, also if no request comes any
        more. What that second still has when the process ends is its end's to hand in."""
        self._store, self._process = store, os.getpid()

    def _hand_in_soon(self) -> None:
        try:
            Thread(target=self._hand_in_later, name="clustersession-counters", daemon=True).start()
        except RuntimeError:  # the process is about to end, or has all the threads it may have
            self._waiting = False

    def _hand_in_later(self) -> None:
        time.sleep(HANDED_IN_AFTER_S)
        self._waiting = False
        self.close()

    def close(self) -> None:
        """Hand in what is left. In a process that was forked meanwhile, what is here is the parent's."""
        if self._store is not None and self._process == os.getpid():
            self.hand_in(self._store)

    def hand_in(self, store: Store) -> None:
        """Add what was counted since the last time to the host's counters. What cannot be written is counted the next time."""
        counts = self.drained()
        if not counts:
            return
        try:
            store.add_counts(counts)
        except ClusterSessionError as error:
            log.debug("the counters of this process were not handed in: %s", error)
            with self._lock:
                for event, by in counts.items():
                    self._counts[event] = self._counts.get(event, 0) + by
