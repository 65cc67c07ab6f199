"""The canaries that a node sends: to whom, and one round at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from clustersession.config import Timeouts
from clustersession.core.calls import Call, Reply, Unreachable
from clustersession.core.node import Member, State
from clustersession.node.touring import ALL_PAIRS_MAX, SAMPLED, Tours
from clustersession.ports import Outgoing
from clustersession.runtime.async_driver import AsyncDriver
from clustersession.runtime.keeper import Keeper
from tests.runtime.hosts import Fixture


class Silent:
    """A transport over which nobody answers; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        self.asked.append(member.identity)
        return Unreachable("timeout")

    async def exchange(self, batch: Any, deadline: float, enough: Any = None) -> list[Reply | None]:
        members: list[Outgoing] = list(batch)
        return [await self.ask(each.member, each.call, deadline) for each in members]

    def tell(self, member: Member, call: Call) -> None:
        """Nobody hears it."""

    async def close(self) -> None:
        """Nothing is open."""


def tours(*others: Member) -> tuple[Tours, Keeper]:
    keeper = Keeper(Fixture().host, Member("a", "10.0.0.1", 10060, 1), Timeouts())
    for other in others:
        keeper.introduce(other)
    keeper.tick()
    return Tours(keeper, AsyncDriver(keeper.host, Silent(), lambda _: 0.01)), keeper


def member(number: int, state: State = State.ALIVE) -> Member:
    return Member(f"n{number}", "10.0.0.2", 10060, 1, "", state)


async def nothing() -> None:
    """There is nothing to do first."""


def sent_to(*others: Member) -> list[str]:
    async def run() -> list[str]:
        made, _ = tours(*others)
        made.begin(nothing)
        while made.ended < made.begun:
            await asyncio.sleep(0.001)
        return [each.backup for each in made.canaries]

    return asyncio.run(run())


def test_up_to_twelve_nodes_every_pair_is_tried() -> None:
    """Each node has its part of them."""
    others = [member(number) for number in range(ALL_PAIRS_MAX - 1)]
    assert sorted(sent_to(*others)) == sorted(each.identity for each in others)


def test_of_more_a_few_are_drawn() -> None:
    """No more calls from a node, however large the cluster is."""
    others = [member(number) for number in range(60)]
    drawn = sent_to(*others)
    assert len(drawn) == len(set(drawn)) == SAMPLED
    assert set(drawn) <= {each.identity for each in others}


def test_who_leaves_gets_no_canary() -> None:
    """It takes nothing new, and that is no fault."""
    assert sent_to(member(1), member(2, State.LEAVING)) == ["n1"]


def test_a_node_that_leaves_sends_none() -> None:
    """It makes no sessions any more."""

    async def run() -> tuple[int, int]:
        made, keeper = tours(member(1))
        keeper.leave()
        made.begin(nothing)
        while made.ended < made.begun:
            await asyncio.sleep(0.001)
        return made.ended, len(made.canaries)

    assert asyncio.run(run()) == (1, 0)


def test_who_asks_during_a_round_gets_that_one() -> None:
    """However many doctors ask, a node sends its canaries once; the next who asks has a new round."""

    async def run() -> list[tuple[int, int]]:
        made, _ = tours(member(1))
        go_on = asyncio.Event()

        async def held_up() -> None:
            await go_on.wait()

        seen = []
        for _ in range(3):
            made.begin(held_up)
            seen.append((made.begun, made.ended))
        go_on.set()
        while made.ended < made.begun:
            await asyncio.sleep(0.001)
        made.begin(nothing)
        seen.append((made.begun, made.ended))
        await made.close()
        return seen

    assert asyncio.run(run()) == [(1, 0), (1, 0), (1, 0), (2, 1)]


def test_a_canary_that_fails_is_told_of() -> None:
    """The step, where, and why."""

    async def run() -> tuple[str | None, str | None, str | None]:
        made, keeper = tours(member(1))
        made.begin(nothing)
        while made.ended < made.begun:
            await asyncio.sleep(0.001)
        assert keeper.host.store.stats().entries == 0, "it is still here"
        (canary,) = made.canaries
        return canary.step, canary.at, canary.why

    assert asyncio.run(run()) == ("create", "n1", "timeout")
