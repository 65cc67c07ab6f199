"""Log out everywhere: a bar ends every session of a user that logged in before it (design.md 7, issue "Principals").

A node that takes a bar ends what it holds of the user, and keeps the bar as long as a tombstone: whatever comes later from a
node that was away is measured by it. No two clocks are compared: a bar travels, as a record does, with its age.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from .record import DEVICE, ROOT, Key, Record

REASON: Final = "logged out everywhere"
BAR_ID_BYTES: Final = 8
GROUP_BYTES: Final = 8


class Bar(msgspec.Struct, frozen=True, array_like=True):
    """Every session of the user of `labels` (one for each key of the ring) that logged in at `at` or before has ended, but those
    that began as one of `spared`. `at`: the clock of the host that holds it. `id`: random, so that two hosts can compare."""

    id: bytes
    labels: tuple[bytes, ...]
    at: float
    spared: tuple[Key, ...] = ()

    def ends(self, key: Key, record: Record) -> bool:
        """Whether a session of this user, stored as `record`, is one of those."""
        if record.ended is not None or key in self.spared or root_of(key, record) in self.spared:
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
        return {name: raw for name, raw in old.extra.items() if name not in (ROOT, DEVICE)}
    return {**old.extra, ROOT: msgspec.Raw(msgspec.msgpack.encode(root_of(old_key, old)))}


def device_of(record: Record) -> Device:
    raw = record.extra.get(DEVICE)
    return Device() if raw is None else msgspec.msgpack.decode(raw, type=Device)


def device_extra(device: Device | None) -> dict[str, msgspec.Raw]:
    """What a patch puts into `extra` when somebody logs in."""
    return {} if device is None else {DEVICE: msgspec.Raw(msgspec.msgpack.encode(device))}


def digest_of(bars: Iterable[Bar]) -> bytes:
    """What two nodes compare to know that they have the same; b"" for none."""
    ids = sorted(bar.id for bar in bars)
    return hashlib.blake2b(b"".join(ids), digest_size=8).digest() if ids else b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Bar).decode


def encode_bar(bar: Bar) -> bytes:
    return _encode(bar)


def decode_bar(data: bytes) -> Bar:
    """Raises `msgspec.DecodeError`."""
    return _decode(data)
