"""The bars that this host knows, on its board: they outlive every process of the host, as its records do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ..core.bars import Bar, decode_bar, digest_of, encode_bar, group_of
from ..core.record import Key, Record, is_user
from ..core.replica import TOMBSTONE_KEPT_S
from ..core.sealing import Sealer
from ..ports import Entropy, Store
from .cache import BoundedCache

VERSION: Final = "bars"  # changes with every bar, so that nobody reads all of them for nothing
NAME: Final = "bar "
LABELS_CACHED: Final = 1024
DROPPED_EVERY_S: Final = 3600.0


class KnownBars:
    """One row of the board for each bar under each label; a host on which nobody was logged out everywhere has none."""

    def __init__(self, store: Store, sealer: Callable[[], Sealer], clock: Callable[[], float], entropy: Entropy) -> None:
        self._store, self._sealer, self._clock, self._entropy = store, sealer, clock, entropy
        self._labels: BoundedCache[str, tuple[Sealer, tuple[bytes, ...]]] = BoundedCache(LABELS_CACHED)
        self._seen: bytes | None = None
        self._digest = b""
        self._drop_at = 0.0

    def labels(self, user: str) -> tuple[bytes, ...]:
        """What stands for the user in bars and in the store's index, the one to write with first."""
        sealer = self._sealer()
        cached = self._labels.get(user)
        if cached is not None and cached[0] is sealer:
            return cached[1]
        labels = sealer.labels(user)
        self._labels.put(user, (sealer, labels))
        return labels

    def group(self, record: Record) -> bytes | None:
        """Where the store's index has a record. Also where it only points to, as it may be called back to life."""
        user = record.principal
        return group_of(self.labels(user)[0]) if user and record.ended is None and is_user(user) else None

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

    def keep(self, bar: Bar) -> bool:
        """Whether it is new here. Raises `StoreFull`, `ShardDown`."""
        names = [f"{NAME}{label.hex()} {bar.id.hex()}" for label in bar.labels]
        if self._over(bar) or all(self._store.board(name) is not None for name in names):
            return False
        for name in names:
            self._store.set_board(name, encode_bar(bar))
        self._changed()
        return True

    def _changed(self) -> None:
        self._store.set_board(VERSION, self._entropy.bytes(8))

    def digest(self) -> bytes:
        """What peers compare with theirs; b"" for none."""
        version = self._store.board(VERSION)
        if version != self._seen:
            self._digest, self._seen = digest_of(self.all()), version
        return self._digest

    def drop_old(self) -> int:
        """Forget now and then those that no copy from a node that was away can be older than. How many rows went."""
        if self._clock() < self._drop_at or self._store.board(VERSION) is None:
            return 0
        self._drop_at = self._clock() + DROPPED_EVERY_S
        old = [name for name, data in self._store.boards(NAME).items() if self._over(_read(data))]
        for name in old:
            self._store.set_board(name, None)
        if old:
            self._changed()
        return len(old)


def _read(data: bytes) -> Bar | None:
    try:
        return decode_bar(data)
    except msgspec.DecodeError:
        return None
