"""What heartbeats tell of the table: never more than a bound, the news first, and in turn everything."""

from __future__ import annotations

from clustersession.core.gossip import ALL_UP_TO, NEWS_MAX, NEWS_S, SAMPLE, present, told, whole
from clustersession.core.membership import Entry, Table
from clustersession.core.node import State

from .records import member

NOW = 1000.0


def table(count: int, changed: dict[int, float] | None = None) -> Table:
    """`n0` and so on; `changed` says what changed when, all others long ago."""
    at = changed or {}
    entries = (Entry(member(f"n{number}"), NOW, 0.0, at.get(number, 0.0)) for number in range(count))
    return Table(member("me"), {entry.member.identity: entry for entry in entries}, 0.0)


def names(known: Table, peer: str = "n5", turn: int = 0) -> list[str]:
    return [each.identity for each in told(known, peer, turn, NOW)]


def test_a_small_table_is_told_each_time() -> None:
    """As it costs little."""
    assert names(table(ALL_UP_TO), "nobody") == [f"n{number}" for number in range(ALL_UP_TO)]
    assert len(names(table(ALL_UP_TO + 1), "nobody")) == SAMPLE


def test_a_peer_is_told_first_what_is_thought_of_it() -> None:
    """So that it can refute it at once."""
    assert names(table(100), "n77")[0] == "n77"
    assert names(table(100), "nobody")[0] == "n0"


def test_news_is_told_the_latest_first_for_a_while() -> None:
    """As much of it as the bound allows."""
    assert names(table(100, {90: NOW - 2, 80: NOW - 1, 70: NOW - NEWS_S}))[:3] == ["n5", "n80", "n90"]
    many = names(table(100, {number: NOW - 1 - number / 100 for number in range(20, 80)}))
    assert many[1 : NEWS_MAX + 1] == [f"n{number}" for number in range(20, 20 + NEWS_MAX)]


def test_a_heartbeat_does_not_grow_with_the_table() -> None:
    """Whatever has changed, and however many members there are."""
    for count in (20, 100, 1000):
        everything = dict.fromkeys(range(count), NOW)
        assert all(len(names(table(count, everything), turn=turn)) <= 1 + NEWS_MAX + SAMPLE for turn in range(count))


def test_everything_is_told_in_turn() -> None:
    """Nothing waits longer than the table is large."""
    told_of = {name for turn in range(-(-100 // SAMPLE)) for name in names(table(100), "nobody", turn)}
    assert len(told_of) == 100


def test_who_has_not_answered_yet_is_not_passed_on_as_a_suspect() -> None:
    """That this host has just begun to watch it is no doubt about it; that it fell silent is."""
    known = table(20)
    silent = Entry(member("n3", State.SUSPECT), NOW - 5, NOW)
    for watched_since, passed_on in ((NOW - 1, False), (NOW - 9, True)):
        seen = known._replace(others={**known.others, "n3": silent}, watched={"n3": watched_since})
        assert ("n3" in {each.identity for each in whole(seen)}) is passed_on
        assert ("n3" in names(seen, "n3")) is passed_on


def test_the_dead_are_told_of_and_not_counted() -> None:
    """Who takes far fewer members for present than a host does is told of all of them."""
    known = table(50)
    dead = {f"n{number}": Entry(member(f"n{number}", State.DEAD), 0.0, 0.0) for number in range(20)}
    known = known._replace(others={**known.others, **dead})
    assert present(known) == 30
    assert len(whole(known)) == 50
