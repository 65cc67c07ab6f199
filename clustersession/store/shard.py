"""What is done inside one transaction on one sixteenth. The rows are described in `rows`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import lmdb

from ..errors import ClusterSessionError, StoreFull
from ..ports import Change, Rule
from . import rows
from .rows import HEAD_SIZE, KEY_SIZE
from .space import PAGE, Room, Space

Txn: TypeAlias = "lmdb.Transaction[bytes]"
OldHints: TypeAlias = Callable[[Txn], list[tuple[bytes, bytes]]]

_EVICTED_AT_ONCE: Final = 2  # each may be in other pages, and every page that is touched is written anew
_EVICTED_MAX: Final = 64
TOGETHER_MAX: Final = 16  # changes of one transaction: half a millisecond in which no other process can write here
TOGETHER_PAGES: Final = 128  # that it takes at most, more or less
_INDEX_PAGES: Final = 6  # of each change, at most


class Crowded(StoreFull):
    """`wanted` bytes should be evicted before this change is tried again."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        super().__init__(
            "the store has no room for another session, and nothing in it may be evicted. Raise CLUSTERSESSION_MAX_BYTES "
            "(and the memory of its place), or add a host."
        )


class Counts(NamedTuple):
    """Entries, hints, and bytes of pages in use."""

    entries: int
    hints: int
    bytes_used: int


def change(
    env: lmdb.Environment, key: bytes, rule: Rule, now: Callable[[], float], space: Space, freed: int | None = None
) -> Any:
    """One transaction: what `rule` decides about what is stored under `key` is done as a whole or not at all.

    Raises `Crowded` if something should be evicted first; `freed`: how many bytes have been.
    """
    with env.begin(write=True) as txn:
        decided, grows = _changed(txn, key, rule, now, space.room, freed)
        txn.commit()  # the end of `with` would say nothing if the environment had been closed meanwhile
    if grows:
        _keep_ahead(space)
    return decided.result


def change_some(
    env: lmdb.Environment, changes: Sequence[tuple[bytes, Rule]], now: Callable[[], float], space: Space
) -> list[Any]:
    """The first of `changes`, as many as one transaction shall hold; their results. A rule that raises an error of this package
    changes nothing, and its error is the result.

    Raises `Crowded` where each should have a transaction of its own; that, or whatever else is raised, undoes all.
    """
    if not space.lasts(TOGETHER_PAGES):
        raise Crowded(0)
    results: list[Any] = []
    pages, grown = 0, False
    with env.begin(write=True) as txn:
        # what the last two have freed is not free yet, and the next change must find some pages whatever comes
        if _pages(txn) > space.room.soft - 4 * TOGETHER_PAGES:
            raise Crowded(0)
        for key, rule in changes[:TOGETHER_MAX]:
            try:
                decided, grows = _changed(txn, key, rule, now, space.room, None)
            except StoreFull:
                raise
            except ClusterSessionError as error:
                results.append(error)
                continue
            results.append(decided.result)
            grown = grown or grows
            pages += _INDEX_PAGES + (len(decided.data) // PAGE if isinstance(decided.data, bytes) else 0)
            if pages >= TOGETHER_PAGES:
                break
        txn.commit()
    if grown:
        _keep_ahead(space)
    return results


def _changed(txn: Txn, key: bytes, rule: Rule, now: Callable[[], float], limits: Room, freed: int | None) -> tuple[Any, bool]:
    """The rule's result, and whether it may have taken more pages than before."""
    grows = False
    row = txn.get(rows.DATA + key)
    decided = rule(None if row is None else row[HEAD_SIZE:])
    if isinstance(decided.data, bytes):
        grows = _put(txn, key, row, decided, decided.data, limits, freed)
    elif decided.data is None:
        if row is not None:
            _remove(txn, key, row)
            _count(txn, rows.COUNT, -1)
        _unhint_all(txn, [key])
    for owner in decided.unhint:
        _unhint(txn, rows.hint_prefix(owner), key)
    for owner in decided.hint:
        prefix = rows.hint_prefix(owner)
        if txn.put(prefix + key, rows.pack_time(now()), overwrite=False):
            _count(txn, prefix, 1)
    return decided, grows


def _keep_ahead(space: Space) -> None:
    with contextlib.suppress(lmdb.Error):  # closed by a fork in another thread: the change is done, whatever comes now
        space.keep_ahead()


def _put(txn: Txn, key: bytes, row: bytes | None, decided: Change, data: bytes, limits: Room, freed: int | None) -> bool:
    """Whether it may have taken more pages than before."""
    head = rows.head(rows.standing(decided.due, decided.evict, decided.group))
    value = head + data
    grows = row is None or len(value) > len(row)
    before = _pages(txn) if grows else 0
    txn.put(rows.DATA + key, value)
    if row is None:
        _count(txn, rows.COUNT, 1)
    _index(txn, key, b"" if row is None else row[:HEAD_SIZE], head)
    if grows and before + len(value) // PAGE + 4 >= limits.soft:
        _check_room(before, _pages(txn), len(value), limits, freed, evictable=decided.evict is not None)
    return grows


def _index(txn: Txn, key: bytes, old: bytes, new: bytes) -> None:
    """Moves a key from the places of its `old` head (empty: none) to those of the `new` one."""
    if old == new:
        return
    for row_of in (rows.due_row, rows.evict_row, rows.group_row):
        before, after = row_of(old, key) if old else None, row_of(new, key)
        if before != after:
            if before is not None:
                txn.delete(before)
            if after is not None:
                txn.put(after, b"")


def _remove(txn: Txn, key: bytes, row: bytes) -> None:
    txn.delete(rows.DATA + key)
    for index_row in (rows.due_row(row, key), rows.evict_row(row, key), rows.group_row(row, key)):
        if index_row is not None:
            txn.delete(index_row)


def _count(txn: Txn, row: bytes, by: int) -> None:
    count = rows.number_of(txn.get(row)) + by
    if count:
        txn.put(row, rows.pack_number(count))
    else:
        txn.delete(row)


def _unhint(txn: Txn, prefix: bytes, key: bytes) -> None:
    if txn.delete(prefix + key):
        _count(txn, prefix, -1)


def _unhint_all(txn: Txn, keys: Sequence[bytes]) -> None:
    """What is gone has nothing left to tell."""
    for prefix in list(_hint_prefixes(txn)):
        for key in keys:
            _unhint(txn, prefix, key)


def _check_room(before: int, after: int, size: int, limits: Room, freed: int | None, *, evictable: bool) -> None:
    """Whether `size` bytes may take the pages in use from `before` to `after`: gaps in pages there are may always be filled."""
    if after <= before or after < limits.soft:
        return
    # what may go itself takes only the room of others; what may not gets some of the reserve, so that logged-in ones stay
    enough = freed is not None and (freed > 0 if evictable else after < limits.hard or freed >= size)
    if not enough:
        # a multiple, because what goes leaves gaps in pages that stay until they are three quarters empty
        raise Crowded(size * (4 if after < limits.hard else 32))


def _pages(txn: Txn) -> int:
    found = txn.stat()
    return found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]


def make_room(env: lmdb.Environment, wanted: int, sparing: bytes) -> int:
    """Evicts in order until `wanted` bytes are free or none is left that may go; how many bytes went."""
    freed = 0
    for _ in range(_EVICTED_MAX // _EVICTED_AT_ONCE):
        with env.begin(write=True) as txn:
            more = _evict(txn, wanted - freed, sparing)
            txn.commit()
        freed += more
        if not more or freed >= wanted:
            break
    return freed


def _evict(txn: Txn, wanted: int, sparing: bytes) -> int:
    victims: list[tuple[bytes, bytes]] = []
    freed = 0
    for index_row in _rows(txn, rows.EVICT, rows.EVICT):
        key = index_row[-KEY_SIZE:]
        row = txn.get(rows.DATA + key)
        if row is None or key == sparing:
            continue
        victims.append((key, row))
        freed += len(row)
        if freed >= wanted or len(victims) == _EVICTED_AT_ONCE:
            break
    for key, row in victims:
        _remove(txn, key, row)
    if victims:
        _unhint_all(txn, [key for key, _ in victims])
        _count(txn, rows.COUNT, -len(victims))
    return freed


def _rows(txn: Txn, start: bytes, prefix: bytes) -> Iterator[bytes]:
    cursor = txn.cursor()
    if cursor.set_range(start):
        for row in cursor.iternext(keys=True, values=False):
            if not row.startswith(prefix):
                return
            yield row


def _hint_prefixes(txn: Txn) -> Iterator[bytes]:
    """The counting rows of the hints: a jump for each owner, whatever the number of hints."""
    cursor = txn.cursor()
    found = cursor.set_range(rows.HINT)
    while found:
        row = cursor.key()
        if not row.startswith(rows.HINT):
            return
        yield row[: rows.HINT_PREFIX_SIZE]
        found = cursor.set_range(row[: rows.HINT_PREFIX_SIZE] + b"\xff" * (KEY_SIZE + 1))


def hints(txn: Txn, prefix: bytes, limit: int) -> list[tuple[bytes, float]]:
    """Up to `limit` hints under `prefix`: key, and when it was first hinted."""
    found: list[tuple[bytes, float]] = []
    cursor = txn.cursor()
    if limit > 0 and cursor.set_range(prefix + b"\x00"):
        for row, value in cursor.iternext():
            if not row.startswith(prefix):
                break
            found.append((row[-KEY_SIZE:], rows.time_of(value)))
            if len(found) == limit:
                break
    return found


def old_hints(txn: Txn, known: Collection[bytes], before: float, limit: int) -> list[tuple[bytes, bytes]]:
    """Of up to `limit` hints under other prefixes than the `known` ones those that were left before: prefix and key."""
    found: list[tuple[bytes, bytes]] = []
    looked_at = 0
    for prefix in _hint_prefixes(txn):
        if prefix not in known:
            some = hints(txn, prefix, limit - looked_at)
            looked_at += len(some)
            found += [(prefix, key) for key, at in some if at < before]
    return found


def drop_hints(env: lmdb.Environment, old: OldHints) -> int:
    """Takes back what `old` finds; how many."""
    with env.begin(write=True) as txn:
        found = old(txn)
        for prefix, key in found:
            _unhint(txn, prefix, key)
        txn.commit()
    return len(found)


def due(txn: Txn, until: bytes, limit: int) -> list[bytes]:
    """Up to `limit` keys whose place in the due index is not after `until`."""
    found: list[bytes] = []
    if limit > 0:
        for row in _rows(txn, rows.DUE, rows.DUE):
            if row[: len(until)] > until:
                break
            found.append(row[-KEY_SIZE:])
            if len(found) == limit:
                break
    return found


def grouped(txn: Txn, group: bytes) -> list[bytes]:
    """The keys of one group."""
    prefix = rows.GROUP + group
    return [row[-KEY_SIZE:] for row in _rows(txn, prefix, prefix)]


def keys(txn: Txn, after: bytes | None, limit: int) -> list[bytes]:
    """The next `limit` keys in order after `after`."""
    found: list[bytes] = []
    if limit > 0:
        for row in _rows(txn, rows.DATA if after is None else rows.DATA + after + b"\x00", rows.DATA):
            found.append(row[1:])
            if len(found) == limit:
                break
    return found


def counts(txn: Txn) -> Counts:
    """Without a scan: all of it is counted as it changes."""
    hinted = sum(rows.number_of(txn.get(prefix)) for prefix in _hint_prefixes(txn))
    return Counts(rows.number_of(txn.get(rows.COUNT)), hinted, _pages(txn) * PAGE)
