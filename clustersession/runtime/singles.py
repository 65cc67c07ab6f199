"""The sessions that only this host holds, as the store has them marked (decision 0016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.record import Key
from ..core.repair import SINGLE, mark
from ..errors import Corrupt, ShardDown, StoreRefused
from ..ports import Change

if TYPE_CHECKING:
    from .host import Host


def singles(host: Host, limit: int) -> list[Key]:
    """Up to so many of the sessions that have only one owner, as far as the store can be read."""
    try:
        return [key for key, _ in host.store.hints(SINGLE, limit)]
    except (ShardDown, StoreRefused):
        return []


def unmark(host: Host, key: Key) -> bool:
    """Whether it is not single any more; somebody may have made it so again meanwhile."""

    def doubled(data: bytes | None) -> Change:
        record = host.opened(key, data)
        single = record is not None and bool(mark(record, host.me))
        return Change(not single, unhint=() if single else (SINGLE,))

    try:
        done: bool = host.store.change(key, doubled)
    except (Corrupt, ShardDown, StoreRefused):
        return False
    return done
