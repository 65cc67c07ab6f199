"""Where a session lives: rendezvous hashing (highest random weight), so that no directory is needed."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from .node import Member, State, View
from .record import Key, Owners

PARTNERS: Final = 8  # as many each node picks: nodes of a cluster of up to 9 are all each other's partners
GRAPHS_CACHED: Final = 64


def rendezvous(key: Key, identities: Iterable[str]) -> list[str]:
    """The one order of nodes for `key`. A node that comes or goes moves only what it gains or held."""
    return sorted(identities, key=lambda identity: (_weight(key, identity), identity), reverse=True)


def _weight(key: Key, identity: str) -> bytes:
    return hashlib.blake2b(identity.encode(), key=key, digest_size=8).digest()


def live_order(view: View, key: Key, *, without: Collection[str] = ()) -> list[str]:
    """The nodes worth asking, in the key's order."""
    return rendezvous(key, (m.identity for m in view.members.values() if m.reachable and m.identity not in without))


def partners(view: View, node: str) -> frozenset[str]:
    """The nodes that `node` shares new sessions with, so that heartbeats, and the odds that two deaths meet both owners of
    some session, don't grow with the cluster (copysets). Each node picks its `PARTNERS` of the highest weight among the
    members that can take copies, half of them from other zones first; partners are two of which either picks the other."""
    return _partners_of(view, frozenset((node,)))


def _partners_of(view: View, near: frozenset[str]) -> frozenset[str]:
    """The partners of all of `near`, as they were when each of `near` could take copies: two owners, each of which takes
    the other for dead, then see the same."""
    found = view.circles.get(near)
    if found is None:
        zones = {m.identity: m.zone for m in view.members.values() if _takes_copies(m) or m.identity in near}
        for node in near:
            zones.setdefault(node, "")
        graph = partner_graph(frozenset(zones.items()))
        found = view.circles[near] = frozenset().union(*[graph[node] for node in near]) - near
    return found


@functools.lru_cache(maxsize=GRAPHS_CACHED)
def partner_graph(nodes: frozenset[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    """Who is whose partner among `nodes` (identity, zone): for each pair one weight."""
    zones = dict(nodes)
    weighted: dict[str, list[tuple[bytes, str]]] = {identity: [] for identity in zones}
    for one, other in itertools.combinations(sorted(zones), 2):
        weight = hashlib.blake2b(f"{one}\n{other}".encode(), digest_size=8).digest()
        weighted[one].append((weight, other))
        weighted[other].append((weight, one))
    graph: dict[str, set[str]] = {identity: set() for identity in zones}
    for identity, others in weighted.items():
        order = [other for _, other in sorted(others, reverse=True)]
        for picked in _picked(order, [other for other in order if zones[other] != zones[identity]]):
            graph[identity].add(picked)
            graph[picked].add(identity)
    return {identity: frozenset(others) for identity, others in graph.items()}


def _picked(order: list[str], in_other_zones: list[str]) -> set[str]:
    """The heaviest `PARTNERS` of `order`, of which the first half is of other zones as far as there are any."""
    picked = in_other_zones[: PARTNERS // 2]
    return {*picked, *[other for other in order if other not in picked][: PARTNERS - len(picked)]}


def _takes_copies(member: Member) -> bool:
    return member.state is State.ALIVE or member.state is State.SUSPECT


def choose_backup(view: View, key: Key, *, without: Collection[str], near: Collection[str]) -> str | None:
    """The first of the key's order that can take a copy, of the partners of `near`, the record's owners (for a new one: its
    master), or of all members if none of those can. Zones of owners come after all others, suspects only if all are.

    Whoever chooses for the same owners chooses the same: two that take each other for dead need an arbiter (decision 4).
    """
    zones = _candidates(view, frozenset(without), frozenset(near))
    if len(zones) < 2:
        return next(iter(zones), None)
    order, avoided = rendezvous(key, zones), _zones_of_owners(view, near)
    return next((identity for identity in order if zones[identity] not in avoided), order[0])


def _zones_of_owners(view: View, owners: Collection[str]) -> set[str]:
    """A leaver does not compete for the session. Who seems to be dead may, and takes another one for dead."""
    members = [member for member in map(view.get, owners) if member is not None]
    return {member.zone for member in members if not member.state.departing}


def is_crowded(view: View, owners: Owners) -> bool:
    """Whether both owners are in one zone although a member of another zone could take a copy: so it may be after a death that
    was noticed by a request, as both owners then had to choose the same."""
    master, backup = view.get(owners[0]), None if owners[1] is None else view.get(owners[1])
    if master is None or backup is None or not backup.recruitable or master.zone != backup.zone:
        return False
    return any(member.recruitable and member.zone != master.zone for member in view.members.values())


def _candidates(view: View, without: frozenset[str], near: frozenset[str]) -> Mapping[str, str]:
    """With their zones: the best ones that there are, whatever the key."""
    found = view.candidates.get((without, near))
    if found is None:
        circle = _partners_of(view, near)
        others = [m for m in view.members.values() if m.identity not in without]
        close = [m for m in others if m.identity in circle]
        tiers = ((close, _is_recruitable), (others, _is_recruitable), (close, _takes_copies), (others, _takes_copies))
        zones = ({m.identity: m.zone for m in among if able(m)} for among, able in tiers)
        found = view.candidates[without, near] = next(filter(None, zones), {})
    return found


def _is_recruitable(member: Member) -> bool:
    return member.recruitable
