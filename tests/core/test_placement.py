"""Rendezvous order and the choice of a backup: the same everywhere, balanced, and little moves when nodes come and go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.node import Member, State, View
from clustersession.core.placement import choose_backup, live_order, rendezvous

from .records import KEY, member, view

KEYS = [bytes([number // 256, number % 256]) * 8 for number in range(3000)]
keys = st.binary(min_size=16, max_size=16)
identities = st.lists(st.text("abcdefgh-0123", min_size=1, max_size=8), min_size=1, max_size=8, unique=True)
members = st.lists(
    st.builds(member, st.sampled_from("bcdefgh"), st.sampled_from(State), zone=st.sampled_from(("", "z1", "z2"))),
    max_size=7,
    unique_by=lambda each: each.identity,
)


@given(keys, identities)
def test_the_order_does_not_depend_on_the_order_of_the_members(key: bytes, names: list[str]) -> None:
    """Every host computes the same order from its own table, and it has every member once."""
    order = rendezvous(key, names)
    assert sorted(order) == sorted(names)
    assert rendezvous(key, reversed(names)) == rendezvous(key, set(names)) == order


@given(keys, identities, st.data())
def test_who_goes_moves_nothing_but_its_own(key: bytes, names: list[str], data: st.DataObject) -> None:
    """Without one node the others keep their places among each other; so it is when one comes."""
    gone = data.draw(st.sampled_from(names))
    assert rendezvous(key, [name for name in names if name != gone]) == [n for n in rendezvous(key, names) if n != gone]


def test_the_order_is_stable() -> None:
    """Hosts of different releases must agree, so this order never changes."""
    assert rendezvous(bytes(range(16)), ["a", "b", "c", "d"]) == ["b", "d", "a", "c"]


def test_keys_are_balanced_and_few_of_them_move() -> None:
    """Each of five nodes is first for about a fifth of the keys; a sixth takes about a sixth, evenly from all."""
    five = [f"node-{number}" for number in range(5)]
    before = {key: rendezvous(key, five)[0] for key in KEYS}
    for count in Counter(before.values()).values():
        assert len(KEYS) / 5 * 0.85 < count < len(KEYS) / 5 * 1.15
    moved = {key: old for key, old in before.items() if (new := rendezvous(key, [*five, "new"])[0]) != old and new == "new"}
    assert all(rendezvous(key, [*five, "new"])[0] == old for key, old in before.items() if key not in moved)
    assert len(KEYS) / 6 * 0.85 < len(moved) < len(KEYS) / 6 * 1.15
    for count in Counter(moved.values()).values():
        assert len(moved) / 5 * 0.6 < count < len(moved) / 5 * 1.4


def test_the_backups_of_one_master_are_spread_over_all_others() -> None:
    """The death of one node doubles nobody's load."""
    everybody = view("a", "b", "c", "d", "e")
    count = Counter(choose_backup(everybody, key, zone="", without=("a",)) for key in KEYS)
    assert set(count) == {"b", "c", "d", "e"}
    for each in count.values():
        assert len(KEYS) / 4 * 0.85 < each < len(KEYS) / 4 * 1.15


@given(keys, members, st.sampled_from(("", "z1", "z2")), st.sets(st.sampled_from("abcdefgh")))
def test_a_backup_is_another_node_that_can_take_a_copy(key: bytes, others: list[Member], zone: str, without: set[str]) -> None:
    """Never one of `without`, never dead or departing; a suspect or the own zone only if there is nothing better; else the
    first of the key's order."""
    chosen = choose_backup(View("a", others), key, zone=zone, without=without)
    free = [each for each in others if each.identity not in without]
    alive = [each for each in free if each.state is State.ALIVE]
    pool = alive or [each for each in free if each.state is State.SUSPECT]
    pool = [each for each in pool if each.zone != zone] or pool
    assert chosen == next(iter(rendezvous(key, [each.identity for each in pool])), None)


@pytest.mark.parametrize("state", [State.DEAD, State.LEAVING, State.LEFT])
def test_nobody_left_to_take_a_copy(state: State) -> None:
    """Then there is no backup, rather than one that cannot hold it."""
    assert choose_backup(view(member("b", state)), KEY, zone="", without=()) is None


def test_only_members_that_may_answer_are_asked() -> None:
    """Suspects and leavers may answer, the dead and those that left don't; who was asked already is left out."""
    everybody = view(*(member(state.value, state) for state in State))
    assert set(live_order(everybody, KEY)) == {"alive", "suspect", "leaving"}
    assert live_order(everybody, KEY) == rendezvous(KEY, ["alive", "suspect", "leaving"])
    assert set(live_order(everybody, KEY, without=["alive"])) == {"suspect", "leaving"}
