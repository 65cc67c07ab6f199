"""The node's own process: answers peers, keeps the member table, writes the blackboard for the workers of this host."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from .. import hostclock
from ..config import Address, Config
from ..core.keyring import KeyRing
from ..core.node import Member
from ..core.session_id import node_tag
from ..errors import ConfigError, StoreRefused
from ..runtime.async_driver import AsyncDriver
from ..runtime.board import write_board
from ..runtime.counters import Counters
from ..runtime.duty import Duty
from ..runtime.host import Host
from ..runtime.keeper import Keeper
from ..runtime.keys import CurrentSealer
from ..runtime.switching import ModeSwitch
from ..settings import RingSource, check_same_secret, process_environ, ring_fingerprint
from ..store import LmdbStore, NodeLock, open_store, place_for
from ..transport.asynchronous import AsyncioTransport
from ..transport.server import PeerServer
from ..transport.wiring import Wiring
from .admin import AdminListener, Sources
from .chronicle import Chronicle
from .discovery import Seeds, advertised
from .doctor import Doctor
from .draining import Orders, drained
from .examining import Examiner
from .explaining import Explainer
from .heart import Heart
from .mending import Mending
from .notify import READY, announce
from .touring import Tours

AWAY_MAX_S: Final = 24 * 3600.0  # tombstones are kept for 25 h: who was away for longer may have missed one
COLLECTOR: Final = (20_000, 20, 20)  # of Python's cycles; the default is (700, 10, 10)
log: Final = logging.getLogger("clustersession.node")


class _Entropy:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


def run(config: Config, *, drains: bool = True, serving: Callable[[], object] = lambda: None) -> int:
    """Run the node until SIGTERM or SIGINT; the exit code. `drains`: it hands over its sessions before it ends; `serving` is
    called once it listens.

    Raises `ConfigError` and `StoreRefused` before it serves.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("clustersession").setLevel(logging.INFO)
    place = place_for(config, process_environ())
    store = open_store(config, process_environ())
    if not isinstance(store, LmdbStore):
        raise ConfigError(
            "CLUSTERSESSION_STORE", "a node shares its store with the workers, and 'memory' cannot be shared", "Unset it."
        )
    lock = NodeLock(place)
    if not lock.acquire():
        raise StoreRefused(f"process {lock.holder()} is already the node of {place}; two must never run on one set of files")
    try:
        node = _Node(config, store, drains=drains, serving=serving)
        _spare_collector()
        return asyncio.run(node.run())
    finally:
        store.close()
        lock.release()


def _spare_collector() -> None:
    """What is loaded stays until the end, and records hold no cycles: to look for cycles in all of it every few hundred records
    would take a fifth of the time of a repair, and 20 ms at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


class _Node:
    """Everything of one node, put together."""

    def __init__(self, config: Config, store: LmdbStore, *, drains: bool, serving: Callable[[], object]) -> None:
        self.config, self._drains, self._serving = config, drains, serving
        self.counters = Counters()
        self.ring = RingSource(config, hostclock.now)
        check_same_secret(store.board, store.set_board, ring_fingerprint(self.ring()), is_node=True)
        self.host = Host(
            config.node,
            store,
            CurrentSealer(self.ring, config.cluster),
            clock=hostclock.now,
            entropy=_Entropy(),
            observer=self.counters,
            limits=config.limits,
            timeouts=config.timeouts,
        )
        self.switch = ModeSwitch(store, self.ring, config.cluster)
        self._discard_old(store)
        self.chronicle = Chronicle(store, self.counters, hostclock.now)
        self.keeper: Keeper | None = None
        self.heart: Heart | None = None
        self.examiner: Examiner | None = None

    def _discard_old(self, store: LmdbStore) -> None:
        away = hostclock.now() - self.host.board.tick
        if AWAY_MAX_S < away < float("inf"):
            log.warning("this node was away for %.0f h: its files are discarded, the other owners have the sessions", away / 3600)
            store.wipe()
        elif self.host.board.synced:  # of the process before, at once: workers may have started already and believe it
            write_board(store, msgspec.structs.replace(self.host.board, synced=False))

    async def run(self) -> int:
        orders = Orders()
        wiring = self._wiring()
        server = PeerServer(lambda call, source: self._examiner().on_call(call, source), wiring)
        address = await self._listening(server)
        me = self._member(address)
        self.keeper = Keeper(self.host, me, self.config.timeouts, switch=self.switch, seeking=bool(self.config.peers))
        transport = AsyncioTransport(wiring)
        driver = AsyncDriver(self.host, transport, transport.hedge_delay)
        mending = Mending(Duty(self.keeper, min_copies=self.config.min_copies), driver)
        seeds = Seeds(self.config.peers)
        self.heart = Heart(self.keeper, driver, transport, seeds, self.ring, self.config.timeouts, mending)
        tours = Tours(self.keeper, driver)
        self.examiner = Examiner(self.config, self.keeper, tours, self.chronicle, self.ring, self.heart)
        doctor = Doctor(self.config.cluster, self.keeper, self.examiner, transport)
        admin = await self._admin(orders, Explainer(self.keeper, driver), doctor)
        self._serving()
        log.info("node %s of cluster %r at %s:%d", me.identity, self.config.cluster, me.host, me.port)
        try:
            return await self._serve(orders, self.heart)
        finally:
            await tours.close()
            await server.stop()
            await transport.close()
            if admin is not None:
                await admin.close()

    async def _serve(self, orders: Orders, heart: Heart) -> int:
        """Until it is told to end, and nothing is owed then or time is up. A fault in the heart ends it at once."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(heart.run())
            recording = group.create_task(self.chronicle.run())
            ready = group.create_task(heart.ready.wait())
            await self._announced(orders, ready)
            code = await self._ended(orders, heart)
            for task in (beating, recording, ready):
                task.cancel()
        return code

    async def _announced(self, orders: Orders, ready: asyncio.Task[bool]) -> None:
        """Late rather than never: a slow peer must not keep the app from starting."""
        told = asyncio.create_task(orders.leave.wait())
        await asyncio.wait({ready, told}, return_when=asyncio.FIRST_COMPLETED, timeout=self.config.timeouts.ready_s / 2)
        told.cancel()
        announce(READY, process_environ())

    async def _ended(self, orders: Orders, heart: Heart) -> int:
        await orders.leave.wait()
        if not self._drains:
            await orders.end.wait()
            return 0
        return await drained(self._keeper(), heart.mending, orders, self.config.timeouts.drain_s)

    def _wiring(self) -> Wiring:
        config = self.config
        return Wiring(
            me=lambda: self._keeper().me,
            ring=self.ring,
            cluster=config.cluster,
            limits=config.limits,
            timeouts=config.timeouts,
            clock=hostclock.now,
            entropy=_Entropy(),
            observer=self.counters,
            tls=config.tls,
        )

    def _examiner(self) -> Examiner:
        assert self.examiner is not None, "the server listens before the examiner exists, but its loop runs only after"
        return self.examiner

    def _keeper(self) -> Keeper:
        assert self.keeper is not None, "the server listens before the keeper exists, but its loop runs only after"
        return self.keeper

    async def _listening(self, server: PeerServer) -> Address:
        try:
            return await server.start(self.config.listen)
        except OSError as error:
            problem = f"cannot listen on {self.config.listen} ({error.strerror})"
            raise ConfigError("CLUSTERSESSION_LISTEN", problem, "Give this node a free address of its own.") from error

    def _member(self, address: Address) -> Member:
        at = advertised(self.config, address.port)
        incarnation = max(int(time.time() * 1000), self.host.board.incarnation + 1)
        return Member(self.config.node, at.host, at.port, incarnation, self.config.zone, kids=self.ring().kids)

    # --- the control listener ----------------------------------------------------------------------------------------------

    async def _admin(self, orders: Orders, explain: Explainer, doctor: Doctor) -> AdminListener | None:
        if self.config.admin_listen is None:
            return None
        admin = AdminListener(
            self.config.admin_listen,
            self.config.admin_token,
            Sources(self._status, self._ready, self._samples, orders.leave.set, explain, doctor, self._switch_to),
        )
        await admin.start()
        return admin

    def _ordered(self) -> Mapping[str, Any] | None:
        switch = self.switch.current()
        return None if switch is None else {name: getattr(switch, name) for name in switch.__struct_fields__}

    def _switch_to(self, mode: str, percent: int) -> None:
        switch = self.switch.order(mode, percent, time.time(), self.config.node)
        log.warning("the cluster was switched here to %s, %d per cent (order %d)", mode, percent, switch.serial)

    def _ready(self) -> tuple[bool, str]:
        assert self.heart is not None
        return self.heart.readiness()

    def _status(self) -> Mapping[str, Any]:
        keeper = self._keeper()
        stats = self.host.store.stats()
        return {
            "node": self.config.node,
            "cluster": self.config.cluster,
            "synced": keeper.synced,
            "converged": keeper.view().converged,
            "leaving": keeper.leaving,
            "debt": self._debt(),
            "mode": self.switch.in_force(self.config),
            "switch": self._ordered(),
            "members": [_described(member, self.ring()) for member in keeper.view().members.values()],
            "store": stats._asdict(),
            "refused": self.chronicle.refused(),
        }

    def _debt(self) -> int | None:
        """Sessions that still need this node for their second copy; None while that is not known."""
        assert self.heart is not None
        return self.heart.debt()

    def _samples(self) -> Mapping[str, int | float]:
        stats = self.host.store.stats()
        members = self._keeper().view().members.values()
        gauges: dict[str, int | float] = {
            "store_entries": stats.entries,
            "store_bytes_used": stats.bytes_used,
            "store_bytes_max": stats.bytes_max,
            "hints": stats.hints,
            "members_reachable": sum(member.reachable for member in members),
            "synced": int(self._keeper().synced),
        }
        debt = self._debt()
        if debt is not None:  # a gauge that is not known is left out: 0 would say that all is well
            gauges["debt"] = debt
        self.counters.hand_in(self.host.store)
        counts = {f"{name}_total": count for name, count in self.host.store.counts().items()}
        return {**gauges, **counts}


def _described(member: Member, ring: KeyRing) -> dict[str, Any]:
    return {
        "identity": member.identity,
        "address": f"{member.host}:{member.port}",
        "state": str(member.state),
        "incarnation": member.incarnation,
        "zone": member.zone,
        "kids": list(member.kids),
        "tags": {str(kid): node_tag(key, member.identity, member.port) for kid in ring.kids if (key := ring.get(kid))},
    }
