"""What is stored for a session, and who wins where two copies meet (design.md 5 and 7).

A record is a live copy, a tombstone (`ended`) or a pointer (`pointer`: "I was an owner, these are now"). Times are seconds
of the clock of the host that holds it; `moved_to_clock` turns them into ages for the way between hosts. No time takes part
in ordering: copies are ordered by `rank`, values by `Stamp`.
"""

from __future__ import annotations

import hashlib
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from .counted import RETRIED_WITHIN_S, counted_merged, counted_with, counts
from .edits import Edit
from .values import HIDDEN

PATCH_IDS_KEPT: Final = 16
DELETED_KEYS_KEPT: Final = 64
SOMEBODY: Final = ""  # the principal of a tombstone or pointer: it is, or may be, one's, and does not say whose
ROOT: Final = "root"  # in `Record.extra`: the key under which the user logged in, where the session has another ID by now
LOGOUT: Final = "logout"  # why a session ended: its user said so
ROTATED: Final = "rotated"  # it has another ID now
EXPIRED: Final = "expired: "  # how the reason begins of an end that time has brought, to every copy alike
WAITING: Final = "waiting"  # in `Record.extra`: taken over while its user was away, so that it ends when it did before
DEVICE: Final = "device"  # in `Record.extra`: where the user logged in from
GRACES: Final = "graces"  # in `Record.extra`: which former IDs of the session may still be read
OF_LOGIN: Final = (ROOT, DEVICE, GRACES)  # what goes with the user

Key: TypeAlias = bytes  # 16 bytes: SHA-256 of the ID's token, cut
Owners: TypeAlias = tuple[str, str | None]  # identities of master and backup


class Stamp(NamedTuple):
    """Which write set a value: compared field by field, so the epoch decides first (finding F7)."""

    epoch: int
    version: int
    master: str


Item: TypeAlias = tuple[Stamp, bytes | None]  # None: the key was deleted; kept so that a merge does not revive it


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """Why and when a session ended. Until `grace_until` a rotated one still shows what it held (a user's: if asked for)."""

    reason: str
    at: float
    grace_until: float | None = None


class Lifetime(msgspec.Struct, frozen=True, array_like=True):
    """`idle` seconds without a request, and the absolute `deadline`; None means without that limit."""

    idle: float | None = None
    deadline: float | None = None


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """What only one request at a time may do, until a time of the host's clock. `token`: 8 random bytes of the one that may."""

    token: bytes
    until: float


class Patch(msgspec.Struct, frozen=True, array_like=True):
    """What one request changed: encoded values by key, None deletes. `id` (8 random bytes, 9 with edits) makes a retry a no-op.

    The master takes it only if it holds what is `expected` and the locks it was made `under` are still those, and nobody else
    has those of `locks`; it sets `changes`, then carries out `edits`. What goes on to the backup has their results in
    `changes`, so that both hold the same whatever each of them has merged. A lock until now is given up."""

    id: bytes
    changes: dict[str, bytes | None]
    lifetime: Lifetime | None = None
    extra: dict[str, msgspec.Raw] = {}
    edits: tuple[Edit, ...] = ()
    expected: dict[str, bytes | None] = {}
    locks: dict[str, Lock] = {}
    under: dict[str, bytes] = {}


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One copy of one session. `extra` carries what a later release adds, so that this one hands it on untouched. `patches`: the
    ids of the last writes, but of those that count: these are `counted`, by key. `former`: ex-owners that had not been told of
    this epoch when it began; whoever becomes an owner tells them too, so that a drain takes no hint with it (decision 21)."""

    epoch: int
    version: int
    owners: Owners
    items: dict[str, Item] = {}
    accepted: bool = True  # False: a change of owners the new backup has not accepted yet (finding F4)
    base: int = 0  # the accepted epoch a pending change started from
    pointer: bool = False
    ended: Ending | None = None
    created: float = 0.0
    auth_time: float | None = None
    last_seen: float = 0.0
    lifetime: Lifetime = Lifetime()
    principal: str | None = None
    patches: tuple[bytes, ...] = ()
    frozen_until: float | None = None
    extra: dict[str, msgspec.Raw] = {}
    locks: dict[str, Lock] = {}
    counted: dict[str, tuple[bytes, ...]] = {}
    former: tuple[str, ...] = ()

    @property
    def master(self) -> str:
        return self.owners[0]

    @property
    def logged_in(self) -> float:
        """When its user logged in, or it began where nobody has."""
        return self.created if self.auth_time is None else self.auth_time

    def other(self, me: str) -> str | None:
        """The owner that is not `me`."""
        return other_of(self.owners, me)

    def but(self, **changes: Any) -> Record:
        return msgspec.structs.replace(self, **changes)


def other_of(owners: Owners, me: str) -> str | None:
    return owners[1] if owners[0] == me else owners[0]


class Digest(msgspec.Struct, frozen=True, array_like=True):
    """What two holders compare to know that they hold the same. `accepted` and `base` place it in the order of histories.
    `taken`: the contents of the other side's pointer, of which its master has just merged what it lacked."""

    key: Key
    epoch: int
    version: int  # 0 for a tombstone or a pointer: theirs says nothing
    owners: Owners
    ended: bool
    accepted: bool = True
    base: int = 0
    contents: bytes = b""  # of the stamps: what a merge has added shows, though the version is the same
    taken: bytes = b""


def digest(key: Key, record: Record) -> Digest:
    live = is_live(record)
    version, contents = (record.version, contents_of(record.items)) if live else (0, b"")
    ended = record.ended is not None
    return Digest(key, record.epoch, version, record.owners, ended, record.accepted, record.base, contents)


def contents_of(items: dict[str, Item]) -> bytes:
    """A short hash of which write set each value."""
    stamps = sorted([(name, stamp) for name, (stamp, _) in items.items()])
    return hashlib.blake2b(_encode(stamps), digest_size=8).digest()


def rank(record: Record) -> tuple[float, int, str, str]:
    """The one order of histories: accepted epochs in turn, a pending one above its base and below any later accepted one."""
    level = record.epoch if record.accepted else record.base + 0.5
    return level, record.epoch, record.owners[0], record.owners[1] or ""


def same_history(a: Record, b: Record) -> bool:
    return a.epoch == b.epoch and a.owners == b.owners


def floor_of(record: Record) -> tuple[int, int]:
    return record.epoch, record.version


def made_by_another(first: Record, record: Record) -> bool:
    """Whether `record` was not made from `first`, the first one of its history: two such have equal stamps whatever they hold."""
    alone = first.epoch == 1 and first.version == 1 and same_history(first, record)
    return alone and not record.pointer and not _patch_ids(first) <= _patch_ids(record)


def _patch_ids(record: Record) -> set[bytes]:
    return {*record.patches, *[each for ids in record.counted.values() for each in ids]}


def is_live(record: Record) -> bool:
    return record.ended is None and not record.pointer


def newer_items(mine: dict[str, Item], theirs: dict[str, Item]) -> dict[str, Item]:
    """The items of `mine` that `theirs` lacks or has with an older stamp."""
    return {name: item for name, item in mine.items() if name not in theirs or item[0] > theirs[name][0]}


def merged_items(a: dict[str, Item], b: dict[str, Item]) -> dict[str, Item]:
    """Per key the higher stamp: commutative, associative, idempotent."""
    return {**a, **newer_items(b, a)}


def merged(record: Record, other: Record) -> Record:
    """`record` with the newer values of `other`, and with the ids of the patches they come from: a patch that is repeated
    must not count again on top of its own result."""
    items = merged_items(record.items, other.items)
    # who has a lock has read what was here before: the write of whoever had it then does not count as done by its id
    patches, counted = record.patches if record.locks else _ids_merged(record, other), record.counted
    if counted or other.counted:
        counted = counted_merged(
            counted, other.counted, newer_items(other.items, record.items), _alike(record.items, other.items)
        )
    return record.but(items=items, patches=patches, counted=counted)


def _alike(a: dict[str, Item], b: dict[str, Item]) -> set[str]:
    return {name for name, item in a.items() if name in b and b[name][0] == item[0]}


def _ids_merged(record: Record, other: Record) -> tuple[bytes, ...]:
    """Those of each copy of which nothing is overwritten. If both lose something it shows of no patch whether it counts."""
    overwritten = _overwrites(other.items, record.items), _overwrites(record.items, other.items)
    match overwritten:
        case (True, False):
            return other.patches
        case (False, False):
            both = dict.fromkeys((*other.patches, *record.patches))
            return tuple(both)[-PATCH_IDS_KEPT:]
    return record.patches


def _overwrites(newer: dict[str, Item], older: dict[str, Item]) -> bool:
    return not older.keys().isdisjoint(newer_items(newer, older))


def live_items(record: Record) -> dict[str, bytes]:
    """What the app may see of it."""
    return {name: value for name, (_, value) in record.items.items() if value is not None and not name.startswith(HIDDEN)}


def size_of(record: Record) -> int:
    """Bytes of names and values: what the limit is about."""
    return sum([len(name) + len(value) for name, (_, value) in record.items.items() if value is not None])


def patched(record: Record, patch: Patch, version: int, now: float | None = None) -> Record:
    """`record` with `patch` as its write number `version`. Of the patch's edits only the results count (`resolving`).
    `now` is the host's clock, where the record is stored already."""
    stamp = Stamp(record.epoch, version, record.master)
    items = {**record.items, **{name: (_over(record.items.get(name), stamp), value) for name, value in patch.changes.items()}}
    items = _without_old_deletions(items)
    return record.but(
        version=version,
        items=items,
        lifetime=patch.lifetime or record.lifetime,
        patches=record.patches if counts(patch.id) else (*record.patches, patch.id)[-PATCH_IDS_KEPT:],
        counted=_counted_after(record, patch, items, now) if record.counted or counts(patch.id) else record.counted,
        last_seen=record.last_seen if now is None else now,
        extra={**record.extra, **patch.extra} if patch.extra else record.extra,
        locks=_locks_with(record, patch, now) if patch.locks else record.locks,
    )


def _locks_with(record: Record, patch: Patch, now: float | None) -> dict[str, Lock]:
    """Without those that are over: nobody asks for them again."""
    locks = {**record.locks, **patch.locks}
    return locks if now is None else {name: lock for name, lock in locks.items() if lock.until > now}


def _over(held: Item | None, stamp: Stamp) -> Stamp:
    """`stamp`, or one above that of the value it overwrites, which may have come in a merge: that value is still elsewhere."""
    if held is None or held[0] <= stamp:
        return stamp
    return Stamp(held[0].epoch, held[0].version + 1, stamp.master)


def _counted_after(record: Record, patch: Patch, items: dict[str, Item], now: float | None) -> dict[str, tuple[bytes, ...]]:
    """Until nothing was written for a while: then nobody sends one of those again."""
    known = {} if now is not None and now - record.last_seen > RETRIED_WITHIN_S else record.counted
    after = counted_with(known, patch.id, patch.changes) if counts(patch.id) else known
    return after if after.keys() <= items.keys() else {name: ids for name, ids in after.items() if name in items}


def _without_old_deletions(items: dict[str, Item]) -> dict[str, Item]:
    deleted = [(stamp, name) for name, (stamp, value) in items.items() if value is None]
    if len(deleted) <= DELETED_KEYS_KEPT:
        return items
    too_many = {name for _, name in sorted(deleted)[:-DELETED_KEYS_KEPT]}
    return {name: item for name, item in items.items() if name not in too_many}


def accepted(record: Record) -> Record:
    """`record` with its change of owners settled: its master knows that the backup holds it, and is still of this history."""
    return record if record.accepted else record.but(accepted=True, base=record.epoch)


def ended(record: Record, ending: Ending) -> Record:
    """The tombstone of `record`. During a grace it keeps the values, otherwise nothing of them, nor who it was."""
    graced = ending.grace_until is not None
    return record.but(
        principal=record.principal if graced or not is_user(record.principal) else SOMEBODY,
        extra=record.extra if graced else {name: raw for name, raw in record.extra.items() if name not in OF_LOGIN},
        ended=ending,
        pointer=False,
        accepted=True,
        base=record.epoch,
        items=record.items if graced else {},
        counted=record.counted if graced else {},
        locks={},
        frozen_until=None,
    )


def without_grace(tombstone: Record) -> Record:
    """The tombstone as it is when its grace is over."""
    assert tombstone.ended is not None
    return tombstone if is_over(tombstone) else ended(tombstone, Ending(tombstone.ended.reason, tombstone.ended.at))


def is_over(record: Record) -> bool:
    """Whether it has ended, and nothing of it can be read by a grace."""
    return record.ended is not None and record.ended.grace_until is None


def is_user(principal: str | None) -> bool:
    """Whether it is anybody's: records of our own have principals that no app can set."""
    return bool(principal) and not str(principal).startswith(HIDDEN)


def pointer_to(record: Record, retained: dict[str, Item] = {}, of: Record | None = None) -> Record:  # noqa: B006  (never changed)
    """What an ex-owner keeps: where the session went; `retained` until two nodes hold the new epoch (finding F15), and the
    ids of the patches which made that in the record `of` it."""
    pointer = record.but(pointer=True, items=retained, patches=(), counted={}, frozen_until=None, former=())
    if not retained or of is None:
        return pointer
    return pointer.but(patches=of.patches, counted={name: ids for name, ids in of.counted.items() if name in retained})


def touch_interval(idle: float | None) -> float:
    """How coarsely `last_seen` is kept: a touch is worth a message only so often."""
    return 60.0 if idle is None else min(60.0, idle / 10)


def expires_at(record: Record) -> float:
    """When a live record passes the first of its limits, by the clock of the host that holds it."""
    deadline, idle = record.lifetime.deadline, record.lifetime.idle
    unused_until = inf if idle is None else record.last_seen + idle + touch_interval(idle)
    return unused_until if deadline is None else min(deadline, unused_until)


def expired(record: Record, now: float, slack: float = 0.0) -> str | None:
    """Which of its limits a live record has passed."""
    if now < expires_at(record) + slack:
        return None
    deadline = record.lifetime.deadline
    return f"{EXPIRED}absolute" if deadline is not None and now >= deadline + slack else f"{EXPIRED}idle"


def moved_to_clock(record: Record, by: float) -> Record:
    """The same record with every time moved by `by` seconds (minus the sender's now, then plus the receiver's)."""
    ending, lifetime = record.ended, record.lifetime
    return msgspec.structs.replace(
        record,
        created=record.created + by,
        auth_time=_moved(record.auth_time, by),
        last_seen=record.last_seen + by,
        frozen_until=_moved(record.frozen_until, by),
        lifetime=lifetime if lifetime.deadline is None else Lifetime(lifetime.idle, lifetime.deadline + by),
        locks=locks_moved(record.locks, by) if record.locks else record.locks,
        ended=ending and Ending(ending.reason, ending.at + by, _moved(ending.grace_until, by)),
    )


def locks_moved(locks: dict[str, Lock], by: float) -> dict[str, Lock]:
    return {name: Lock(lock.token, lock.until + by) for name, lock in locks.items()}


def _moved(time: float | None, by: float) -> float | None:
    return None if time is None else time + by


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def encode_record(record: Record) -> bytes:
    return _encode(record)


def decode_record(data: bytes) -> Record:
    """Raises `msgspec.DecodeError` for anything that is not a record."""
    try:
        return _decode(data)
    except UnicodeDecodeError as error:  # which msgspec lets out for a text that is none
        raise msgspec.DecodeError(str(error)) from None
