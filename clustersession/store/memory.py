"""The store in the memory of one process: for dev mode, tests and the simulation. Same rules as the shared one.

Deterministic: no clock but the one it is given, and no order that depends on hashing.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from ..errors import ClusterSessionError, StoreFull
from ..ports import Rule, StoreStats
from .rows import KEY_SIZE, STEP_S, Standing, standing

P = TypeVar("P", int, tuple[int, int])

BYTES_USUAL_MAX: Final = 256 * 2**20
ENTRY_BYTES: Final = 128  # what an entry takes besides its data, roughly


class _Entry:
    __slots__ = ("at", "data", "size")

    def __init__(self, data: bytes, at: Standing) -> None:
        self.data, self.at, self.size = data, at, len(data) + ENTRY_BYTES


class _Index(Generic[P]):
    """Keys by place, places in order; keys of one place in the order they came."""

    def __init__(self) -> None:
        self.places: list[P] = []
        self.keys: dict[P, dict[bytes, None]] = {}

    def add(self, place: P | None, key: bytes) -> None:
        if place is None:
            return
        keys = self.keys.get(place)
        if keys is None:
            bisect.insort(self.places, place)
            self.keys[place] = {key: None}
        else:
            keys[key] = None

    def discard(self, place: P | None, key: bytes) -> None:
        if place is None:
            return
        keys = self.keys[place]
        del keys[key]
        if not keys:
            del self.keys[place]
            self.places.remove(place)

    def in_order(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self.keys[place] for place in self.places)


class MemoryStore:
    """`ports.Store` for the threads of one process. Evicts as the shared store does, but by bytes and in one piece.

    `bytes_max` None: 256 MiB. Greenlets may use it too: nothing inside yields.
    """

    def __init__(self, *, bytes_max: int | None = None, now: Callable[[], float]) -> None:
        self._bytes_max = BYTES_USUAL_MAX if bytes_max is None else bytes_max
        self._now = now
        self._lock = threading.Lock()
        self._empty()

    def _empty(self) -> None:
        self._born = self._now()
        self._entries: dict[bytes, _Entry] = {}
        self._order: list[bytes] = []
        self._due: _Index[int] = _Index()
        self._evict: _Index[tuple[int, int]] = _Index()
        self._groups: dict[bytes, dict[bytes, None]] = {}
        self._hints: dict[str, dict[bytes, float]] = {}
        self._board: dict[str, bytes] = {}
        self._counts: dict[str, int] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._entries)} entries>"

    @property
    def born(self) -> float:
        return self._born

    def read(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        return None if entry is None else entry.data

    def hinted(self, owner: str, key: bytes) -> bool:
        return key in self._hints.get(owner, ())

    def change(self, key: bytes, rule: Rule) -> Any:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of the store has {KEY_SIZE} bytes, not {len(key)}")
        with self._lock:
            held = self._entries.get(key)
            decided = rule(None if held is None else held.data)
            data = decided.data
            if isinstance(data, bytes):
                self._put(key, held, _Entry(data, standing(decided.due, decided.evict, decided.group)))
            elif data is None:
                if held is not None:
                    self._remove(key)
                self._unhint_all(key)
            for owner in decided.unhint:
                self._unhint(owner, key)
            for owner in decided.hint:
                self._hint(owner, key)
        return decided.result

    def change_each(self, rules: Sequence[tuple[bytes, Rule]]) -> list[Any]:
        results: list[Any] = []
        for key, rule in rules:
            try:
                results.append(self.change(key, rule))
            except ClusterSessionError as error:
                results.append(error)
        return results

    def _put(self, key: bytes, old: _Entry | None, entry: _Entry) -> None:
        more = entry.size - (old.size if old else 0)
        if more > 0:
            self._find_room(more, key)
        if old is None:
            bisect.insort(self._order, key)
        else:
            self._unindex(key, old)
        self._entries[key] = entry
        self._bytes += entry.size
        self._due.add(entry.at.due, key)
        self._evict.add(entry.at.evict, key)
        if entry.at.group is not None:
            self._groups.setdefault(entry.at.group, {})[key] = None

    def _find_room(self, more: int, sparing: bytes) -> None:
        missing = self._bytes + more - self._bytes_max
        victims: list[bytes] = []
        if missing > 0:
            for key in self._evict.in_order():
                if key != sparing:
                    victims.append(key)
                    missing -= self._entries[key].size
                if missing <= 0:
                    break
        if missing > 0:
            raise StoreFull(
                "the store has no room for another session, and nothing in it may be evicted. Raise CLUSTERSESSION_MAX_BYTES."
            )
        for key in victims:
            self._remove(key)
            self._unhint_all(key)

    def _remove(self, key: bytes) -> None:
        self._unindex(key, self._entries.pop(key))
        del self._order[bisect.bisect_left(self._order, key)]

    def _unindex(self, key: bytes, entry: _Entry) -> None:
        self._bytes -= entry.size
        self._due.discard(entry.at.due, key)
        self._evict.discard(entry.at.evict, key)
        group = self._groups.get(entry.at.group or b"")
        if group is not None and entry.at.group is not None:
            del group[key]
            if not group:
                del self._groups[entry.at.group]

    def _hint(self, owner: str, key: bytes) -> None:
        hinted = self._hints.setdefault(owner, {})
        if key not in hinted:
            hinted[key] = self._now()

    def _unhint(self, owner: str, key: bytes) -> None:
        hinted = self._hints.get(owner)
        if hinted is not None:
            hinted.pop(key, None)
            if not hinted:
                del self._hints[owner]

    def _unhint_all(self, key: bytes) -> None:
        for owner in list(self._hints):
            self._unhint(owner, key)

    def hints(self, owner: str, limit: int) -> list[tuple[bytes, float]]:
        with self._lock:
            hinted = self._hints.get(owner)
            return list(hinted.items())[: max(limit, 0)] if hinted else []

    def hint_count(self, owner: str) -> int:
        return len(self._hints.get(owner, ()))

    def drop_hints(self, known: Collection[str], before: float, limit: int) -> int:
        with self._lock:
            others = [(owner, hinted) for owner, hinted in self._hints.items() if owner not in known]
            old = [(owner, key) for owner, hinted in others for key, at in hinted.items() if at < before][: max(limit, 0)]
            for owner, key in old:
                self._unhint(owner, key)
        return len(old)

    def due(self, now: float, limit: int) -> list[bytes]:
        with self._lock:
            passed = bisect.bisect_right(self._due.places, now // STEP_S)
            found: list[bytes] = []
            for place in self._due.places[:passed]:
                found += self._due.keys[place]
                if len(found) >= limit:
                    break
            return found[: max(limit, 0)]

    def keys(self, after: bytes | None, limit: int) -> list[bytes]:
        with self._lock:
            first = 0 if after is None else bisect.bisect_right(self._order, after)
            return self._order[first : first + max(limit, 0)]

    def grouped(self, group: bytes, *, settled: bool = False) -> list[bytes]:
        with self._lock:
            return list(self._groups.get(group, ()))

    def board(self, name: str) -> bytes | None:
        return self._board.get(name)

    def set_board(self, name: str, data: bytes | None) -> None:
        with self._lock:
            if data is None:
                self._board.pop(name, None)
            else:
                self._board[name] = data

    def boards(self, prefix: str) -> dict[str, bytes]:
        return {name: data for name, data in dict(self._board).items() if name.startswith(prefix)}  # also inside of a rule

    def add_counts(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] = self._counts.get(name, 0) + count

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def stats(self) -> StoreStats:
        with self._lock:
            return StoreStats(len(self._entries), self._bytes, self._bytes_max, sum(map(len, self._hints.values())))

    def wipe(self) -> None:
        with self._lock:
            self._empty()

    def down_shards(self) -> dict[int, int | None]:
        return {}

    def close(self) -> None:
        """Nothing to close: a memory store may be used on."""
