"""Where a session lives: rendezvous hashing (highest random weight), so that no directory is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from .node import View
from .record import Key


def rendezvous(key: Key, identities: Iterable[str]) -> list[str]:
    """The one order of nodes for `key`. A node that comes or goes moves only what it gains or held."""
    return sorted(identities, key=lambda identity: (_weight(key, identity), identity), reverse=True)


def _weight(key: Key, identity: str) -> bytes:
    return hashlib.blake2b(identity.encode(), key=key, digest_size=8).digest()


def live_order(view: View, key: Key, *, without: Collection[str] = ()) -> list[str]:
    """The nodes worth asking, in the key's order."""
    return rendezvous(key, (m.identity for m in view.members.values() if m.reachable and m.identity not in without))


def choose_backup(view: View, key: Key, *, zone: str, without: Collection[str]) -> str | None:
    """The first of the key's order that can take a copy, another zone before the own one. Suspects only if all are."""
    others = [m for m in view.members.values() if m.identity not in without]
    for candidates in ([m for m in others if m.recruitable], [m for m in others if m.reachable and not m.state.departing]):
        order = rendezvous(key, (m.identity for m in candidates))
        zones = {m.identity: m.zone for m in candidates}
        if order:
            return next((identity for identity in order if zones[identity] != zone), order[0])
    return None
