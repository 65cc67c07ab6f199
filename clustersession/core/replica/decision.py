"""What a rule is told of the host, and what it decides about the one record that a call is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from ..calls import Gone, Reply
from ..record import Ending, Key, Record, is_user


class Situation(msgspec.Struct, frozen=True):
    """The host at this moment."""

    me: str
    now: float
    synced_until: float  # a host that was away, or whose node does not tick, has not been told of everything
    leases: Mapping[str, float]  # until when each node would have told us of any change
    born: Callable[[], float]  # when the files were created
    record_bytes_max: int
    leaving: bool = False
    hinted: Callable[[Key], tuple[str, ...]] = lambda key: ()  # who is still to be told of a session by this host

    @property
    def synced(self) -> bool:
        return self.now < self.synced_until

    def leased(self, owner: str) -> bool:
        return self.leases.get(owner, 0.0) > self.now


class Decision(NamedTuple):
    """The answer, and what becomes of the record: `record` is written if `write` (None: dropped)."""

    reply: Reply
    write: bool = False
    record: Record | None = None
    hint: tuple[str, ...] = ()
    unhint: tuple[str, ...] = ()


def gone(record: Record, ending: Ending, at: Situation) -> Gone:
    in_grace = ending.grace_until is not None and at.now < ending.grace_until
    shown = in_grace and (not is_user(record.principal) or _told_of_all(record, at))
    return Gone(ending.reason, at.now - ending.at, record.epoch, record.owners, record if shown else None)


def _told_of_all(record: Record, at: Situation) -> bool:
    """Whether this node would know if the user had logged out meanwhile, as it has to of a live copy that it serves."""
    other = record.other(at.me)
    return at.synced and (other is None or at.leased(other))
