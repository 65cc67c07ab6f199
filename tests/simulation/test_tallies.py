"""What the checker says of values that operations have made, from what clients were told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from clustersession.core.values import encode_value

from .checker import Checker, Story
from .tallies import BASE, HELD, LOG, SET, SUM, Entry, in_words

LONG_AGO, LATER = 10.0, 20.0
NOTHING: Mapping[str, object] = {}


class Session:
    """Requests to one session and what a read of it would show."""

    def __init__(self) -> None:
        self.checker, self.story = Checker(), Story("one")

    def put(self, key: str, name: str, *, at: float = LONG_AGO, acked: float | None = None, alone: bool = False) -> Entry:
        """Acked after a moment."""
        entry = self.sent(key, name, at=at, alone=alone)
        self.checker.operated(self.story, key, entry, at + 0.1 if acked is None else acked)
        return entry

    def sent(self, key: str, name: str, *, at: float = LONG_AGO, alone: bool = False) -> Entry:
        """No answer arrives."""
        return self.story.tally(key).sent(name, at, self.checker.parting, alone=alone)

    def rules(self, shown: Mapping[str, object] = NOTHING, *, at: float = LATER, alone: bool = False) -> list[str]:
        """Which are broken when a read shows these values."""
        before = len(self.checker.violations)
        items = {key: encode_value(value) for key, value in shown.items()}
        self.checker.read(self.story, items, at, at + 0.01, alone=alone)
        return [violation.rule for violation in self.checker.violations[before:]]


def total(*numbers: int) -> int:
    return sum(BASE**number for number in numbers)


@pytest.mark.parametrize(
    ("key", "shows"),
    [(SUM, lambda *names: total(*map(ord, names)) // BASE ** ord("a")), (LOG, lambda *names: list(names))],
)
def test_what_was_acked_is_there_once_and_what_was_not_at_most_once(key: str, shows: Callable[..., object]) -> None:
    """Also of a sum it can be said which requests count."""
    one = Session()
    one.put(key, "a")
    one.sent(key, "b")
    assert one.rules({key: shows("a")}) == []
    assert one.rules({key: shows("a", "a")}) == ["counted twice"]
    assert one.rules({key: shows("b")}) == ["lost operation"]
    assert one.rules({key: shows("a", "b")}) == []
    assert one.rules({key: shows("a")}, at=LATER + 5.0) == ["read went back"]
    assert one.rules({key: shows("a", "b", "c")}) == ["foreign value"]
    assert one.rules() == ["lost operation"]


def test_what_was_acked_a_moment_ago_may_be_missing() -> None:
    """A copy that nobody could reach is served for as long as a lease."""
    one = Session()
    one.put(LOG, "a", at=LATER - 1.0)
    assert one.rules() == []


def test_a_value_where_nothing_was_put_is_foreign() -> None:
    """It is another session's."""
    assert Session().rules({"log": ["a"]}) == ["foreign value"]


def test_what_was_refused_is_not_there() -> None:
    """Its client was told that nothing of it was saved."""
    one = Session()
    one.sent(LOG, "a").refused = "LockLost"
    assert one.rules() == []
    assert one.rules({"log": ["a"]}) == ["refused, yet saved"]


def test_what_was_discarded_is_not_there() -> None:
    """Until the discard is acked it may be or not."""
    one = Session()
    entry = one.put(SET, "a")
    assert one.rules() == ["lost operation"]
    one.story.tally(SET).leaves(entry, 12.0)
    assert one.rules({"set": {"a"}}) == one.rules() == []
    entry.out = 12.1
    assert one.rules({"set": {"a"}}) == ["discard undone"]


def test_of_two_lists_written_whole_one_is_made_of_the_other() -> None:
    """Whichever answer comes first."""
    one = Session()
    entries = [one.sent(HELD, name) for name in ("a", "b", "c")]
    for entry, read in zip(entries, ((), ("a",), ("a",)), strict=True):
        entry.read = frozenset(read)
    for entry in (entries[1], entries[0]):
        one.checker.operated(one.story, HELD, entry, 11.0)
    assert one.checker.violations == []
    one.checker.operated(one.story, HELD, entries[2], 11.0)
    assert [violation.rule for violation in one.checker.violations] == ["not based on the last"]


def test_a_list_may_be_written_over_what_nobody_was_told_of() -> None:
    """What a merge brings between the read and the write of a request that has the lock was never acked; but not if it was."""
    for acked, rules in ((False, []), (True, ["lost operation"])):
        one = Session()
        unknown, later = one.sent(HELD, "a", at=9.0), one.sent(HELD, "b", at=10.0)
        unknown.read = later.read = frozenset()
        if acked:
            one.checker.operated(one.story, HELD, unknown, 10.0)
        assert one.rules({"held": ["a"]}, at=11.0) == []
        assert one.rules({"held": ["b"]}) == rules


def test_of_two_histories_that_have_not_met_one_keeps_what_was_written_under_its_lock() -> None:
    """The other one's is lost; but both, or one that was written when they had met, are not."""
    for at, kept, rules in ((11.0, "b", []), (11.0, "", ["lost operation"]), (13.0, "b", ["not based on the last"])):
        one = Session()
        one.checker.parting.parted(5.0)
        first, second = one.sent(HELD, "a", at=10.5), one.sent(HELD, "b", at=at)
        first.read = second.read = frozenset()
        one.checker.parting.healed(10.0)
        if at > 12.0:
            one.checker.parting.united(12.0)
        one.checker.operated(one.story, HELD, first, 10.6)
        one.checker.operated(one.story, HELD, second, at + 0.1)
        one.checker.parting.united(12.0)
        found = [violation.rule for violation in one.checker.violations] or one.rules({"held": list(kept)})
        assert found[:1] == rules, (at, kept)


def test_what_both_sides_counted_one_of_them_loses_whole() -> None:
    """Not some of each, and not what is older than that; which it was stays so."""
    for kept, lost, rules in (("am", "x", []), ("ax", "m", []), ("mx", "a", ["lost operation"]), ("a", "mx", ["lost operation"])):
        one = Session()
        one.put(LOG, "a", at=1.0)
        one.checker.parting.parted(5.0)
        one.put(LOG, "m", at=6.0)
        one.put(LOG, "x", at=6.0, alone=True)
        assert one.rules({"log": ["a", "m"]}, at=9.0) == one.rules({"log": ["a", "x"]}, at=9.0, alone=True) == []
        assert one.rules({"log": ["a", "x"]}, at=9.0) == ["lost operation"]
        one.checker.parting.healed(10.0)
        one.checker.parting.united(12.0)
        assert one.rules({"log": list(kept)}) == rules, (kept, lost)
        if not rules:
            assert one.rules({"log": ["a", lost]}) == ["lost operation"]


def test_what_two_histories_counted_that_have_not_met_one_of_them_loses() -> None:
    """Only where there may be two: not while the host that is alone is alone; and what the other one counted is there."""
    for at, other, rules in ((11.0, True, []), (6.0, True, ["lost operation"]), (11.0, False, ["lost operation"])):
        one = Session()
        one.checker.parting.parted(5.0)
        if at > 10.0:
            one.checker.parting.healed(10.0)
        one.put(LOG, "a", at=at)
        one.checker.parting.healed(10.0)
        if other:
            one.put(LOG, "b", at=11.0)
        one.checker.parting.united(12.0)
        assert one.rules({"log": ["b"]} if other else {"log": []}) == rules, (at, other)


def test_what_one_side_alone_counted_is_there_after_the_heal() -> None:
    """Nothing else was written over it."""
    one = Session()
    one.checker.parting.parted(5.0)
    one.put("d.log", "x", at=6.0, alone=True)
    one.checker.parting.healed(10.0)
    one.checker.parting.united(12.0)
    assert one.rules() == ["lost operation"]


def test_what_counts_twice_is_wrong_whatever_else_was_written() -> None:
    """Also where its answer was late, so that it may have been sent to two masters."""
    one = Session()
    one.put(LOG, "a", acked=10.4)
    one.put(SUM, "b")
    assert one.rules({"log": ["a", "a"], "sum": 1}) == ["counted twice"]


def test_a_rotation_takes_along_what_was_counted() -> None:
    """Also what is acked only then, for a request that began before."""
    one, new = Session(), Story("new")
    one.put(LOG, "a")
    late = one.sent(LOG, "b")
    one.story.rotated_to(new)
    one.checker.operated(one.story, LOG, late, 11.0)
    one.story = new
    assert one.rules({"log": ["a", "b"]}) == []
    assert one.rules({"log": ["a"]}) == ["lost operation"]


def test_values_in_words() -> None:
    """As a story tells them."""
    assert in_words("a", b"1-2") == "1-2"
    assert in_words(LOG, encode_value(["1-2", "1-3"])) == "[1-2 1-3]"
    assert in_words(SET, encode_value({"b", "a"})) == "[a b]"
    assert in_words(SUM, encode_value(1024)) == "1,024"
