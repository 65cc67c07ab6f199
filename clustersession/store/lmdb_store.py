"""The store that all processes of a host share: sixteen LMDB environments, and one for the board."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from ..errors import ClusterSessionError, Corrupt, ShardDown, StoreError, StoreFull
from ..ports import Rule, StoreStats
from . import files, rows, shard
from .environments import BOARD
from .rows import DATA, HEAD_SIZE, KEY_SIZE, hint_prefix
from .sizing import SHARDS
from .space import PAGE

T = TypeVar("T")

_ATTEMPTS: Final = 4
_BOARD_NAME: Final = b"b"
_BORN: Final = b"B"
_COUNTER: Final = b"c"
_BROKEN: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError, lmdb.VersionMismatchError)
_FULL: Final = (lmdb.MapFullError, lmdb.TxnFullError, lmdb.DiskError)  # DiskError is LMDB's ENOSPC


class LmdbStore:
    """`ports.Store` on the files at `place`. Environments are opened by their first use; safe after a fork.

    A read takes no lock and waits for nobody. A change waits at most `lock_s` for another writer of the same sixteenth,
    then raises `ShardDown` (sixteenth 16 is the board). Also raises `Corrupt` for files that LMDB finds broken.
    """

    def __init__(
        self, place: Path, *, cluster: str, node: str, now: Callable[[], float], bytes_max: int | None = None, lock_s: float = 1.0
    ) -> None:
        self.place, self._now = place, now
        self._files = files.use(files.Plan(place, cluster, node, bytes_max, lock_s), now)
        self._begins = self._files.begins
        self._closed = False

    def __repr__(self) -> str:
        return f"<LmdbStore at {self.place}{' (closed)' if self._closed else ''}>"

    @property
    def born(self) -> float:
        try:
            row = self._begins[BOARD]().get(_BORN)
        except lmdb.Error:
            row = self._reading(BOARD, lambda txn: txn.get(_BORN))
        return self._files.meta.born if row is None else rows.time_of(row)

    def read(self, key: bytes) -> bytes | None:
        number = key[0] >> 4
        try:
            row = self._begins[number]().get(DATA + key)
        except lmdb.Error:
            row = self._reading(number, lambda txn: txn.get(DATA + key))
        return None if row is None else row[HEAD_SIZE:]

    def hinted(self, owner: str, key: bytes) -> bool:
        number = key[0] >> 4
        row = hint_prefix(owner) + key
        try:
            return self._begins[number]().get(row) is not None
        except lmdb.Error:
            return self._reading(number, lambda txn: txn.get(row)) is not None

    def change(self, key: bytes, rule: Rule) -> Any:
        """`rule` may run more than once: when room has to be made first, it is asked again."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key of the store has {KEY_SIZE} bytes, not {len(key)}")
        number = key[0] >> 4

        def write(env: lmdb.Environment, freed: int | None) -> Any:
            return shard.change(env, key, rule, self._now, self._files.space(number), freed)

        return self._writing(number, write, key)

    def change_each(self, rules: Sequence[tuple[bytes, Rule]]) -> list[Any]:
        """Those of a sixteenth share transactions. Where one of them needs room to be made, each has one of its own."""
        results: list[Any] = [None] * len(rules)
        places: dict[int, list[int]] = {}
        for place, (key, _) in enumerate(rules):
            if len(key) != KEY_SIZE:
                raise ValueError(f"a key of the store has {KEY_SIZE} bytes, not {len(key)}")
            places.setdefault(key[0] >> 4, []).append(place)
        for number, own in places.items():
            found: list[Any] = []
            while len(found) < len(own):
                found += self._some_changed(number, [rules[place] for place in own[len(found) :]])
            for place, result in zip(own, found, strict=True):
                results[place] = result
        return results

    def _some_changed(self, number: int, changes: Sequence[tuple[bytes, Rule]]) -> list[Any]:
        if len(changes) > 1 and not self._closed:
            try:
                with self._files.lock(number):
                    return shard.change_some(self._files.environment(number), changes, self._now, self._files.space(number))
            except ShardDown as down:
                return [down] * len(changes)
            except (lmdb.Error, ClusterSessionError):
                pass  # nothing is done yet: each by itself makes room, opens anew, or says what is wrong
        return [self._changed(key, rule) for key, rule in changes[: shard.TOGETHER_MAX]]

    def _changed(self, key: bytes, rule: Rule) -> Any:
        try:
            return self.change(key, rule)
        except ClusterSessionError as error:
            return error

    def hints(self, owner: str, limit: int) -> list[tuple[bytes, float]]:
        return self._shared_out(functools.partial(shard.hints, prefix=hint_prefix(owner)), limit)

    def hint_count(self, owner: str) -> int:
        prefix = hint_prefix(owner)
        return sum(rows.number_of(self._reading(n, lambda txn: txn.get(prefix))) for n in range(SHARDS))

    def drop_hints(self, known: Collection[str], before: float, limit: int) -> int:
        prefixes, dropped = frozenset(map(hint_prefix, known)), 0
        for number in range(SHARDS):
            if dropped >= limit:
                break
            old = functools.partial(shard.old_hints, known=prefixes, before=before, limit=limit - dropped)
            dropped += self._hints_dropped(number, old)
        return dropped

    def _hints_dropped(self, number: int, old: shard.OldHints) -> int:
        with contextlib.suppress(ShardDown):  # one that is stuck must not hold up the others
            if self._reading(number, old):
                return self._writing(number, lambda env, _: shard.drop_hints(env, old))
        return 0

    def due(self, now: float, limit: int) -> list[bytes]:
        return self._shared_out(functools.partial(shard.due, until=rows.due_until(now)), limit)

    def keys(self, after: bytes | None, limit: int) -> list[bytes]:
        found: list[bytes] = []
        for number in range(after[0] >> 4 if after else 0, SHARDS):
            if len(found) >= limit:
                break
            # the rows of this sixteenth are all after `after`, except in the first
            found += self._reading(number, functools.partial(shard.keys, after=after, limit=limit - len(found)))
        return found

    def grouped(self, group: bytes, *, settled: bool = False) -> list[bytes]:
        found: list[bytes] = []
        for number in range(SHARDS):
            if settled:
                found += self._writing(number, functools.partial(_after_all_changes, reader=shard.grouped, group=group))
            else:
                found += self._reading(number, functools.partial(shard.grouped, group=group))
        return found

    def board(self, name: str) -> bytes | None:
        row = _BOARD_NAME + name.encode()
        try:
            return self._begins[BOARD]().get(row)
        except lmdb.Error:
            return self._reading(BOARD, lambda txn: txn.get(row))

    def set_board(self, name: str, data: bytes | None) -> None:
        row = _BOARD_NAME + name.encode()

        def write(env: lmdb.Environment, _: int | None) -> None:
            with env.begin(write=True) as txn:
                if data is None:
                    txn.delete(row)
                else:
                    txn.put(row, data)
                txn.commit()
            if data is not None:
                self._files.space(BOARD).keep_ahead()

        self._writing(BOARD, write)

    def boards(self, prefix: str) -> dict[str, bytes]:
        return self._reading(BOARD, functools.partial(_boards, prefix=prefix))

    def add_counts(self, counts: Mapping[str, int]) -> None:
        self._writing(BOARD, lambda env, _: _add_counts(env, counts))

    def counts(self) -> dict[str, int]:
        return self._reading(BOARD, _counts)

    def stats(self) -> StoreStats:
        counts = [self._reading(number, shard.counts) for number in range(SHARDS)]
        return StoreStats(
            entries=sum(each.entries for each in counts),
            bytes_used=sum(each.bytes_used for each in counts),
            bytes_max=SHARDS * self._files.sizes.shard,
            hints=sum(each.hints for each in counts),
        )

    def wipe(self) -> None:
        """Discards everything, for every process of the host. `born` is now, and goes first: should this process die in
        between, what is gone counts as gone with the files."""
        born = rows.pack_time(self._now())
        self._writing(BOARD, lambda env, _: _clear(env, {_BORN: born}))
        for number in range(SHARDS):
            self._writing(number, lambda env, _: _clear(env, {}))

    def down_shards(self) -> dict[int, int | None]:
        """The sixteenths (16: the board) that this process found held by a process that does not move, with that process."""
        return self._files.down()

    def lock_holder(self, number: int) -> int | None:
        """The process that writes to a sixteenth (16: the board) at this moment; 0: one in another PID namespace."""
        return self._files.lock(number).holder()

    def close(self) -> None:
        """May be called twice; afterwards nothing else may."""
        if not self._closed:
            self._closed = True
            self._begins = [self._refuse] * (SHARDS + 1)
            files.release(self._files)

    def _refuse(self) -> lmdb.Transaction[bytes]:
        raise StoreError(f"the store at {self.place} is closed")

    def _reading(self, number: int, reader: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        for _ in range(_ATTEMPTS):
            try:
                with self._begins[number]() as txn:
                    return reader(txn)
            except lmdb.Error as error:
                self._mend(error, number)
        raise StoreError(f"{self.place}: sixteenth {number:x} cannot be read at the moment; too many processes use it")

    def _shared_out(self, reader: Callable[..., list[T]], limit: int) -> list[T]:
        """Up to `limit` of what `reader` finds, some of each sixteenth: one that is stuck must not hold up the others."""
        parts: list[list[T]] = []
        for share in (-(-limit // SHARDS), limit):
            parts = [self._reading(number, functools.partial(reader, limit=share)) for number in range(SHARDS)]
            if sum(map(len, parts)) >= limit or all(len(part) < share for part in parts):
                break
        in_turn = itertools.zip_longest(*parts)
        return [item for turn in in_turn for item in turn if item is not None][: max(limit, 0)]

    def _writing(self, number: int, writer: Callable[[lmdb.Environment, int | None], T], key: bytes = b"") -> T:
        """Runs `writer` under the lock of `number`, with the bytes evicted for it so far (None: it did not ask for any)."""
        if self._closed:
            self._refuse()
        freed: int | None = None
        wanted, short = 0, None
        with self._files.lock(number):
            for _ in range(_ATTEMPTS):
                try:
                    env = self._files.environment(number)
                    if short is not None:
                        env.reader_check()  # a reader that was killed keeps old pages from being used again
                    if wanted and number != BOARD:
                        freed = (freed or 0) + shard.make_room(env, wanted, sparing=key)
                    if short is not None and not freed:
                        break
                    wanted, short = 0, None
                    return writer(env, freed)
                except shard.Crowded as crowded:
                    if freed is not None:
                        raise
                    wanted = 0 if self._files.space(number).grown() else crowded.wanted
                except _FULL as error:
                    wanted, short = 16 * PAGE, error  # a large value needs pages in a row
                except lmdb.Error as error:
                    self._mend(error, number)
        if short is None:
            raise StoreError(f"{self.place}: sixteenth {number:x} cannot be written at the moment; too many processes use it")
        raise StoreFull(
            f"{self.place}: no room is left in sixteenth {number:x} ({short}), and nothing in it may be evicted. "
            "Raise CLUSTERSESSION_MAX_BYTES and the memory of the place, or add a host."
        ) from short

    def _mend(self, error: lmdb.Error, number: int) -> None:
        """Raises unless it is worth another try."""
        if isinstance(error, lmdb.ReadersFullError):
            self._files.environment(number).reader_check()
        elif isinstance(error, _BROKEN):
            self._files.reopen(number)
            raise Corrupt(f"{self.place}: sixteenth {number:x} of the store is broken ({error})") from error
        elif "closed" not in str(error):  # closed: by a fork in another thread, it will be opened again
            raise StoreError(f"{self.place}: {error}") from error


def _after_all_changes(env: lmdb.Environment, _: int | None, *, reader: Callable[..., T], group: bytes) -> T:
    """What is there once every change that has begun is done: a reader alone would not see one that is about to commit."""
    txn = env.begin(write=True)
    try:
        return reader(txn, group=group)
    finally:
        txn.abort()


def _boards(txn: lmdb.Transaction[bytes], prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    start = _BOARD_NAME + prefix.encode()
    cursor = txn.cursor()
    if cursor.set_range(start):
        for row, value in cursor.iternext():
            if not row.startswith(start):
                break
            found[row[len(_BOARD_NAME) :].decode()] = value
    return found


def _add_counts(env: lmdb.Environment, counts: Mapping[str, int]) -> None:
    with env.begin(write=True) as txn:
        for name, count in counts.items():
            row = _COUNTER + name.encode()
            txn.put(row, rows.pack_number(rows.number_of(txn.get(row)) + count))
        txn.commit()


def _counts(txn: lmdb.Transaction[bytes]) -> dict[str, int]:
    found: dict[str, int] = {}
    cursor = txn.cursor()
    if cursor.set_range(_COUNTER):
        for row, value in cursor.iternext():
            if not row.startswith(_COUNTER):
                break
            found[row[len(_COUNTER) :].decode()] = rows.number_of(value)
    return found


def _clear(env: lmdb.Environment, kept: dict[bytes, bytes]) -> None:
    main = env.open_db(None)
    with env.begin(write=True) as txn:
        txn.drop(main, delete=False)
        for row, value in kept.items():
            txn.put(row, value)
        txn.commit()
