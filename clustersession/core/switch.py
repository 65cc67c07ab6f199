"""The cluster-wide switch of the mode: one signed statement that every node passes on (design.md 10).

A node takes a statement only if a key of its ring has signed it for this cluster, and keeps the one with the highest serial; of
two that were made at the same time on different hosts, the one that compares higher, so that all come to the same.
"""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from .keyring import Key, KeyRing

MODES: Final = ("off", "shadow", "mirror", "on")
ALL: Final = 100
MAC_BYTES: Final = 16
STATEMENT_BYTES_MAX: Final = 512


class Switch(msgspec.Struct, frozen=True, array_like=True, order=True):
    """`mode` for `percent` of the sessions of before, since `at` (Unix seconds); `by`: the node that was asked."""

    serial: int
    at: float
    mode: str
    percent: int = ALL
    by: str = ""


class _Statement(msgspec.Struct, frozen=True, array_like=True):
    kid: int
    mac: bytes
    switch: msgspec.Raw


def signed(switch: Switch, key: Key, cluster: str) -> bytes:
    """The statement that travels."""
    text = msgspec.msgpack.encode(switch)
    return msgspec.msgpack.encode(_Statement(key.kid, _mac(key, cluster, text), msgspec.Raw(text)))


def verified(data: bytes, ring: KeyRing, cluster: str) -> Switch | None:
    """What the statement says, or None for what no key of the ring has signed for this cluster, or says nothing known."""
    if len(data) > STATEMENT_BYTES_MAX:
        return None
    try:
        statement = msgspec.msgpack.decode(data, type=_Statement)
        key = ring.get(statement.kid)
        if key is None or not hmac.compare_digest(statement.mac, _mac(key, cluster, bytes(statement.switch))):
            return None
        switch = msgspec.msgpack.decode(statement.switch, type=Switch)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return switch if switch.mode in MODES and 0 <= switch.percent <= ALL else None


def kid_of(data: bytes) -> int:
    """The number of the key that has signed a statement which was verified."""
    return msgspec.msgpack.decode(data, type=_Statement).kid


def _mac(key: Key, cluster: str, text: bytes) -> bytes:
    return hmac.digest(key.mac, b"\0".join((b"mode switch", cluster.encode(), text)), "sha256")[:MAC_BYTES]
