"""Log out everywhere: a bar ends every session of a user that logged in before it (design.md 7, issue "Principals").

A node that takes a bar ends what it holds of the user, and keeps the bar as long as a tombstone: whatever comes later from a
node that was away is measured by it. No two clocks are compared: a bar travels, as a record does, with its age.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from typing import Final

import msgspec

from .record import DEVICE, OF_LOGIN, ROOT, Key, Record, is_over

REASON: Final = "logged out everywhere"
BAR_ID_BYTES: Final = 8
GROUP_BYTES: Final = 8
BUCKETS: Final = 256


class Bar(msgspec.Struct, frozen=True, array_like=True):
    """Every session of the user of `labels` (one for each key of the ring) that logged in at `at` or before has ended, but those
    that began as one of `spared`. `at`: the clock of the host that holds it. `id`: random, so that two hosts can compare."""

    id: bytes
    labels: tuple[bytes, ...]
    at: float
    spared: tuple[Key, ...] = ()

    def ends(self, key: Key, record: Record) -> bool:
        """Whether a session of this user, stored as `record`, is one of those; also of what a grace still shows."""
        if is_over(record) or key in self.spared or root_of(key, record) in self.spared:
            return False
        return record.logged_in <= self.at

    def moved_to_clock(self, by: float) -> Bar:
        return msgspec.structs.replace(self, at=self.at + by)


class Device(msgspec.Struct, frozen=True, array_like=True):
    """Where somebody logged in from, as the app's server saw it; "" is unknown."""

    address: str = ""
    agent: str = ""


def group_of(label: bytes) -> bytes:
    """The group of the store's index in which the sessions of a user are."""
    group = label[:GROUP_BYTES]
    return group if any(group) else b"\1" * GROUP_BYTES


def root_of(key: Key, record: Record) -> Key:
    """The key of the ID with which the user logged in: it stays when the session gets other IDs."""
    root = record.extra.get(ROOT)
    return key if root is None else msgspec.msgpack.decode(root, type=bytes)


def with_root(old_key: Key, old: Record, principal: str | None) -> dict[str, msgspec.Raw]:
    """What the successor of `old` has in `extra`: the same login goes on, or (another user, or none) a new one begins."""
    if principal is None or principal != old.principal:
        return {name: raw for name, raw in old.extra.items() if name not in OF_LOGIN}
    return {**old.extra, ROOT: msgspec.Raw(msgspec.msgpack.encode(root_of(old_key, old)))}


def device_of(record: Record) -> Device:
    raw = record.extra.get(DEVICE)
    return Device() if raw is None else msgspec.msgpack.decode(raw, type=Device)


def device_extra(device: Device | None) -> dict[str, msgspec.Raw]:
    """What a patch puts into `extra` when somebody logs in."""
    return {} if device is None else {DEVICE: msgspec.Raw(msgspec.msgpack.encode(device))}


class Tally:
    """Which bars a node has carried out, in a form that two nodes can compare: the IDs of each bucket, added up without carry.
    They are random, and only nodes with the secret send them, so different bars have different sums."""

    def __init__(self) -> None:
        self._ids: set[bytes] = set()
        self._oldest_first: list[tuple[float, bytes]] = []
        self._sums = [0] * BUCKETS

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, bar_id: bytes) -> bool:
        return bar_id in self._ids

    def add(self, bar_id: bytes, at: float) -> None:
        if bar_id not in self._ids:
            self._ids.add(bar_id)
            heapq.heappush(self._oldest_first, (at, bar_id))
            self._flip(bar_id)

    def forget_until(self, at: float) -> None:
        """Those of this moment or before don't count any more."""
        while self._oldest_first and self._oldest_first[0][0] <= at:
            _, bar_id = heapq.heappop(self._oldest_first)
            self._ids.discard(bar_id)
            self._flip(bar_id)

    def _flip(self, bar_id: bytes) -> None:
        self._sums[bucket_of(bar_id)] ^= int.from_bytes(bar_id[:BAR_ID_BYTES])

    def sums(self) -> bytes:
        """8 bytes for each bucket; b"" for no bars."""
        return b"".join(each.to_bytes(BAR_ID_BYTES) for each in self._sums) if self._ids else b""

    def digest(self) -> bytes:
        """8 bytes; b"" for no bars."""
        return hashlib.blake2b(self.sums(), digest_size=8).digest() if self._ids else b""

    def differing(self, sums: bytes, first: int) -> Iterator[int]:
        """The buckets, from `first` on, in which another node, whose sums these are, has others. Of who sends none, all."""
        theirs = sums if len(sums) == BUCKETS * BAR_ID_BYTES else bytes(BUCKETS * BAR_ID_BYTES)
        for bucket in range(max(first, 0), BUCKETS):
            place = bucket * BAR_ID_BYTES
            if self._sums[bucket] != int.from_bytes(theirs[place : place + BAR_ID_BYTES]):
                yield bucket


def bucket_of(bar_id: bytes) -> int:
    return bar_id[0] if bar_id else 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Bar).decode


def encode_bar(bar: Bar) -> bytes:
    return _encode(bar)


def decode_bar(data: bytes) -> Bar:
    """Raises `msgspec.DecodeError`."""
    return _decode(data)
