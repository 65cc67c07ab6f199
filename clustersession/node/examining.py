"""What this node says of itself to the doctor of any node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from .. import __version__
from ..config import Config
from ..core.calls import Call, Examine, Examined, Reply
from ..core.facts import NodeFacts
from ..core.keyring import KeyRing
from ..errors import ClusterSessionError
from ..ports import StoreStats
from ..runtime.keeper import Keeper
from ..settings import is_loopback, notes, process_environ, ring_fingerprint
from ..store import LmdbStore
from .chronicle import Chronicle
from .stuck import stuck_shards
from .touring import Tours


class Knows(Protocol):
    """What other parts of the node can tell."""

    @property
    def unmet(self) -> dict[str, str]: ...

    def debt(self) -> int | None: ...


class Examiner:
    """Answers `Examine`, at once; a tour of canaries that it asks for goes on after that."""

    def __init__(
        self,
        config: Config,
        keeper: Keeper,
        tours: Tours,
        chronicle: Chronicle,
        ring: Callable[[], KeyRing],
        knows: Knows,
    ) -> None:
        self._config, self._keeper, self._tours = config, keeper, tours
        self._chronicle, self._ring, self._knows = chronicle, ring, knows
        self._down: dict[str, str] = {}
        self._notes = tuple(notes(process_environ(), config))

    def on_call(self, call: Call, source: str | None) -> Reply:
        """What a peer asks of this node, this one question apart."""
        if not isinstance(call, Examine):
            return self._keeper.on_call(call, source)
        return Examined(self.facts(tour=call.tour))

    def facts(self, *, tour: bool = False) -> NodeFacts:
        """With `tour` one is begun, and the store is tried."""
        if tour:
            self._tours.begin(self._look_at_store)
        config, keeper, host = self._config, self._keeper, self._keeper.host
        stats, error = self._stats()
        exposed = config.tls is None and not is_loopback(config.listen.host)
        return NodeFacts(
            node=config.node,
            release=__version__,
            wall_s=time.time(),
            mode=config.mode if keeper.switch is None else keeper.switch.in_force(config),
            ring=ring_fingerprint(self._ring()),
            exposed=exposed and bool(config.peers),
            cookie=config.cookie.names[0],
            cookie_secure=config.cookie.secure,
            absolute_s=config.lifetimes.absolute_s if config.lifetimes_set else None,
            synced=keeper.synced,
            leaving=keeper.leaving,
            debt=self._knows.debt(),
            entries=stats.entries,
            bytes_used=stats.bytes_used,
            bytes_max=stats.bytes_max,
            store_error=error,
            notes=self._notes,
            down=self._down,
            links=keeper.links.facts(keeper.table, host.clock()),
            unmet=self._knows.unmet,
            counts=self._counts(),
            tour=self._tours.begun,
            toured=self._tours.ended,
            canaries=self._tours.canaries,
        )

    def _stats(self) -> tuple[StoreStats, str | None]:
        try:
            return self._keeper.host.store.stats(), None
        except ClusterSessionError as error:
            return StoreStats(0, 0, 0, 0), str(error)

    def _counts(self) -> dict[str, tuple[int, ...]]:
        try:
            return self._chronicle.up_to_now().counts
        except ClusterSessionError:
            return {}  # the board cannot be read: `down` says so

    async def _look_at_store(self) -> None:
        store = self._keeper.host.store
        if isinstance(store, LmdbStore):
            self._down = await asyncio.to_thread(stuck_shards, store)
