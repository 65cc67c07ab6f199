"""What a host does with calls about all sessions of a user: list them, end them, say what it knows to be ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import replica
from ..core.bars import REASON, Bar, group_of
from ..core.calls import Bars, Done, End, EndHeld, Forbid, Forbidden, Known, OfUser, Reply, Theirs
from ..core.record import Key, Record, expired, is_live
from ..core.replica import Decision, Situation
from ..errors import Corrupt

if TYPE_CHECKING:
    from .host import Host


class OfUsers:
    """Looks sessions up by the index of users in the store of `host`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def answer(self, call: Forbid | Bars | OfUser) -> Reply:
        """Raises what the store does."""
        match call:
            case Forbid():
                return self._forbid(call.bar)
            case Bars():
                return Known(*self._host.bars.page(call.sums, call.first))
        return self._of_user(call)

    def _forbid(self, bar: Bar) -> Reply:
        """The bar is kept first: what comes after that meets it, and what came before is in the index by then."""
        host = self._host
        host.bars.keep(bar)
        at = host.situation()
        keys = self._keys(bar.labels, settled=True)
        ended = tuple(key for key in keys if self._ended_by(bar, key, at))
        host.bars.carried_out(bar)
        return Forbidden(ended)

    def _keys(self, labels: tuple[bytes, ...], *, settled: bool = False) -> list[Key]:
        groups = dict.fromkeys(map(group_of, labels))
        return [key for group in groups for key in self._host.store.grouped(group, settled=settled)]

    def _ended_by(self, bar: Bar, key: Key, at: Situation) -> bool:
        host = self._host

        def rule(record: Record | None) -> Decision:
            if record is None or not host.bars.is_of(record, bar.labels) or not bar.ends(key, record):
                return Decision(Done())
            reason = REASON if record.ended is None else record.ended.reason
            decision = replica.decide(record, End(key, reason, record.owners, record.epoch), at, None)
            return decision if record.ended is None else decision._replace(reply=Done())  # a grace is no session of its own

        try:
            return isinstance(host.change(key, rule, at), EndHeld)
        except Corrupt:
            return False  # nobody can read it either

    def _of_user(self, call: OfUser) -> Reply:
        host, now = self._host, self._host.clock()
        held = ((key, host.readable(key)) for key in self._keys(call.labels))
        alive = ((k, r) for k, r in held if r is not None and is_live(r) and host.bars.is_of(r, call.labels))
        return Theirs(tuple((k, r.but(items={}, patches=(), counted={})) for k, r in alive if expired(r, now) is None))
