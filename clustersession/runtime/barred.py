"""The bars that this host knows, on its board: they outlive every process of the host, as its records do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from ..core.bars import Bar, Tally, bucket_of, decode_bar, encode_bar, group_of
from ..core.record import Key, Record, is_over, is_user
from ..core.replica.ends import TOMBSTONE_KEPT_S
from ..core.sealing import Sealer
from ..errors import StoreFull
from ..ports import Entropy, Store
from .cache import BoundedCache

VERSION: Final = "bars"  # changes with every bar, so that nobody reads all of them for nothing
NAME: Final = "bar "
CARRIED_OUT: Final = "barred "  # only then others count on it: a host that dies in between is given the bar again
STORE_BYTES_EACH: Final = 32 * 1024  # of the whole store; so bars never take half of the board, of which leases need the rest
PAGE: Final = 512  # bars in a message, or those of one bucket
LABELS_CACHED: Final = 1024
DROPPED_EVERY_S: Final = 3600.0
_AT: Final = struct.Struct("<d")


class KnownBars:
    """One row of the board for each bar under each label; a host on which nobody was logged out everywhere has none.
    `signing`: the number of the newest key that every live member has, None where that is not known."""

    def __init__(
        self,
        store: Store,
        sealer: Callable[[], Sealer],
        clock: Callable[[], float],
        entropy: Entropy,
        signing: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._store, self._sealer, self._clock, self._entropy, self._signing = store, sealer, clock, entropy, signing
        self._labels: BoundedCache[str, tuple[Sealer, dict[int, bytes]]] = BoundedCache(LABELS_CACHED)
        self._seen: bytes | None = None
        self._tally = Tally()
        self._drop_at = 0.0

    def labels(self, user: str) -> tuple[bytes, ...]:
        """What stands for the user in bars and in the indexes of all hosts: one for each key of this host's ring."""
        return tuple(self._by_kid(user).values())

    def _by_kid(self, user: str) -> dict[int, bytes]:
        sealer = self._sealer()
        cached = self._labels.get(user)
        if cached is not None and cached[0] is sealer:
            return cached[1]
        labels = sealer.labels(user)
        self._labels.put(user, (sealer, labels))
        return labels

    def group(self, record: Record) -> bytes | None:
        """Where the store's index has a record. Also where it only points to, as it may be called back to life,
        and as long as a grace shows it.

        It is looked up by hosts whose rings are not changed yet, so under the key that all have: as an ID is signed."""
        user = record.principal
        if not user or is_over(record) or not is_user(user):
            return None
        labels, kid = self._by_kid(user), self._signing()
        return group_of(labels[kid] if kid in labels else next(iter(labels.values())))

    def is_of(self, record: Record, labels: tuple[bytes, ...]) -> bool:
        """Whether it is a session of the user that has these labels."""
        user = record.principal
        return bool(user) and not set(labels).isdisjoint(self.labels(user or ""))

    def against(self, key: Key, record: Record) -> bool:
        """Whether what has come here of a session has been ended by a bar."""
        user = record.principal
        if not user or record.ended is not None or not is_user(user) or self._store.board(VERSION) is None:
            return False
        return any(bar.ends(key, record) for label in self.labels(user) for bar in self._under(label))

    def _under(self, label: bytes) -> list[Bar]:
        return self._decoded(self._store.boards(f"{NAME}{label.hex()}"))

    def _decoded(self, rows: dict[str, bytes]) -> list[Bar]:
        """Those that are not over; what does not decode was written by a later release, and counts for that one."""
        found = map(_read, rows.values())
        return [bar for bar in found if bar is not None and not self._over(bar)]

    def _over(self, bar: Bar | None) -> bool:
        return bar is not None and self._clock() >= bar.at + TOMBSTONE_KEPT_S

    def all(self) -> tuple[Bar, ...]:
        """Every bar once."""
        if self._store.board(VERSION) is None:
            return ()
        return tuple({bar.id: bar for bar in self._decoded(self._store.boards(NAME))}.values())

    def keep(self, bar: Bar) -> None:
        """From now on it is held against what comes. Raises `StoreFull`, `ShardDown`."""
        names = [f"{NAME}{label.hex()} {bar.id.hex()}" for label in bar.labels]
        if self._over(bar) or all(self._store.board(name) is not None for name in names):
            return
        if len(self.tally()) >= self._store.stats().bytes_max // STORE_BYTES_EACH:
            raise StoreFull(
                "more users were logged out everywhere within 25 h than a store of this size can keep in mind. "
                "Raise CLUSTERSESSION_MAX_BYTES."
            )
        for name in names:
            self._store.set_board(name, encode_bar(bar))
        if self._store.board(VERSION) is None:
            self._changed()

    def carried_out(self, bar: Bar) -> None:
        """All that was here is ended: it counts as known. Raises `StoreFull`, `ShardDown`."""
        tally = self.tally()
        if bar.id in tally or self._over(bar):
            return
        self._store.set_board(_row_of(bar.id), _AT.pack(bar.at))
        tally.add(bar.id, bar.at)
        self._seen = self._changed()  # what another process adds at this moment is found missing by the next peer that knows it

    def _changed(self) -> bytes:
        version = self._entropy.bytes(8)
        self._store.set_board(VERSION, version)
        return version

    def tally(self) -> Tally:
        """Those that are carried out here, which peers compare with theirs."""
        version = self._store.board(VERSION)
        if version != self._seen:
            self._tally, self._seen = Tally(), version
            for name, at in self._store.boards(CARRIED_OUT).items():
                self._tally.add(_id_in(name), *_AT.unpack(at))
        self._tally.forget_until(self._clock() - TOMBSTONE_KEPT_S)
        return self._tally

    def page(self, sums: bytes, first: int) -> tuple[tuple[Bar, ...], int | None]:
        """What a peer with these sums may not know, and the bucket from which on to ask for more."""
        found: dict[bytes, Bar] = {}
        for bucket, rows in self._by_bucket(set(self.tally().differing(sums, first))):
            if len(found) >= PAGE:
                return tuple(found.values()), bucket
            found |= {bar.id: bar for bar in self._decoded(rows)}
        return tuple(found.values()), None

    def _by_bucket(self, wanted: set[int]) -> list[tuple[int, dict[str, bytes]]]:
        buckets: dict[int, dict[str, bytes]] = {}
        for name, data in (self._store.boards(NAME) if wanted else {}).items():
            bucket = bucket_of(_id_in(name))
            if bucket in wanted:
                buckets.setdefault(bucket, {})[name] = data
        return sorted(buckets.items(), key=lambda item: item[0])

    def drop_old(self) -> int:
        """Forget now and then those that no copy from a node that was away can be older than. How many rows went."""
        if self._clock() < self._drop_at or self._store.board(VERSION) is None:
            return 0
        self._drop_at = self._clock() + DROPPED_EVERY_S
        old = [name for name, data in self._store.boards(NAME).items() if self._over(_read(data))]
        for name in (*map(_row_of, {_id_in(name) for name in old}), *old):
            self._store.set_board(name, None)
        if old:
            self._changed()
        return len(old)


def _row_of(bar_id: bytes) -> str:
    return f"{CARRIED_OUT}{bar_id.hex()}"


def _id_in(name: str) -> bytes:
    """The ID at the end of a row's name; b"" if it is none."""
    try:
        return bytes.fromhex(name.rpartition(" ")[2])
    except ValueError:
        return b""


def _read(data: bytes) -> Bar | None:
    try:
        return decode_bar(data)
    except msgspec.DecodeError:
        return None
