"""What a worker process needs to serve sessions: the host, its peers, and for each app how its cookies and limits are."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from threading import Lock, Thread
from typing import Final, NamedTuple, Protocol

from ..config import Config
from ..core.keyring import KeyRing
from ..core.operations import Cluster
from ..core.record import Key, Lifetime, Record, live_items
from ..core.switch import ALL
from ..errors import ClusterSessionError
from ..ports import AsyncTransport, Entropy, Transport
from .adopting import AdoptingVisit
from .adoption import Adoption
from .async_driver import AsyncDriver
from .cache import BoundedCache
from .cookies import Cookies, Ticket
from .counters import Counters
from .host import Host
from .mirroring import MirroringVisit
from .outages import Outages
from .pipeline import Visit
from .session import RequestSession
from .switching import ModeSwitch
from .sync_driver import SyncDriver
from .users import Users

ITEMS_KEPT: Final = 2048
NODE_LOOKED_AFTER_S: Final = 1.0  # how often a worker looks whether the host's node still runs
NODE_SILENT_S: Final = 5.0
log: Final = logging.getLogger("clustersession")


class SystemEntropy:
    """The system's own source: safe after a fork, since nothing of it is kept in the process."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


class _Hedging(Protocol):
    def hedge_delay(self, identity: str) -> float: ...


class BlockingPeers(Transport, _Hedging, Protocol):
    """Calls to peers from blocking code, with how long to wait before the next one is asked too."""


class AsyncPeers(AsyncTransport, _Hedging, Protocol):
    """The same from asyncio code."""


class Backplane(NamedTuple):
    """What all apps of one process share."""

    host: Host
    ring: Callable[[], KeyRing]
    blocking: SyncDriver
    asynchronous: AsyncDriver
    counters: Counters
    entropy: Entropy
    start_node: Callable[[], None] | None  # starts the host's node if none runs; may block for seconds

    @classmethod
    def of(
        cls,
        host: Host,
        ring: Callable[[], KeyRing],
        blocking: BlockingPeers,
        asynchronous: AsyncPeers,
        counters: Counters,
        entropy: Entropy,
        start_node: Callable[[], None] | None = None,
    ) -> Backplane:
        return cls(
            host,
            ring,
            SyncDriver(host, blocking, blocking.hedge_delay),
            AsyncDriver(host, asynchronous, asynchronous.hedge_delay),
            counters,
            entropy,
            start_node,
        )


class Engine:
    """Gives each request of one app its `Visit`."""

    def __init__(self, config: Config, shared: Backplane, adoption: Adoption | None = None) -> None:
        self.config, self.adoption = config, adoption
        self.host, self.ring, self.entropy, self.count = shared.host, shared.ring, shared.entropy, shared.counters.count
        self.blocking, self.asynchronous, self.counters = shared.blocking, shared.asynchronous, shared.counters
        self.anonymous = config.unavailable == "anonymous"
        self.principal_keys = frozenset(config.principal_keys)
        self.users = Users(lambda: self)
        self.outages = Outages()
        self.cookies = Cookies(config, shared.host, shared.ring, shared.counters)
        self.now = shared.host.clock
        self._switch = ModeSwitch(shared.host.store, shared.ring, config.cluster)
        self._cluster = Cluster(self.host.view, config.min_copies)
        self._items: BoundedCache[Key, tuple[Record, Mapping[str, bytes]]] = BoundedCache(ITEMS_KEPT)
        self._caretaker = None if shared.start_node is None else _Caretaker(self.host, shared.start_node)

    def visit(
        self,
        cookie_fields: Sequence[bytes | str],
        *,
        blocking: bool,
        session_type: type[RequestSession] = RequestSession,
    ) -> Visit:
        """A request with these Cookie fields. `blocking`: its session loads itself when the app looks at it."""
        if self._caretaker is not None:
            self._caretaker.look()
        ticket = self.cookies.ticket(cookie_fields)
        driver = self.blocking if blocking else None
        if self.adoption is not None and (cookie_fields or self.mode == "mirror"):
            return self._with_old_cookie(self.adoption, ticket, cookie_fields, driver, session_type)
        visit = Visit(self, ticket, driver, session_type)
        if ticket is None and cookie_fields:
            visit.refused = cookie_fields
        return visit

    @property
    def mode(self) -> str:
        """What this host's settings say, or what the cluster was switched to where it follows that."""
        return self._switch.in_force(self.config)

    @property
    def in_part(self) -> bool:
        """Whether only a part of the sessions is in `mode`, and the old system has the rest."""
        switch = self._switch.current() if self.config.mode_switch else None
        return switch is not None and switch.percent != ALL

    def mode_of(self, cookie_fields: Sequence[bytes | str]) -> str:
        """The mode for one request. If only a part of the sessions was switched the rest is left to the old system: by the old
        cookie, so that one cookie is always on one side; who has a session of ours already keeps it."""
        switch = self._switch.current() if self.config.mode_switch else None
        if switch is None or switch.percent == ALL or switch.mode == "off":
            return self.mode
        if switch.mode != "shadow" and self.cookies.named(cookie_fields):
            return switch.mode
        old = () if self.adoption is None else sorted(self.adoption.cookies_in(cookie_fields))
        drawn = hashlib.sha256("; ".join(old).encode()).digest()[:4] if old else self.entropy.bytes(4)
        return switch.mode if int.from_bytes(drawn) % ALL < switch.percent else "off"

    def _with_old_cookie(
        self,
        adoption: Adoption,
        ticket: Ticket | None,
        cookie_fields: Sequence[bytes | str],
        driver: SyncDriver | None,
        session_type: type[RequestSession],
    ) -> Visit:
        """Ours decides if there is one, and what has its name but fails is no reason to look for another."""
        old = adoption.cookie_in(cookie_fields)
        adopts = old is not None and ticket is None and not self.cookies.named(cookie_fields)
        if self.mode == "mirror":
            brought = adoption.cookies_in(cookie_fields)
            return MirroringVisit(self, adoption, ticket, brought, driver, session_type, adopts=adopts)
        if old is not None and adopts:
            visit: Visit = AdoptingVisit(self, adoption, old, driver, session_type)
        else:
            visit = Visit(self, ticket, driver, session_type)
            visit.refused = cookie_fields if ticket is None else ()
        visit.old_cookie = old
        return visit

    def visit_by_handle(self, handle: str, session_type: type[RequestSession] = RequestSession) -> Visit:
        """The session with this public handle, outside of any request. An unknown handle gives an empty one."""
        return Visit(self, self.cookies.ticket_of_handle(handle), self.blocking, session_type)

    def cluster(self) -> Cluster:
        """The members as this host sees them now."""
        view = self.host.view
        if self._cluster.view is not view:
            self._cluster = self._cluster._replace(view=view)
        return self._cluster

    def items_of(self, key: Key, record: Record) -> Mapping[str, bytes]:
        """The encoded values of a record. The host hands out the same record until it changes, so nearly always a look-up."""
        cached = self._items.get(key)
        if cached is not None and cached[0] is record:
            return cached[1]
        items = live_items(record)
        self._items.put(key, (record, items))
        return items

    def lifetime(self, began: float) -> Lifetime:
        """The default limits of a session that began at `began`, host's clock."""
        limits = self.config.lifetimes
        return Lifetime(limits.idle_s, None if limits.absolute_s is None else began + limits.absolute_s)

    def undecodable(self, name: str) -> None:
        """A stored value that this release does not understand. Its name may be personal, so it is only counted."""
        self.count("value_undecodable")


class _Caretaker:
    """Starts the host's node again when it has gone. Never in the way of a request: in a thread, and one at a time."""

    def __init__(self, host: Host, start: Callable[[], None]) -> None:
        self._host, self._start = host, start
        self._look_at = 0.0
        self._busy = Lock()

    def look(self) -> None:
        now = self._host.clock()
        if now < self._look_at:
            return
        self._look_at = now + NODE_LOOKED_AFTER_S
        if now - self._host.board.tick > NODE_SILENT_S:
            self._in_thread(self._start_node, "clustersession-start-node")

    def _in_thread(self, work: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                work()
            finally:
                self._busy.release()

        if self._busy.acquire(blocking=False):
            Thread(target=run, name=name, daemon=True).start()

    def _start_node(self) -> None:
        try:
            self._start()
        except (ClusterSessionError, OSError) as error:
            log.error("the node of this host cannot be started: %s", error)  # noqa: TRY400  (the text says it all)
