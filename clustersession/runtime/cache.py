"""A small bounded cache: the newest are kept, half of it goes at once when it is full (no bookkeeping per hit)."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """`get` is one dict look-up. Safe for threads: each step is one dict operation."""

    __slots__ = ("_entries", "_max", "get")

    def __init__(self, entries_max: int) -> None:
        self._max = entries_max
        self._entries: dict[K, V] = {}
        self.get = self._entries.get

    def put(self, key: K, value: V) -> None:
        if len(self._entries) >= self._max:
            for old in list(self._entries)[: self._max // 2]:
                self._entries.pop(old, None)
        self._entries[key] = value

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
