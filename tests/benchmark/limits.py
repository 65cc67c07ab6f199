"""What must hold, as ratios within one run, so that the speed of the machine does not matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from . import parts
from .added import BACKUP, COLD, FRAMEWORKS, ON_REDIS, OWNER, REDIS, SIGNED, THIRD, Added, Cell
from .measure import Times
from .scale import Scaled

FLAT_MAX: Final = 1.25
"""A read among many sessions over one among few: what else the two differ in is the processor's caches."""


class Limit(NamedTuple):
    """`ours` may be at most `factor` times `theirs`, both medians in microseconds."""

    what: str
    ours: float
    theirs: float
    factor: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs > 0 else float("inf")

    @property
    def holds(self) -> bool:
        return self.ours <= self.factor * self.theirs


def limits(added: Added, of_parts: dict[str, Times], scaled: list[Scaled]) -> list[Limit]:
    few, many = scaled
    flat = f"a read among {many.sessions:,} sessions is a read among {few.sessions:,}"
    return [
        *_of_apps(added),
        Limit("a peer call is not slower than redis-py SET", _p50(of_parts, parts.PEER), _p50(of_parts, parts.REDIS_SET), 1.0),
        Limit(flat, many.read.p50, few.read.p50, FLAT_MAX),
    ]


def _of_apps(added: Added) -> Iterator[Limit]:
    def cost(framework: str, row: str, action: str) -> float:
        return added[Cell(framework, row, action)].p50

    for framework in FRAMEWORKS:
        own, theirs = cost(framework, OWNER, "read"), ON_REDIS[framework]
        signed = cost(framework, SIGNED, "read")
        yield Limit(f"{framework}: a read on the owner's host costs no more than a signed cookie", own, signed, 1.0)
        if framework != "Django":
            on_redis = cost(framework, REDIS, "read")
            yield Limit(f"{framework}: a read on the owner's host costs a tenth of {theirs}", own, on_redis, 0.1)
    for framework in FRAMEWORKS:
        theirs = f"{ON_REDIS[framework]} on Redis"
        yield Limit(
            f"{framework}: a read on a third host costs less than {theirs}",
            cost(framework, THIRD, "read"),
            cost(framework, REDIS, "read"),
            1.0,
        )
        yield Limit(
            f"{framework}: a write with two copies costs half of {theirs} with one",
            cost(framework, OWNER, "write"),
            cost(framework, REDIS, "write"),
            0.5,
        )


def beside(added: Added, of_parts: dict[str, Times]) -> list[Limit]:
    """Harder cases of the same, told and not judged: caches that miss, the other owner, a peer that stores what it is sent."""

    def cost(framework: str, row: str, action: str) -> float:
        return added[Cell(framework, row, action)].p50

    found = []
    for framework in FRAMEWORKS:
        signed, on_redis = cost(framework, SIGNED, "read"), cost(framework, REDIS, "write")
        found += [
            Limit(f"{framework}: a cold read, against a signed cookie", cost(framework, COLD, "read"), signed, 1.0),
            Limit(f"{framework}: a write on the backup's host, against Redis", cost(framework, BACKUP, "write"), on_redis, 0.5),
        ]
    stored, redis_set = _p50(of_parts, parts.PEER_NODE), _p50(of_parts, parts.REDIS_SET)
    return [*found, Limit("a peer call that is stored, against redis-py SET", stored, redis_set, 1.0)]


def _p50(of_parts: dict[str, Times], name: str) -> float:
    return of_parts[name].p50
