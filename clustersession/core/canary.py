"""A session that is nobody's, made on the doctor's account: it takes the way of a real one through a pair of nodes, and leaves
nothing behind. No request of an app has part in it, so it is in no count of sessions and no log of refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from . import calls
from .effects import Ask, AskAll, Operation, Tell
from .record import Item, Key, Lifetime, Owners, Record, Stamp
from .replica import Decision
from .values import HIDDEN

CANARY: Final = f"{HIDDEN}canary"  # the principal by which it is known
LIFE_S: Final = 60.0  # should its maker die over it
_ITEM: Final = f"{HIDDEN}song"


class Fault(NamedTuple):
    """The step that failed, the node where it did, and why, in one word."""

    step: str
    at: str
    why: str


def is_canary(record: Record) -> bool:
    return record.principal == CANARY


def new_canary(owners: Owners, song: bytes, now: float) -> Record:
    """`song`: a few random bytes, which are looked for."""
    items: dict[str, Item] = {_ITEM: (Stamp(1, 1, owners[0]), song)}
    life = Lifetime(LIFE_S, now + LIFE_S)
    return Record(1, 1, owners, items, base=1, created=now, last_seen=now, lifetime=life, principal=CANARY)


def canary(key: Key, record: Record) -> Operation[Fault | None]:
    """Sends it through both owners of `record`, and drops it everywhere; what failed first, or None."""
    nodes = [owner for owner in record.owners if owner is not None]
    fault = yield from _lived(key, record, nodes)
    for node in nodes:
        reply = None if fault is not None and fault.at == node else (yield Ask(node, calls.Forget(key)))
        if fault is not None and fault.at == node:
            yield Tell(node, calls.Forget(key))  # it may be there all the same
        elif not isinstance(reply, calls.Done) and fault is None:
            fault = Fault("drop", node, _why(reply))
    return fault


def _lived(key: Key, record: Record, nodes: list[str]) -> Operation[Fault | None]:
    def is_read(reply: calls.Reply | None) -> bool:
        return isinstance(reply, calls.Found) and reply.record.items == record.items

    steps: tuple[tuple[str, calls.SessionCall, Callable[[calls.Reply | None], bool]], ...] = (
        ("create", calls.Put(key, record), lambda reply: isinstance(reply, calls.Held)),
        ("read", calls.Fetch(key, 0.0), is_read),
        ("end", calls.End(key, "canary", record.owners, record.epoch), lambda reply: isinstance(reply, calls.EndHeld)),
        ("end", calls.Fetch(key, 0.0), lambda reply: isinstance(reply, calls.Gone)),
    )
    for step, call, is_good in steps:
        replies = yield AskAll(tuple(Ask(node, call) for node in nodes))
        for node, reply in zip(nodes, replies, strict=True):
            if not is_good(reply):
                return Fault(step, node, _why(reply))
    return None


def _why(reply: calls.Reply | None) -> str:
    return reply.why if isinstance(reply, calls.Unreachable) else type(reply).__name__.lower()


def forgotten(record: Record | None) -> Decision:
    """What a node does when it is told to forget: nothing else than a canary is ever dropped by that."""
    if record is None:
        return Decision(calls.Done())
    if not is_canary(record):
        return Decision(calls.NotMine())
    return Decision(calls.Done(), True, None, unhint=tuple(owner for owner in record.owners if owner))
