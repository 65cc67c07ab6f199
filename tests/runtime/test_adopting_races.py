"""Two requests that bring a session of before at the same time, on two hosts: one of them stores it, for both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from clustersession.core import calls
from clustersession.core.calls import Call, Conflict, Held, Put, Reply
from clustersession.core.effects import Ask, AskAll, Hedge, Operation, Tell
from clustersession.core.encoding import WITH_TIMES, moved_to_clock
from clustersession.core.operations import Claim, Cluster, Loaded, Unavailable, adopt, first_record, kept, put
from clustersession.core.record import WAITING, Key, Lifetime, Record, live_items
from clustersession.testing.simulated import SimulatedNode, World

from ..core.records import patch

SESSION, GUARD, IDLE_S = b"s" * 16, b"g" * 16, 1800.0


class Paused(NamedTuple):
    """An operation that is about to make this call."""

    operation: Operation[Any]
    ask: Ask


@pytest.fixture
def world() -> World:
    """Three hosts that know each other; what they ask goes by hand, so that tests choose the order."""
    made = World(3, 3, on_wire=False)
    made.run(6.0)
    return made


def cluster(node: SimulatedNode) -> Cluster:
    return Cluster(node.keeper.view())


def asked(world: World, source: SimulatedNode, ask: Ask | Tell) -> Reply:
    """What the other host says, with its times moved as on the wire."""
    target = world.nodes[ask.node]
    if target is source:
        return source.host.handle(ask.call)
    there = _moved(_moved(ask.call, -source.clock()), target.clock())
    reply: Reply = _moved(_moved(target.keeper.on_call(there, source.name), -target.clock()), source.clock())
    return reply


def _moved(message: Any, by: float) -> Any:
    return moved_to_clock(message, by) if type(message) in WITH_TIMES else message


Until = Callable[[Call], bool]


def run(world: World, source: SimulatedNode, operation: Operation[Any], *, until: Until | None = None, answer: Any = None) -> Any:
    """Its outcome, or where it was stopped."""
    try:
        while True:
            effect = operation.send(answer)
            if until is not None and isinstance(effect, Ask) and until(effect.call):
                return Paused(operation, effect)
            match effect:
                case Ask() | Tell():
                    answer = asked(world, source, effect)
                case AskAll() | Hedge():
                    answer = tuple(asked(world, source, ask) for ask in effect.asks)
                case _:
                    answer = None  # a pause: nothing happens meanwhile
    except StopIteration as stop:
        return stop.value


def of(node: SimulatedNode, key: Key, number: int, items: dict[str, bytes | None], idle_s: float | None = None) -> Record:
    now, made = node.clock(), msgspec.structs.replace(patch(number), changes=items)
    return first_record(cluster(node), key, now=now, patch=made, created=now, lifetime=Lifetime(idle_s))


def storing(call: Call) -> bool:
    return isinstance(call, Put) and call.key != GUARD


def copies(world: World, key: Key) -> list[tuple[dict[str, bytes], int]]:
    """What the hosts that hold it would show of it, and its version."""
    held: Iterable[Record | None] = (node.host.record(key) for node in world.nodes.values())
    return [(live_items(record), record.version) for record in held if record is not None and not record.pointer]


def test_a_request_beside_an_import_takes_what_was_stored(world: World) -> None:
    """It had found nothing a moment before. What it shows is what is there: also that the import waits for its user."""
    here, there = world.nodes["n0"], world.nodes["n1"]
    claims = (Claim(SESSION, GUARD),)
    imported = of(here, SESSION, 1, {"cart": b"old"}).but(extra={WAITING: msgspec.Raw(b"\xc3")})
    request = adopt(cluster(there), claims, of(there, SESSION, 2, {"cart": b"new"}, IDLE_S), of(there, GUARD, 8, {}))
    stopped = run(world, there, request, until=storing)
    assert run(world, here, adopt(cluster(here), claims, imported, of(here, GUARD, 9, {}))).new
    reply = asked(world, there, stopped.ask)
    assert isinstance(reply, Conflict)
    adopted = run(world, there, request, answer=reply)
    assert not adopted.new
    assert (live_items(adopted.outcome.record), adopted.outcome.record.lifetime.idle) == ({"cart": b"old"}, None)
    assert adopted.outcome.record.extra == imported.extra
    assert copies(world, SESSION) == [({"cart": b"old"}, 1)] * 2


FIRST, SECOND = 0, 1
ORDERS: Final = {
    "one after the other": (FIRST, FIRST, SECOND),
    "the second overtakes": (FIRST, SECOND, FIRST),
    "the second is through first": (FIRST, SECOND, SECOND, SECOND, SECOND, FIRST),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_however_two_of_them_overlap_both_owners_hold_the_same(world: World, order: tuple[int, ...]) -> None:
    """And both requests show it: one stays at the master, and the other one finds that, on two hosts."""
    nodes = [world.nodes["n0"], world.nodes["n1"]]
    records = [of(node, SESSION, number, {"mine": bytes([number])}) for number, node in enumerate(nodes)]
    running: list[Any] = [
        run(world, node, kept(cluster(node), SESSION, each), until=storing) for node, each in zip(nodes, records, strict=True)
    ]
    for which in (*order, FIRST, FIRST, SECOND, SECOND, SECOND, SECOND):
        stopped = running[which]
        if isinstance(stopped, Paused):
            reply = asked(world, nodes[which], stopped.ask)
            running[which] = run(world, nodes[which], stopped.operation, until=storing, answer=reply)
    assert [live_items(each.record) for each in running if isinstance(each, Loaded)] == [{"mine": bytes([FIRST])}] * 2
    assert copies(world, SESSION) == [({"mine": bytes([FIRST])}, 1)] * 2


def test_whoever_takes_what_another_has_stored_brings_it_to_its_backup(world: World) -> None:
    """The host that stored it dies before it can: what a second request shows must not be on one host alone."""
    here, there = world.nodes["n0"], world.nodes["n1"]
    late = run(world, there, kept(cluster(there), SESSION, of(there, SESSION, 2, {"mine": b"2"})), until=storing)
    stopped = run(world, here, kept(cluster(here), SESSION, of(here, SESSION, 1, {"mine": b"1"})), until=storing)
    assert asked(world, here, stopped.ask) == Held(1)
    assert copies(world, SESSION) == [({"mine": b"1"}, 1)]
    shown = run(world, there, late.operation, answer=asked(world, there, late.ask))
    assert live_items(shown.record) == {"mine": b"1"}
    assert copies(world, SESSION) == [({"mine": b"1"}, 1)] * 2


def test_of_two_first_changes_both_are_kept(world: World) -> None:
    """A user logs out on two devices at once, and nothing was stored of any logout before."""
    nodes = [world.nodes["n0"], world.nodes["n1"]]
    records = [of(node, SESSION, 7 + n, {f"device {n}": b"1"}) for n, node in enumerate(nodes)]
    changes = [msgspec.structs.replace(patch(7 + n), changes={f"device {n}": b"1"}) for n in (0, 1)]
    changed = [functools.partial(lambda change, held: change, each) for each in changes]
    stopped = [
        run(world, node, put(cluster(node), SESSION, records[n], changed[n]), until=storing) for n, node in enumerate(nodes)
    ]
    answers = [asked(world, node, each.ask) for node, each in zip(nodes, stopped, strict=True)]
    done = [
        run(world, nodes[n], stopped[n].operation, answer=answers[n])
        for n in (1, 0)  # the first one's backup hears of it last
    ]
    assert done == [True, True]
    assert copies(world, SESSION) == [({"device 0": b"1", "device 1": b"1"}, 2)] * 2


def test_a_copy_that_its_master_has_lost_is_what_counts(world: World) -> None:
    """The master came back without its files between two that store it: what the first one's backup holds was acked, so that
    of the second one gives way to it, and no owner has another copy."""
    here = world.nodes["n0"]
    acked = of(here, SESSION, 1, {"mine": b"1"})
    master, backup = (world.nodes[str(owner)] for owner in acked.owners)
    assert backup.host.handle(Put(SESSION, acked)) == Held(1)
    outcome = run(world, here, kept(cluster(here), SESSION, of(here, SESSION, 2, {"mine": b"2"})))
    assert isinstance(outcome, Loaded | Unavailable)
    world.run(world.now + 5.0)
    assert [items for items, _ in copies(world, SESSION)] == [{"mine": b"1"}] * 2
    left = master.host.record(SESSION)
    assert left is None or left.pointer or live_items(left) == {"mine": b"1"}


def test_storing_the_same_again_is_no_conflict(world: World) -> None:
    """A call that is repeated as its answer was lost, at once or after others have written."""
    here = world.nodes["n0"]
    first = of(here, SESSION, 1, {"mine": b"1"})
    for owner in (*first.owners, *first.owners):
        assert asked(world, here, Ask(str(owner), Put(SESSION, first))) == Held(1)
    assert isinstance(run(world, here, kept(cluster(here), SESSION, first)), Loaded)
    change = patch(2, None, mine=b"2")
    assert run(world, here, put(cluster(here), SESSION, first, lambda held: change)) is True
    assert [asked(world, here, Ask(str(owner), calls.Put(SESSION, first))) for owner in first.owners] == [Held(2)] * 2
