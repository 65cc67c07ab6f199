"""What a node says to a balancer: send requests here, or not yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from clustersession.core.calls import Call, Reply, Unreachable
from clustersession.core.findings import NAMESAKE
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member, State
from clustersession.middleware.assembly import NoAsyncPeers
from clustersession.node.discovery import RESOLVE_EVERY_S, Seeds
from clustersession.node.heart import SYNC_RETRY_S, UNREADY_S_MAX, Heart
from clustersession.node.mending import Mending
from clustersession.ports import Outgoing
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
async def beating(
    ring: Callable[[], KeyRing] = lambda: RING, *, seeds: tuple[str, ...] = (), peers: NoAsyncPeers | None = None
) -> AsyncIterator[tuple[Fixture, Stuck, Heart]]:
    """A host with its loops running, alone or among `peers`."""
    fixture = Fixture()
    keeper = Stuck(fixture.host, member("a"), TIMEOUTS, seeking=bool(seeds))
    peers = peers or NoAsyncPeers()
    if isinstance(peers, Peers):
        peers.itself = keeper
    driver = AsyncDriver(fixture.host, peers, peers.hedge_delay)
    heart = Heart(keeper, driver, peers, Seeds(seeds), ring, TIMEOUTS, Mending(Duty(keeper), driver))
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


class Peers(NoAsyncPeers):
    """At each of these ports the node of that name answers, or this one itself; at others the connection is refused."""

    def __init__(self, **names: str) -> None:
        self.why = "refused"
        self.asked: list[Call] = []
        by_port = {int(port.removeprefix("at_")): name for port, name in names.items()}
        self.itself: Keeper | None = None
        self.itself_at = {port for port, name in by_port.items() if name == "itself"}
        self._at = {port: self._keeper(name) for port, name in by_port.items() if name != "itself"}

    @staticmethod
    def _keeper(name: str) -> Keeper:
        fixture = Fixture()
        fixture.host.me = name
        keeper = Keeper(fixture.host, Member(name, "127.0.0.1", 7, 999), TIMEOUTS)
        keeper.sync_done()
        return keeper

    def rename(self, port: int, name: str) -> None:
        self._at[port] = self._keeper(name)

    def leave(self, port: int, why: str) -> list[Call]:
        """From now on nobody answers there; what it is asked."""
        del self._at[port]
        self.why, self.asked = why, []
        return self.asked

    def tell_last_word(self, port: int, to: Keeper) -> None:
        self._at[port].leave()
        self._at[port].left()
        to.on_call(self._at[port].heartbeat("a"), None)

    async def ask(self, member: Member, call: Call, deadline: float) -> Reply:  # type: ignore[override]
        self.asked.append(call)
        if member.port in self.itself_at:
            assert self.itself is not None
            return self.itself.on_call(call, "a")
        return self._at[member.port].on_call(call, "a") if member.port in self._at else Unreachable(self.why)

    async def exchange(  # type: ignore[override]
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        return [await self.ask(each.member, each.call, deadline) for each in batch]


def test_a_node_that_meets_none_of_the_seeds_is_not_ready_for_ten_seconds() -> None:
    """It may be the first of a new cluster, or have no way to the others: then no balancer should send users here. Whom it
    looks for is said."""

    async def scenario() -> None:
        async with beating(seeds=("127.0.0.1:7",)) as (fixture, keeper, heart):
            await until(lambda: keeper.synced)
            began = fixture.clock.now
            ready, why = heart.readiness()
            assert not ready
            assert "CLUSTERSESSION_PEERS" in why
            assert "127.0.0.1:7" in why
            assert not keeper.view().converged
            fixture.clock.now += UNREADY_S_MAX - 0.1
            await asyncio.sleep(2 * SYNC_RETRY_S)  # what would set it has looked again
            assert not heart.readiness()[0]
            fixture.clock.now = began + UNREADY_S_MAX
            await until(lambda: heart.readiness()[0])
            assert not keeper.view().converged  # a session that it does not find may be with the others for a minute

    asyncio.run(scenario())


@pytest.mark.parametrize("there", [{"at_7": "b"}, {"at_7": "b", "at_8": "itself"}, {"at_7": "itself", "at_8": "itself"}], ids=str)
def test_a_node_that_has_met_a_seed_or_only_itself_is_ready_at_once(there: dict[str, str]) -> None:
    """The other seeds may be down; and who finds only itself at all addresses is alone on purpose."""
    peers = Peers(**there)

    async def scenario() -> None:
        async with beating(seeds=("127.0.0.1:7", "127.0.0.1:8"), peers=peers) as (_, keeper, heart):
            await until(lambda: not keeper.seeking)
            await until(heart.ready.is_set)

    asyncio.run(scenario())


def test_a_name_that_does_not_resolve_is_unmet_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The doctor shows it, and the log."""

    async def scenario() -> None:
        async with beating(seeds=("app.invalid:7",)) as (fixture, _, heart):
            await until(lambda: "app.invalid:7" in heart.unmet)
            fixture.clock.now += 2 * RESOLVE_EVERY_S
            await asyncio.sleep(2 * TIMEOUTS.heartbeat_s)  # it is looked up again
            assert list(heart.unmet) == ["app.invalid:7"]

    asyncio.run(scenario())
    assert len([each for each in caplog.records if "app.invalid:7" in each.getMessage()]) == 1


def test_another_node_of_the_same_name_is_unmet_for_that_reason_until_it_is_renamed(caplog: pytest.LogCaptureFixture) -> None:
    """It is asked again, so that the doctor stops to complain; the log says it once."""
    peers = Peers(at_7="a")

    async def scenario() -> None:
        async with beating(seeds=("127.0.0.1:7",), peers=peers) as (_, keeper, heart):
            await until(lambda: heart.unmet == {"127.0.0.1:7": NAMESAKE})
            assert keeper.seeking  # nobody of the cluster was met
            await asyncio.sleep(2 * TIMEOUTS.heartbeat_s)  # it is asked again
            peers.rename(7, "b")
            await until(lambda: not heart.unmet and "b" in keeper.view().members)

    asyncio.run(scenario())
    assert len([each for each in caplog.records if "calls itself" in each.getMessage()]) == 1


@pytest.mark.parametrize(("why", "unmet"), [("refused", {}), ("timeout", {}), ("auth", {"127.0.0.1:7": "auth"})])
def test_who_left_is_asked_at_its_address_whether_it_is_back(why: str, unmet: dict[str, str]) -> None:
    """It may come back with another secret, which the doctor must know; that nobody is there is as it should be."""
    peers = Peers(at_7="b")

    async def scenario() -> None:
        async with beating(seeds=("127.0.0.1:7",), peers=peers) as (_, keeper, heart):
            await until(lambda: not keeper.seeking)
            peers.tell_last_word(7, keeper)
            asked = peers.leave(7, why)
            await until(lambda: len(asked) > 1)
            assert keeper.view().members["b"].state is State.LEFT
            assert heart.unmet == unmet

    asyncio.run(scenario())
