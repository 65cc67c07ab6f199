"""What the tests of the operations share: a cluster of five as host `a` sees it, and replies that owners give."""

from __future__ import annotations

from typing import Any, Final

from clustersession.core import calls
from clustersession.core.node import Member, State, View
from clustersession.core.operations import Cluster, Placement, Target
from clustersession.core.placement import choose_backup, live_order
from clustersession.core.record import Owners, Record

from ..records import KEY, member, record, view

NODES: Final = ("a", "b", "c", "d", "e")
LIVE: Final = record(1, 3)  # of master a and backup b
HERE: Final = Placement(1, ("a", "b"))


def cluster(
    *,
    dead: str = "",
    suspect: str = "",
    leaving: str = "",
    absent: str = "",
    converged: bool = True,
    me: str = "a",
    min_copies: int = 1,
    nodes: str = "abcde",
) -> Cluster:
    """Every letter is a node."""

    def state(name: str) -> State:
        given = {State.DEAD: dead, State.SUSPECT: suspect, State.LEAVING: leaving}
        return next((state for state, names in given.items() if name in names), State.ALIVE)

    members: list[Member] = [member(name, state(name)) for name in nodes if name not in absent]
    return Cluster(View(me, members, converged=converged), min_copies)


def target(master: str | None = "a", backup: str | None = "b", **more: Any) -> Target:
    fields: dict[str, Any] = {"single": False, "floor": (1, 1), "age": 5.0}
    return Target(KEY, master, backup, **(fields | more))


def order(*without: str, nodes: str = "abcde") -> list[str]:
    """The key's order of live nodes."""
    return live_order(view(*nodes), KEY, without=without)


def next_backup(*without: str, nodes: str = "abcde") -> str:
    """Whom a survivor recruits, as every host computes it."""
    chosen = choose_backup(view(*nodes), KEY, without=without, near=without)
    assert chosen is not None
    return chosen


def found(copy: Record = LIVE, *, serving: bool = False, unheld: bool = False) -> calls.Found:
    return calls.Found(copy, serving, unheld)


def promoted(copy: Record = LIVE, owners: Owners = ("a", "c")) -> calls.Promoted:
    """The answer of a survivor: its record with the new owners, pending."""
    return calls.Promoted(copy.but(epoch=copy.epoch + 1, owners=owners, accepted=owners[1] is None, base=copy.epoch))


def gone(reason: str = "logout", epoch: int = 1, owners: Owners = ("a", "b")) -> calls.Gone:
    return calls.Gone(reason, 2.0, epoch, owners)
