"""What happened in this process, as named counts."""

from __future__ import annotations

from threading import Lock


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
