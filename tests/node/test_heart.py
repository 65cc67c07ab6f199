"""What a node says to a balancer: send requests here, or not yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from clustersession.core.keyring import KeyRing
from clustersession.middleware.assembly import NoAsyncPeers
from clustersession.node.discovery import Seeds
from clustersession.node.heart import UNREADY_S_MAX, Heart
from clustersession.node.mending import Mending
from clustersession.runtime.async_driver import AsyncDriver
from clustersession.runtime.duty import Duty
from clustersession.runtime.keeper import Keeper
from clustersession.settings import new_key, ring_fingerprint
from clustersession.settings.ring import FINGERPRINT_BOARD

from ..core.records import member
from ..runtime.hosts import RING, TIMEOUTS, Fixture

DEADLINE_S = 5.0


class Stuck(Keeper):
    """A keeper whose syncs can be kept from beginning, as by a peer of which nobody knows whether it is there."""

    held_up = False

    @property
    def settled(self) -> bool:
        return not self.held_up and super().settled


@asynccontextmanager
async def beating(ring: Callable[[], KeyRing] = lambda: RING) -> AsyncIterator[tuple[Fixture, Stuck, Heart]]:
    """A host that is alone, with its loops running."""
    fixture = Fixture()
    keeper = Stuck(fixture.host, member("a"), TIMEOUTS)
    peers = NoAsyncPeers()
    driver = AsyncDriver(fixture.host, peers, peers.hedge_delay)
    heart = Heart(keeper, driver, peers, Seeds(()), ring, TIMEOUTS, Mending(Duty(keeper), driver))
    loops = asyncio.create_task(heart.run())
    try:
        yield fixture, keeper, heart
    finally:
        loops.cancel()
        await asyncio.gather(loops, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_node_is_ready_after_its_first_sync() -> None:
    """Before it is, it says why."""

    async def scenario() -> None:
        async with beating() as (_, _, heart):
            assert heart.readiness() == (False, "the first sync is not complete")
            await until(lambda: heart.readiness() == (True, "ready"))

    asyncio.run(scenario())


def test_a_node_that_was_paused_is_not_ready_until_it_has_compared_its_copies() -> None:
    """Others may have changed or ended what it holds; then it is at once."""

    async def scenario() -> None:
        async with beating() as (_, keeper, heart):
            await until(heart.ready.is_set)
            keeper.held_up = True
            keeper.unsync()
            ready, why = heart.readiness()
            assert not ready
            assert "paused or cut off" in why
            keeper.held_up = False
            await until(lambda: heart.readiness() == (True, "ready"))

    asyncio.run(scenario())


def test_a_sync_that_does_not_end_takes_no_host_out_for_long() -> None:
    """It may be the last one that serves."""

    async def scenario() -> None:
        async with beating() as (fixture, keeper, heart):
            await until(heart.ready.is_set)
            keeper.held_up = True
            keeper.unsync()
            began = fixture.clock.now
            assert not heart.readiness()[0]
            await until(lambda: ready_a_second_later(fixture, heart))
            assert not keeper.synced
            assert fixture.clock.now - began >= UNREADY_S_MAX

    def ready_a_second_later(fixture: Fixture, heart: Heart) -> bool:
        fixture.clock.now += 1.0
        return heart.readiness()[0]

    asyncio.run(scenario())


def test_what_names_the_keys_of_the_host_follows_the_ring() -> None:
    """Each new worker is compared with it: after a change of the ring it must not be refused."""
    rings = [RING]

    async def scenario() -> None:
        async with beating(lambda: rings[0]) as (fixture, _, _):
            await until(lambda: fixture.store.board(FINGERPRINT_BOARD) == ring_fingerprint(RING).encode())
            rings[0] = KeyRing.parse(new_key(2))
            await until(lambda: fixture.store.board(FINGERPRINT_BOARD) == ring_fingerprint(rings[0]).encode())

    asyncio.run(scenario())
