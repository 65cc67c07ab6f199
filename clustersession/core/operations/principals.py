"""All sessions of one user: which there are, and to end them everywhere (design.md 7)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .. import calls
from ..bars import Bar
from ..effects import Ask, AskAll, Operation
from ..record import Key, Record, rank
from .outcome import Cluster, Unavailable


class Listing(NamedTuple):
    """The live sessions that were found, without their values. `silent`: the nodes that gave no answer, and may hold others."""

    sessions: dict[Key, Record]
    silent: tuple[str, ...]


class EndedAll(NamedTuple):
    """`sessions` were ended at once, on all `holders` of the bar; `silent` hear of it with their next heartbeat, or when they
    are back, before they serve anything."""

    sessions: frozenset[Key]
    holders: tuple[str, ...]
    silent: tuple[str, ...]


EndAllOutcome: TypeAlias = EndedAll | Unavailable


def sessions_of(cluster: Cluster, labels: tuple[bytes, ...]) -> Operation[Listing]:
    """What all nodes hold of the user, asked at once. Of several copies the one that ranks highest counts."""
    nodes = _nodes(cluster)
    replies = yield AskAll(tuple(Ask(node, calls.OfUser(labels)) for node in nodes))
    found: dict[Key, Record] = {}
    silent = []
    for node, reply in zip(nodes, replies, strict=True):
        if not isinstance(reply, calls.Theirs):
            silent.append(node)
            continue
        for key, record in reply.sessions:
            if key not in found or _order(record) > _order(found[key]):
                found[key] = record
    return Listing(found, tuple(silent))


def end_all(cluster: Cluster, bar: Bar) -> Operation[EndAllOutcome]:
    """Every node ends what it holds. Acked when two nodes keep the bar, or one if there is certainly no other: a node that gave
    no answer takes it from any of them. A host that may be the one that is cut off acks nothing alone."""
    nodes = _nodes(cluster)
    replies = yield AskAll(tuple(Ask(node, calls.Forbid(bar)) for node in nodes))
    answered = {node: reply for node, reply in zip(nodes, replies, strict=True) if isinstance(reply, calls.Forbidden)}
    silent = tuple(node for node in nodes if node not in answered)
    if len(answered) < (min(2, len(nodes)) if cluster.view.converged else 2):
        full = [node for node, reply in zip(nodes, replies, strict=True) if isinstance(reply, calls.Full)]
        why = f"{', '.join(full)}: no room for it" if full else f"{', '.join(silent)} gave no answer"
        return Unavailable(f"fewer than two nodes took the order ({why})")
    ended = frozenset(key for reply in answered.values() for key in reply.ended)
    return EndedAll(ended, tuple(answered), silent)


def _nodes(cluster: Cluster) -> list[str]:
    """This host first, then whoever may hold a session and be reached."""
    others = sorted(m.identity for m in cluster.view.members.values() if m.reachable and m.identity != cluster.me)
    return [cluster.me, *others]


def _order(record: Record) -> tuple[tuple[float, int, str, str], int]:
    return rank(record), record.version
