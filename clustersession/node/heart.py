"""The node's loops: heartbeats, the sync of a node that was away, and the sweep of what has expired."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Final

from ..config import Address, Timeouts
from ..core.calls import Beat, Unreachable
from ..core.findings import NAMESAKE
from ..core.keyring import KeyRing
from ..core.node import Member, State
from ..core.upkeep import Heard
from ..ports import AsyncTransport
from ..runtime.async_driver import AsyncDriver
from ..runtime.budget import Budget
from ..runtime.host import Host
from ..runtime.keeper import Keeper
from ..settings import check_same_secret, ring_fingerprint
from .discovery import Seeds
from .mending import Mending

SYNC_RETRY_S: Final = 0.25
UNREADY_S_MAX: Final = 10.0  # a sync after the first one, or that nobody is met, keeps a host out of a balancer's turn so long
_NOBODY: Final = ("refused", "timeout", "breaker")  # is at an address
SWEEP_EVERY_S: Final = 5.0
SWEEP_BATCH: Final = 200
BACKGROUND_S: Final = 3600.0  # of waiting for peers; each call has its own time-out
log: Final = logging.getLogger("clustersession.node")


class Heart:
    """Runs until cancelled. `ready` is set once this node may serve its copies by itself for the first time."""

    def __init__(
        self,
        keeper: Keeper,
        driver: AsyncDriver,
        transport: AsyncTransport,
        seeds: Seeds,
        ring: Callable[[], KeyRing],
        timeouts: Timeouts,
        mending: Mending,
    ) -> None:
        self._keeper, self._driver, self._transport = keeper, driver, transport
        self.mending = mending
        self._seeds, self._ring, self._timeouts = seeds, ring, timeouts
        self._taken: KeyRing | None = None
        self._beating: set[str] = set()
        self._own_addresses: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeted = asyncio.Event()
        self._unsynced_at: float | None = None
        self.ready = asyncio.Event()
        self.unmet: dict[str, str] = {}  # addresses of seeds where no member was found, and names without any; and why

    @property
    def host(self) -> Host:
        return self._keeper.host

    async def run(self) -> None:
        """All loops at once. A fault in one of them ends the node: half a node is worse than none."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat_for_ever())
            group.create_task(self._sync_for_ever())
            group.create_task(self._sweep_for_ever())
            group.create_task(self.mending.run())

    def debt(self) -> int | None:
        """Sessions that still need this node for their second copy; None while that is not known."""
        return self.mending.duty.debt

    def readiness(self) -> tuple[bool, str]:
        """Whether a balancer should send requests here, and why not. Never false for long: nobody may take out the last host."""
        if self._keeper.leaving:
            return False, "this host hands over its sessions and is about to end"
        if not self.ready.is_set():
            if self._keeper.synced and self._keeper.seeking:
                return False, f"nobody was met yet where CLUSTERSESSION_PEERS names others: {self._unmet_in_words()}"
            return False, "the first sync is not complete"
        if self._keeper.synced:
            return True, "ready"
        if self._unsynced_at is not None and self.host.clock() - self._unsynced_at >= UNREADY_S_MAX:
            return True, "ready, although copies are still being compared with those of other hosts"
        return False, "this host was paused or cut off, and compares its copies with those of other hosts"

    def _unmet_in_words(self) -> str:
        return ", ".join(f"{address} ({why})" for address, why in sorted(self.unmet.items())) or "no answer so far"

    # --- heartbeats ------------------------------------------------------------------------------------------------------

    async def _beat_for_ever(self) -> None:
        while True:
            self._take_ring(self._ring())
            self._keeper.tick()
            for member in self._keeper.peers():
                self._start(self._beat(member.identity), member.identity)
            self._start(self._greet(), "")
            await asyncio.sleep(self._timeouts.heartbeat_s * random.uniform(0.8, 1.0))  # noqa: S311  (jitter)

    def _take_ring(self, ring: KeyRing) -> None:
        """A ring that has changed is told to the peers, and to the workers of this host that start from now on."""
        if ring is not self._taken:
            store, self._taken = self.host.store, ring
            check_same_secret(store.board, store.set_board, ring_fingerprint(ring), is_node=True)
        self._keeper.announce(ring.kids)

    def _start(self, work: Coroutine[None, None, None], peer: str) -> None:
        """One heartbeat to a peer at a time: a slow one must not pile them up."""
        if peer in self._beating:
            work.close()
            return
        self._beating.add(peer)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, peer))

    def _done(self, task: asyncio.Task[None], peer: str) -> None:
        self._tasks.discard(task)
        self._beating.discard(peer)
        if not task.cancelled() and task.exception() is not None:
            log.error("heartbeat to %s failed", peer or "a seed", exc_info=task.exception())

    async def _beat(self, peer: str) -> None:
        sent = self.host.clock()
        outcome = await self._driver.run(self._keeper.beat(peer), Budget(BACKGROUND_S))
        before = self._keeper.view().get(peer)
        self._keeper.after_beat(peer, sent, outcome)
        after = self._keeper.view().get(peer)
        if before is not None and after is not None and before.state is not after.state:
            log.info("%s is %s now", peer, after.state)
            self._keeper.tick()  # the workers see it at once

    async def _greet(self) -> None:
        """Meet the seeds that are no members: who they are is learnt from their answer. Who has left may be back, perhaps with
        settings with which it is not let in."""
        members = self._keeper.view().members.values()
        known = {(member.host, member.port) for member in members if member.state not in (State.DEAD, State.LEFT)}
        left = {(member.host, member.port) for member in members if member.state is State.LEFT}
        addresses = await self._seeds.addresses(self.host.clock())
        strangers = addresses - known - self._own_addresses
        failed = await asyncio.gather(*(self._meet(host, port) for host, port in strangers))
        whys = {at: why for at, why in zip(strangers, failed, strict=True) if why and not (at in left and why in _NOBODY)}
        self.unmet = {**self._seeds.unresolved, **{str(Address(host=h, port=p)): why for (h, p), why in whys.items()}}
        if not self.unmet and self._keeper.seeking:
            self._keeper.found_to_be_alone()
        self._greeted.set()

    async def _meet(self, host: str, port: int) -> str | None:
        """Why nobody was met there."""
        stranger = Member("", host, port, 0)
        sent, before = self.host.clock(), self._keeper.me.incarnation
        deadline = asyncio.get_running_loop().time() + self._timeouts.request_s
        reply = await self._transport.ask(stranger, self._keeper.heartbeat(), deadline)
        if not isinstance(reply, Beat):
            return reply.why if isinstance(reply, Unreachable) else type(reply).__name__.lower()
        if reply.sender.identity == self.host.me:
            return self._met_itself(host, port, before <= reply.sender.incarnation <= self._keeper.me.incarnation)
        # its hints are taken with the first heartbeat to it as a member, so this one grants no lease
        self._keeper.after_beat(reply.sender.identity, sent, Heard(reply.sender, reply.members, told_all=False))
        self._keeper.tick()  # the workers know the new member at once
        log.info("met %s at %s:%d", reply.sender.identity, host, port)
        return None

    def _met_itself(self, host: str, port: int, itself: bool) -> str | None:
        """Or another node that has the same name, which is asked again: it may get its own."""
        if itself:
            self._own_addresses.add((host, port))
            return None
        if self.unmet.get(str(Address(host=host, port=port))) != NAMESAKE:
            log.error(
                "another node at %s:%d calls itself %r as this one does: give each host its own CLUSTERSESSION_NODE",
                host, port, self.host.me,
            )  # fmt: skip
        return NAMESAKE

    # --- sync ------------------------------------------------------------------------------------------------------------

    async def _sync_for_ever(self) -> None:
        began = self.host.clock()
        await self._greeted.wait()
        while True:
            if self._keeper.synced:
                self._unsynced_at = None
                if not self._keeper.seeking or self.host.clock() - began >= UNREADY_S_MAX:
                    self.ready.set()
            else:
                self._unsynced_at = self.host.clock() if self._unsynced_at is None else self._unsynced_at
                if self._keeper.settled and await self._driver.run(self._keeper.sync(), Budget(BACKGROUND_S)):
                    self._keeper.sync_done()
                    log.info("synced")
                    continue
            await asyncio.sleep(SYNC_RETRY_S)

    # --- expiry ------------------------------------------------------------------------------------------------------------

    async def _sweep_for_ever(self) -> None:
        """In small batches with pauses, and never at the same second as the other nodes."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311  (jitter)
            while await self._driver.run(self._keeper.sweep(SWEEP_BATCH), Budget(BACKGROUND_S)) == SWEEP_BATCH:
                await asyncio.sleep(0.01)
