"""Members in virtual time: what watching each other costs, how long news takes, and that views which differ do no harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clustersession.core.node import Member, State
from clustersession.testing.simulated import SimulatedNode, World

from .run import run_seed
from .test_repair import Idle

SEEDS_NAMED = 3  # in the settings of every node
MESSAGES_PER_S_MAX = 128.0  # heartbeats and answers that one node sends, however large the cluster is
BYTES_PER_S_MAX = 32_000.0
# seconds until all nodes know, in a cluster of 100; a death takes 3 s of silence before it is one
JOIN_S, LEAVE_S, RETURN_S, DEATH_S = 3.0, 3.0, 3.0, 3.0 + 3.0


def _up(world: World) -> list[SimulatedNode]:
    return [node for node in world.nodes.values() if node.up]


def _seen(node: SimulatedNode, name: str) -> Member | None:
    return node.keeper.view().get(name)


def _seconds_until_all(world: World, name: str, known: Callable[[Member | None], bool], *, within: float) -> float:
    """Until every node but `name` itself sees it so."""
    began = world.now
    while not all(known(_seen(node, name)) for node in _up(world) if node.name != name):
        assert world.now - began <= within, [node.name for node in _up(world) if not known(_seen(node, name))]
        world.run(world.now + 0.1)
    return world.now - began


def _is(*states: State) -> Callable[[Member | None], bool]:
    return lambda member: member is not None and member.state in states


def _traffic(world: World, seconds: float) -> tuple[float, float]:
    """What the busiest node sends: messages and bytes a second."""
    messages, sent = world.messages.copy(), world.sent_bytes.copy()
    world.run(world.now + seconds)
    names = [node.name for node in _up(world)]
    return (
        max((world.messages[name] - messages[name]) / seconds for name in names),
        max((world.sent_bytes[name] - sent[name]) / seconds for name in names),
    )


@pytest.mark.parametrize("count", [3, 10, 100])
def test_what_members_cost_and_how_fast_news_spreads(count: int) -> None:
    """However many nodes there are, each sends no more than the bound; all learn of a join, a leave, a death and a return in
    seconds, from three seeds, and agree in the end."""
    world = World(count, count, seeds=SEEDS_NAMED)
    world.run(8.0)
    assert all(len(node.keeper.table.others) == count - 1 for node in _up(world))
    assert all(node.keeper.synced and node.keeper.view().converged for node in _up(world))
    messages, sent = _traffic(world, 4.0)
    assert messages <= MESSAGES_PER_S_MAX
    assert sent <= BYTES_PER_S_MAX
    figures = {"messages/s": messages, "bytes/s": sent}

    world.join("new")
    figures["join"] = _seconds_until_all(world, "new", _is(State.ALIVE), within=JOIN_S)
    world.nodes["new"].leave()
    figures["leave"] = _seconds_until_all(world, "new", _is(State.LEAVING), within=LEAVE_S)
    world.nodes["new"].keeper.left()
    world.run(world.now + 0.5)
    world.remove("new")
    _seconds_until_all(world, "new", _is(State.LEFT), within=LEAVE_S)

    files = world.nodes["n1"].crash()
    figures["death"] = _seconds_until_all(world, "n1", _is(State.DEAD), within=DEATH_S)
    world.nodes["n1"].start(files=files)
    again = world.nodes["n1"].incarnation
    returned = lambda member: member is not None and member.state is State.ALIVE and member.incarnation >= again  # noqa: E731
    figures["return"] = _seconds_until_all(world, "n1", returned, within=RETURN_S)
    world.run(world.now + 2.0)
    assert all(node.keeper.synced and node.keeper.view().converged for node in _up(world))
    print(count, {name: round(figure, 1) for name, figure in figures.items()})


def test_a_cut_between_two_of_many_is_no_news_for_the_others() -> None:
    """One that takes another for dead is not believed: it may have lost no more than its own link."""
    world = World(1, 30, seeds=SEEDS_NAMED)
    world.run(8.0)
    one = world.nodes["n0"]
    other = next(name for name in one.keeper.table.watched)
    world.network.cut |= {("n0", other), (other, "n0")}
    world.run(world.now + 4.0)
    assert _is(State.DEAD)(_seen(one, other))
    for _ in range(60):
        world.run(world.now + 0.1)
        assert all(_is(State.ALIVE)(_seen(node, other)) for node in _up(world) if node.name not in ("n0", other))
    world.network.cut.clear()
    assert _seconds_until_all(world, other, _is(State.ALIVE), within=30 / 2 * 0.5 + 1.0) > 0


def test_who_is_cut_off_concludes_nothing_and_is_known_again_after_the_heal() -> None:
    """A silent host takes those it watches for dead, one after the other, and is never sure of it; after the heal everybody
    is alive for everybody."""
    world = World(2, 30, seeds=SEEDS_NAMED)
    world.run(8.0)
    lonely = world.nodes["n7"]
    world.network.silent.add("n7")
    world.run(world.now + 1.5)
    for _ in range(200):
        world.run(world.now + 0.1)
        assert not lonely.keeper.may_repair
    _seconds_until_all(world, "n7", _is(State.DEAD), within=0.1)
    world.network.silent.clear()
    began = world.now
    while not all(_is(State.ALIVE)(_seen(a, b.name)) for a in _up(world) for b in _up(world)):
        world.run(world.now + 0.1)
        assert world.now - began < 15.0
    world.run(world.now + 3.0)
    assert all(node.keeper.synced and node.keeper.view().converged for node in _up(world))


def test_half_of_the_cluster_dies_at_once() -> None:
    """Also of those whose watchers have died with them the others learn."""
    world = World(3, 30, seeds=SEEDS_NAMED)
    world.run(8.0)
    for number in range(14):
        world.nodes[f"n{number + 3}"].crash()
    for number in range(14):
        _seconds_until_all(world, f"n{number + 3}", _is(State.DEAD), within=15.0)
    world.run(world.now + 2.0)
    assert all(node.keeper.view().converged for node in _up(world))


def test_a_name_that_nobody_answers_to_does_not_live_on_hearsay() -> None:
    """Everybody was told of it by everybody; those whose partner it would be find that it is dead, and are believed."""
    world = World(4, 30, seeds=SEEDS_NAMED)
    world.run(8.0)
    for node in _up(world):
        node.keeper.introduce(Member("ghost", "ghost", 10060, 5))
    _seconds_until_all(world, "ghost", _is(State.DEAD), within=DEATH_S)


@pytest.mark.parametrize("seed", range(2))
def test_a_flapping_member_costs_no_session(seed: int) -> None:
    """It is killed and started ten times a minute: nothing is lost, and its sessions move away once, not each time."""
    world = World(seed, 12, seeds=SEEDS_NAMED)
    world.run(8.0)
    sessions = Idle(world, 400)
    its = sum("n5" in owners for owners in sessions.owners.values())
    assert its > 40
    before = sum(node.duty.progress.moved for node in _up(world))
    died = 0
    for _ in range(10):
        files = world.nodes["n5"].crash()
        world.run(world.now + 3.6)
        died += any(_is(State.DEAD)(_seen(node, "n5")) for node in _up(world))
        world.nodes["n5"].start(files=files)
        world.run(world.now + 2.4)
    assert died == 10
    sessions.await_safe(15.0)
    assert sum(node.duty.progress.moved for node in _up(world)) - before <= 2 * its
    assert sessions.lost() == 0


@pytest.mark.parametrize("kinds", [("half cut",), ("cut", "half cut", "crash")], ids=["one way", "mixed"])
def test_cut_links_in_a_cluster_with_partners(kinds: tuple[str, ...]) -> None:
    """Twelve nodes, so that not everybody watches everybody: the outside checker finds nothing."""
    counts = 0
    for seed in range(4):
        result = run_seed(seed, seconds=30.0, nodes=12, kinds=kinds)
        assert not result.violations, (seed, result.violations)
        counts += result.counts["cut"]
    assert counts > 20


def _replaced(world: World, old: str, new: str) -> None:
    """A rollout: the new one joins, the old one hands over and goes for good."""
    world.join(new)
    world.run(world.now + 3.0)
    leaver = world.nodes[old]
    leaver.leave()
    began = world.now
    while leaver.duty.progress.owed != 0:
        world.run(world.now + 0.1)
        assert world.now - began < 20.0
    leaver.keeper.left()
    world.run(world.now + 0.5)
    world.remove(old)


def test_all_nodes_are_replaced_by_new_names_then_more_then_fewer() -> None:
    """Three nodes, each replaced by one with a new name and empty files; then twelve; then three of those. Sessions that
    nobody used open with their first IDs at every node."""
    world = World(5, 3, seeds=SEEDS_NAMED)
    world.run(5.0)
    sessions = Idle(world, 300)
    for number in range(3):
        _replaced(world, f"n{number}", f"m{number}")
    assert not set(world.nodes) & {"n0", "n1", "n2"}
    world.run(world.now + 3.0)
    assert sessions.lost() == 0
    for number in range(3, 12):
        world.join(f"m{number}")
    world.run(world.now + 6.0)
    more = Idle(world, 300)
    for number in range(9):
        leaver = world.nodes[f"m{number}"]
        leaver.leave()
        while leaver.duty.progress.owed != 0:
            world.run(world.now + 0.1)
        leaver.keeper.left()
        world.run(world.now + 0.5)
        world.remove(f"m{number}")
    assert sorted(world.nodes) == ["m10", "m11", "m9"]
    world.run(world.now + 3.0)
    assert (sessions.short(), more.short()) == (0, 0)
    assert (sessions.lost(), more.lost()) == (0, 0)


@pytest.mark.parametrize("away_s", [0.5, 6.0])
def test_a_new_host_under_the_name_of_a_dead_one(away_s: float) -> None:
    """It has empty files and is asked for what it never had: the other owners answer, whether its death was noticed or not;
    once it was, all sessions have two copies again."""
    world = World(6, 12, seeds=SEEDS_NAMED)
    world.run(8.0)
    sessions = Idle(world, 300)
    world.remove("n4")
    world.run(world.now + away_s)
    taken = SimulatedNode(world, "n4")
    taken.incarnation = 1000
    world.nodes["n4"] = taken
    taken.start(files=None)
    if away_s > DEATH_S - 3.0:
        sessions.await_safe(20.0)
    world.run(world.now + 3.0)
    assert taken.keeper.synced
    assert sessions.lost() == 0
