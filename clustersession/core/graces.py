"""The grace of a rotation ends with the session (design.md 7): a session that got a new ID with a grace for the old one knows
that one as long as it may be read, so that whoever logs out under the new ID ends it there too.

No two clocks are compared: how long is told in seconds of the session's age.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .record import GRACES, Key, Owners, Record

AT_ONCE_MAX: Final = 8  # a session that gets IDs quicker than that gets the next one without a grace
CLOSED_WITHIN_S: Final = 2.0  # from when a rotation begins to when its grace does: longer than the budget of a request


class Grace(msgspec.Struct, frozen=True, array_like=True):
    """The ID `key`, with its owners when it was given up, may be read until the session is `until` seconds old."""

    key: Key
    epoch: int
    owners: Owners
    until: float


def graces_of(record: Record, now: float) -> tuple[Grace, ...]:
    """Those of former IDs that may still run."""
    raw = record.extra.get(GRACES)
    if raw is None:
        return ()
    return tuple(grace for grace in _decode(raw) if now - record.created < grace.until)


def granted(old: Record, now: float, seconds: float | None) -> float | None:
    """How long the ID of `old` may be read when it is given up now; None: not at all."""
    return seconds if len(graces_of(old, now)) < AT_ONCE_MAX else None


def with_graces(
    extra: Mapping[str, msgspec.Raw], old_key: Key, old: Record, now: float, seconds: float | None
) -> dict[str, msgspec.Raw]:
    """`extra` of the successor of `old` for the same user, whose ID may be read for so many `seconds` from now."""
    graces = graces_of(old, now)
    if seconds is not None:
        until = now - old.created + seconds + CLOSED_WITHIN_S
        graces = (*graces, Grace(old_key, old.epoch, old.owners, until))
    others = {name: raw for name, raw in extra.items() if name != GRACES}
    return {**others, GRACES: msgspec.Raw(_encode(graces))} if graces else others


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Grace, ...]).decode
