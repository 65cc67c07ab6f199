"""What a node's heartbeats have shown of its way to each member, and of theirs to it."""

from __future__ import annotations

from ..core.facts import LinkFacts
from ..core.membership import Table


class Links:
    """Times are of the host's clock."""

    __slots__ = ("_called", "_tried")

    def __init__(self) -> None:
        self._tried: dict[str, tuple[float, str | None]] = {}
        self._called: dict[str, float] = {}

    def tried(self, peer: str, now: float, why: str | None) -> None:
        """A heartbeat to `peer` was answered (`why` None), or failed."""
        self._tried[peer] = now, why

    def called(self, peer: str, now: float) -> None:
        """`peer` has sent a heartbeat."""
        self._called[peer] = now

    def facts(self, table: Table, now: float) -> tuple[LinkFacts, ...]:
        """One for each other member; who is no member any more is forgotten."""
        for kept in (self._tried, self._called):
            for gone in kept.keys() - table.others.keys():
                kept.pop(gone)
        return tuple(self._facts_of(peer, str(entry.member.state), now) for peer, entry in sorted(table.others.items()))

    def _facts_of(self, peer: str, state: str, now: float) -> LinkFacts:
        at, why = self._tried.get(peer, (None, None))
        called = self._called.get(peer)
        return LinkFacts(
            peer=peer,
            state=state,
            why=why,
            ago_s=None if at is None else round(now - at, 3),
            called_ago_s=None if called is None else round(now - called, 3),
        )
