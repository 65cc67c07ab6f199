"""What a heartbeat tells of the member table: what changed lately, and of the rest a part in turn, so that its size does not
grow with the cluster and everything gets around nevertheless."""

from __future__ import annotations

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
    entries = list(table.others.values())
    news = [entry for entry in entries if now - entry.changed < NEWS_S]
    news.sort(key=_changed, reverse=True)
    first = turn * SAMPLE % len(entries)
    sample = [*entries[first : first + SAMPLE], *entries[: max(0, first + SAMPLE - len(entries))]]
    chosen = {peer: table.others[peer]} if peer in table.others else {}
    chosen |= {entry.member.identity: entry for entry in (*news[:NEWS_MAX], *sample)}
    return tuple(entry.member for entry in chosen.values() if _is_passed_on(table, entry))


def whole(table: Table) -> tuple[Member, ...]:
    """For whom knows little yet."""
    entries = table.others.values()
    return tuple([e.member for e in entries if e.member.state is not State.SUSPECT or _is_passed_on(table, e)])


def present(table: Table) -> int:
    """How many members this host takes for present: who knows far fewer is told of all."""
    return len([entry for entry in table.others.values() if entry.member.reachable])


def _is_passed_on(table: Table, entry: Entry) -> bool:
    """That a member has not answered yet, since this host began to watch it, is no news of it."""
    member = entry.member
    return member.state is not State.SUSPECT or member.identity not in table.watched or table.answered(member.identity)


def _changed(entry: Entry) -> float:
    return entry.changed
