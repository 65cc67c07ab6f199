"""What a heartbeat tells of the member table: what changed lately, and of the rest a part in turn, so that its size does not
grow with the cluster and everything gets around nevertheless."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from .membership import Entry, Table
from .node import Member, State

NEWS_S: Final = 4.0  # how long a change is told first: some eight heartbeats to each peer
NEWS_MAX: Final = 16
SAMPLE: Final = 8
ALL_UP_TO: Final = 16  # members: so many are told of each time


def told(table: Table, peer: str, turn: int, now: float) -> tuple[Member, ...]:
    """What to tell `peer` this time: what is thought of itself, the news, and from place `turn` on some others."""
    if len(table.others) <= ALL_UP_TO:
        return whole(table)
    known = {entry.member.identity: entry for entry in _passed_on(table)}
    chosen = {peer: known[peer]} if peer in known else {}
    news = sorted((entry for entry in known.values() if now - entry.changed < NEWS_S), key=_changed, reverse=True)
    chosen |= {entry.member.identity: entry for entry in news[:NEWS_MAX]}
    rest = itertools.cycle(known.items())
    first = turn * SAMPLE % len(known) if known else 0
    chosen |= dict(itertools.islice(rest, first, first + min(SAMPLE, len(known))))
    return tuple(entry.member for entry in chosen.values())


def whole(table: Table) -> tuple[Member, ...]:
    """For whom knows little yet."""
    return tuple(entry.member for entry in _passed_on(table))


def present(table: Table) -> int:
    """How many members this host takes for present: who knows far fewer is told of all."""
    return sum(entry.member.reachable for entry in table.others.values())


def knows_little(table: Table, theirs: int) -> bool:
    return theirs + SAMPLE < present(table)


def _passed_on(table: Table) -> Iterator[Entry]:
    """That a member has not answered yet, since this host began to watch it, is no news of it."""
    for identity, entry in table.others.items():
        if entry.member.state is not State.SUSPECT or identity not in table.watched or table.answered(identity):
            yield entry


def _changed(entry: Entry) -> float:
    return entry.changed
