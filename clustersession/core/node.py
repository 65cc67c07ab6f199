"""Members of the cluster as one host sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

NO_TAG: Final = "00000000-00000000"  # the ID's backup fields of a session with one copy


class State(StrEnum):
    """What the member table says of a node. LEAVING serves but takes nothing new."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEAVING = "leaving"
    LEFT = "left"

    @property
    def departing(self) -> bool:
        return self is State.LEAVING or self is State.LEFT


_DEAD: Final = State.DEAD  # of every request several members are looked at, and to find these in the enum costs more than that
_LEFT: Final = State.LEFT


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One node: who it is, where peers reach it, which start of it this is."""

    identity: str
    host: str
    port: int
    incarnation: int
    zone: str = ""
    state: State = State.ALIVE
    kids: tuple[int, ...] = ()  # keys of the ring that it has announced

    @property
    def reachable(self) -> bool:
        """Worth a call: suspects are asked too, they may just be slow."""
        return self.state is not _DEAD and self.state is not _LEFT

    @property
    def recruitable(self) -> bool:
        """May become a backup: neither suspect nor on its way out."""
        return self.state is State.ALIVE


class View:
    """The member table at one moment, with this host in it. `converged`: nobody in it is undecided."""

    __slots__ = ("candidates", "circles", "converged", "me", "members")

    def __init__(self, me: str, members: Iterable[Member], *, converged: bool = True) -> None:
        self.me = me
        self.members: Mapping[str, Member] = {member.identity: member for member in members}
        self.converged = converged
        self.circles: dict[frozenset[str], frozenset[str]] = {}  # what `placement` has found in it
        self.candidates: dict[tuple[frozenset[str], frozenset[str]], Mapping[str, str]] = {}  # that too

    def __repr__(self) -> str:
        states = ", ".join(f"{m.identity}={m.state}" for m in self.members.values())
        return f"<View of {self.me}: {states}{'' if self.converged else ' (not converged)'}>"

    def get(self, identity: str) -> Member | None:
        return self.members.get(identity)

    def reachable(self, identity: str) -> bool:
        """Whether `identity` is a member that may still answer."""
        member = self.members.get(identity)
        return member is not None and member.state is not _DEAD and member.state is not _LEFT

    def departed(self, identity: str) -> bool:
        """Certainly not there: dead or left, or in no converged table."""
        member = self.members.get(identity)
        return self.converged if member is None else member.state is _DEAD or member.state is _LEFT

    def worth_asking(self, identity: str) -> bool:
        """Whether it may answer: also who is dead in a table that is not converged, since this host may be the one that was
        cut off, and be back before its next heartbeat."""
        member = self.members.get(identity)
        return not self.departed(identity) or (not self.converged and member is not None and member.state is State.DEAD)
