"""Rendezvous order and the choice of a backup: the same everywhere, balanced, and little moves when nodes come and go."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.node import Member, State, View
from clustersession.core.placement import PARTNERS, choose_backup, is_crowded, live_order, partner_graph, partners, rendezvous
from clustersession.core.record import Owners

from .records import KEY, member, view

KEYS = [bytes([number // 256, number % 256]) * 8 for number in range(3000)]
keys = st.binary(min_size=16, max_size=16)
CLUSTERS = 1000
STABLE = [f"node-{number}" for number in (11, 12, 2, 4, 6, 7, 8, 9)]
STABLE_IN_ZONES = [f"node-{number}" for number in (11, 12, 2, 4, 5, 7, 8, 9)]
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
    count = Counter(choose_backup(everybody, key, without=("a",), near=("a",)) for key in KEYS)
    assert set(count) == {"b", "c", "d", "e"}
    for each in count.values():
        assert len(KEYS) / 4 * 0.85 < each < len(KEYS) / 4 * 1.15


@given(keys, members, st.sampled_from(("", "z1", "z2")), st.sets(st.sampled_from("abcdefgh")))
def test_a_backup_is_another_node_that_can_take_a_copy(key: bytes, others: list[Member], zone: str, without: set[str]) -> None:
    """Never one of `without`, never dead or departing; a suspect or the own zone only if there is nothing better; else the
    first of the key's order."""
    chosen = choose_backup(View("a", [member("a", zone=zone), *others]), key, without={"a", *without}, near=("a",))
    free = [each for each in others if each.identity not in without]
    alive = [each for each in free if each.state is State.ALIVE]
    pool = alive or [each for each in free if each.state is State.SUSPECT]
    pool = [each for each in pool if each.zone != zone] or pool
    assert chosen == next(iter(rendezvous(key, [each.identity for each in pool])), None)


@pytest.mark.parametrize("state", [State.DEAD, State.LEAVING, State.LEFT])
def test_nobody_left_to_take_a_copy(state: State) -> None:
    """Then there is no backup, rather than one that cannot hold it."""
    assert choose_backup(view(member("b", state)), KEY, without=(), near=("a",)) is None


def test_only_members_that_may_answer_are_asked() -> None:
    """Suspects and leavers may answer, the dead and those that left don't; who was asked already is left out."""
    everybody = view(*(member(state.value, state) for state in State))
    assert set(live_order(everybody, KEY)) == {"alive", "suspect", "leaving"}
    assert live_order(everybody, KEY) == rendezvous(KEY, ["alive", "suspect", "leaving"])
    assert set(live_order(everybody, KEY, without=["alive"])) == {"suspect", "leaving"}


# --- partners ----------------------------------------------------------------------------------------------------------------


def cluster(count: int, me: str = "n0", zones: int = 1, seed: int = 0) -> View:
    """`count` nodes with random names (`me` is one of them), in so many zones."""
    names = [me, *(f"{random.Random(f'{seed} {number}').randbytes(4).hex()}-{number}" for number in range(1, count))]
    return View(me, [member(name, zone=f"z{number % zones}" if zones > 1 else "") for number, name in enumerate(names)])


@pytest.mark.parametrize("zones", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 3, PARTNERS + 1])
def test_in_a_small_cluster_everybody_is_a_partner(count: int, zones: int) -> None:
    """So it is with up to nine nodes, whatever their zones."""
    seen = cluster(count, zones=zones)
    for name in seen.members:
        assert partners(seen, name) == set(seen.members) - {name}


@pytest.mark.parametrize("zones", [1, 2, 4])
def test_partners_are_mutual_and_the_same_in_every_table(zones: int) -> None:
    """Each node computes both ends alike, whoever it is and in which order it knows the members."""
    seen = cluster(40, zones=zones)
    other = View("elsewhere", reversed(list(seen.members.values())))
    for name in seen.members:
        mine = partners(seen, name)
        assert len(mine) >= PARTNERS
        assert name not in mine
        assert partners(other, name) == mine
        assert all(name in partners(seen, each) for each in mine)


def test_the_partners_are_stable() -> None:
    """Hosts of different releases must agree, so their choice never changes."""
    names = [f"node-{number}" for number in range(14)]
    assert sorted(partners(view(*names), "node-0")) == STABLE
    zones = {name: f"z{number % 2}" for number, name in enumerate(names)}
    assert sorted(partners(view(*names, zones=zones), "node-0")) == STABLE_IN_ZONES


def test_half_of_the_partners_come_from_other_zones() -> None:
    """A node in the largest zone too can lose its whole zone and find a copy elsewhere."""
    names = [f"n{number}" for number in range(60)]
    zones = {name: "small" if number < 6 else "large" for number, name in enumerate(names)}
    seen = view(*names, zones=zones)
    for name in names[6:]:
        assert sum(zones[each] == "small" for each in partners(seen, name)) >= PARTNERS // 2


def test_the_number_of_partners_does_not_grow_with_the_cluster() -> None:
    """In a thousand random clusters of 100 nodes: fewer than 2 x 8 in the mean, and no node has more than three times as
    many as it picks."""
    most, total = 0, 0
    for seed in range(CLUSTERS):
        nodes = cluster(100, seed=seed, zones=(1, 3)[seed % 2]).members.values()
        degrees = [len(each) for each in partner_graph(frozenset((m.identity, m.zone) for m in nodes)).values()]
        most, total = max(most, *degrees), total + sum(degrees)
    assert PARTNERS < total / (100 * CLUSTERS) < 2 * PARTNERS
    assert most <= 3 * PARTNERS


def test_who_comes_or_goes_changes_few_partners() -> None:
    """One node more or less in 100: only those that had it, or now pick it."""
    seen = cluster(100)
    gone = sorted(seen.members)[50]
    after = View("n0", [each for each in seen.members.values() if each.identity != gone])
    changed = [name for name in after.members if partners(after, name) != partners(seen, name) - {gone}]
    assert 0 < len(changed) < 4 * PARTNERS


@pytest.mark.parametrize("state", [State.DEAD, State.LEAVING, State.LEFT])
def test_only_who_can_take_copies_is_a_partner(state: State) -> None:
    """A suspect stays one: a moment of silence must not change who shares with whom."""
    seen = cluster(30)
    near = min(partners(seen, "n0"))
    states = {near: state}
    after = View("n0", [member(name, states.get(name, State.ALIVE)) for name in seen.members])
    assert near not in partners(after, "n0")
    suspect = View("n0", [member(name, State.SUSPECT if name == near else State.ALIVE) for name in seen.members])
    assert partners(suspect, "n0") == partners(seen, "n0")


@given(keys, st.integers(0, 3), st.integers(1, 4), st.sampled_from((State.ALIVE, State.SUSPECT, State.DEAD)))
def test_two_owners_that_take_each_other_for_dead_choose_the_same_candidate(
    key: bytes, seed: int, zones: int, state: State
) -> None:
    """It takes the record of one of them only, so that two histories don't go on: whichever of the two is the survivor, and
    whatever their zones."""
    seen = cluster(50, zones=zones, seed=seed)
    one = "n0"
    other = sorted(partners(seen, one))[key[0] % PARTNERS]
    chosen = []
    for survivor, lost in ((one, other), (other, one)):
        states = {lost: state}
        its = View(
            survivor, [member(m.identity, states.get(m.identity, State.ALIVE), zone=m.zone) for m in seen.members.values()]
        )
        chosen.append(choose_backup(its, key, without=(survivor, lost), near=(survivor, lost)))
    assert chosen[0] == chosen[1]
    assert chosen[0] in partners(seen, one) | partners(seen, other)


@pytest.mark.parametrize(
    ("owners", "others", "crowded"),
    [
        (("a", "b"), (member("b", zone="x"), member("c", zone="y")), True),
        (("a", "b"), (member("b", zone="x"), member("c", zone="x")), False),
        (("a", "b"), (member("b", zone="x"), member("c", State.SUSPECT, zone="y")), False),
        (("a", "b"), (member("b", zone="y"), member("c", zone="z")), False),
        (("a", "b"), (member("b", State.DEAD, zone="x"), member("c", zone="y")), False),  # repair sees to that
        (("a", None), (member("b", zone="y"),), False),
        (("a", "gone"), (member("b", zone="y"),), False),
    ],
)
def test_two_copies_in_one_zone_are_one_too_many(owners: Owners, others: tuple[Member, ...], crowded: bool) -> None:
    """If a member of another zone could take one, and both owners are there."""
    assert is_crowded(View("a", [member("a", zone="x"), *others]), owners) is crowded


@pytest.mark.parametrize("leaver", ["n0", "n1"])
def test_what_a_leaver_hands_over_stays_in_two_zones(leaver: str) -> None:
    """It does not compete for the session, so only the zone of the one that stays is avoided."""
    zones = {f"n{number}": f"z{number % 2}" for number in range(6)}
    seen = View("n5", [member(n, State.LEAVING if n == leaver else State.ALIVE, zone=zone) for n, zone in zones.items()])
    stays = "n1" if leaver == "n0" else "n0"
    for key in KEYS[:50]:
        chosen = choose_backup(seen, key, without=("n0", "n1"), near=("n0", "n1"))
        assert chosen is not None
        assert zones[chosen] != zones[stays]


def test_a_session_stays_with_the_partners_while_one_of_them_lives() -> None:
    """Then any live member takes it, a suspect only if there is nobody else."""
    seen = cluster(30)
    circle = partners(seen, "n0")

    def chosen(**states: State) -> str | None:
        shown = View("n0", [member(n, states["near" if n in circle else "far"]) for n in seen.members if n != "n0"])
        return choose_backup(shown, KEY, without=("n0",), near=("n0",))

    assert chosen(near=State.ALIVE, far=State.ALIVE) == rendezvous(KEY, circle)[0]
    far = rendezvous(KEY, set(seen.members) - circle - {"n0"})[0]
    assert chosen(near=State.SUSPECT, far=State.ALIVE) == far
    assert chosen(near=State.LEAVING, far=State.SUSPECT) in set(seen.members) - circle
    assert chosen(near=State.DEAD, far=State.DEAD) is None
