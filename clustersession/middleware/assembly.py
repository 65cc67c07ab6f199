"""From settings to the engine of a worker process: opened with the first request, once per process, never across a fork."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from .. import hostclock
from ..config import Config, CookieConfig, Lifetimes
from ..core.calls import Call, Reply, Unreachable
from ..core.keyring import KeyRing
from ..core.node import Member
from ..node.spawn import LOG, ensure_node
from ..ports import Outgoing, Store
from ..runtime.adoption import Adoption
from ..runtime.board import Board, write_board
from ..runtime.counters import Counters
from ..runtime.engine import Backplane, Engine, SystemEntropy
from ..runtime.host import Host
from ..runtime.keys import CurrentSealer
from ..settings import RingSource, check_same_secret, load_settings, process_environ, ring_fingerprint
from ..sources.source import Source
from ..store import NodeLock, check_place, open_store, place_for
from ..transport.asynchronous import AsyncioTransport
from ..transport.blocking import BlockingTransport
from ..transport.client import Client
from ..transport.wiring import Wiring

START_ONE: Final = (
    "Start `clustersession node`, or the app with `clustersession run -- ...`, or set CLUSTERSESSION_SPAWN=1. If one runs "
    "elsewhere on this host, set the same CLUSTERSESSION_DATA_DIR for both."
)
_LOOK_EVERY_S: Final = 0.02
log: Final = logging.getLogger("clustersession")

Settings: TypeAlias = Config | Engine | None
"""What a middleware can be given: nothing (the environment decides), settings, or a ready engine (as tests have it)."""


class OldSessions(NamedTuple):
    """Where sessions of before are taken over from, and the key under which the framework keeps that a cookie is permanent."""

    source: Source
    permanent_key: str | None = None


class EngineSource:
    """Gives an app the engine of the process that it runs in.

    Settings are checked at once, and whether the store will have room; nothing is opened. `lifetimes` are the framework's own,
    `defaults` what its settings say in terms of ours; the environment goes before both. `old`: where sessions of before are
    taken over from. Raises `ConfigError`.
    """

    def __init__(
        self,
        settings: Settings = None,
        *,
        framework: str,
        lifetimes: Lifetimes | None = None,
        defaults: Mapping[str, str] | None = None,
        old: OldSessions | None = None,
    ) -> None:
        self._fixed = settings if isinstance(settings, Engine) else None
        if isinstance(settings, Engine):
            self.config = settings.config
        elif settings is None:
            environ = {**(defaults or {}), **process_environ()}
            self.config = load_settings(environ, framework=framework, lifetimes=lifetimes)
        else:
            self.config = settings
        if self._fixed is None:
            check_place(self.config, process_environ())
        self._adoption = None if old is None else _adoption(old, self.config)
        if self._fixed is not None:
            self._fixed.adoption = self._adoption
        self._opened: Engine | None = self._fixed
        self._process = -1

    def __call__(self) -> Engine:
        """The engine, opened now if this is the first request in this process; that may take a moment."""
        if self._opened is not None and (self._process == _process or self._fixed is not None):
            return self._opened
        self._opened = engine = Engine(self.config, _shared_by_all_apps(self.config), self._adoption)
        self._process = _process
        return engine

    @property
    def is_open(self) -> bool:
        return self._opened is not None and (self._process == _process or self._fixed is not None)

    async def opened(self) -> Engine:
        """The same without blocking the event loop."""
        return self() if self.is_open else await asyncio.to_thread(self)


def _adoption(old: OldSessions, config: Config) -> Adoption:
    return Adoption(old.source, config.adopt_until, permanent_key=old.permanent_key, imported=config.adopt_imported)


# --- one backplane for all apps of a process -------------------------------------------------------------------------

_open: dict[Config, Backplane] = {}
_inherited: list[dict[Config, Backplane]] = []
_opening = threading.Lock()
_process = 0  # how many forks away from the first: getpid() for every request would cost more than a look-up in the store


def _forget_the_parent() -> None:
    """In a forked child: what the parent had open is not ours to use nor to close, and nobody here holds its lock."""
    global _opening, _process  # noqa: PLW0603
    _opening = threading.Lock()
    _process += 1
    _inherited.append(dict(_open))
    _open.clear()


os.register_at_fork(after_in_child=_forget_the_parent)


def _shared_by_all_apps(config: Config) -> Backplane:
    """What does not depend on how one app's cookies are and how long its sessions live.

    The lock is tried, never waited for: where gevent patches a worker after the app was loaded (`--preload`), it is a native
    one, and to wait for it would stop the greenlet that holds it. For the same reason `sleep` is looked up when it is called.
    """
    own = {"cookie": CookieConfig(), "lifetimes": Lifetimes(), "lifetimes_set": False, "principal_keys": ()}
    own |= {"adopt_until": None, "adopt_imported": False}
    common = replace(config, **own)  # type: ignore[arg-type]
    while (backplane := _open.get(common)) is None:
        if not _opening.acquire(blocking=False):
            time.sleep(_LOOK_EVERY_S)
            continue
        try:
            if common not in _open:
                _open[common] = _assembled(config)
        finally:
            _opening.release()
    return backplane


def _assembled(config: Config) -> Backplane:
    entropy, counters = SystemEntropy(), Counters()
    ring = RingSource(config, hostclock.now)
    store = open_store(config, process_environ())
    sealer = CurrentSealer(ring, config.cluster)
    host = Host(
        config.node,
        store,
        sealer,
        clock=hostclock.now,
        entropy=entropy,
        observer=counters,
        limits=config.limits,
        timeouts=config.timeouts,
    )
    if config.mode == "dev":
        _write_lonely_board(store, config, ring())
        return Backplane.of(host, ring, NoPeers(), NoAsyncPeers(), counters, entropy)
    start_node = _node_starter(config)
    began, orphaned = hostclock.now(), NodeLock(place_for(config, process_environ())).holder() is None
    start_node()  # first: the board may still have a secret that was replaced while all was down, until the node has started
    check_same_secret(store.board, store.set_board, ring_fingerprint(ring()))
    _await_node(host, config, began, orphaned=orphaned)
    wiring = Wiring(
        me=lambda: _myself(host, config),
        ring=ring,
        cluster=config.cluster,
        limits=config.limits,
        timeouts=config.timeouts,
        clock=hostclock.now,
        entropy=entropy,
        observer=counters,
        tls=config.tls,
    )
    blocking, asynchronous = BlockingTransport(wiring), AsyncioTransport(wiring)
    counters.hand_in_to(store)
    atexit.register(counters.close)
    atexit.register(_hang_up, blocking, asynchronous)
    return Backplane.of(host, ring, blocking, asynchronous, counters, entropy, start_node)


def _hang_up(*transports: Client) -> None:
    """The worker ends: its idle connections to peers are closed, not left to the garbage collector."""
    for transport in transports:
        transport.hang_up()


def _await_node(host: Host, config: Config, began: float, *, orphaned: bool) -> None:
    """Wait until the node has written its first board: before that, this host knows no peer and vouches for nothing.
    `orphaned`: no node ran at `began`, so the board of before is that of a dead one, which has missed what came after."""
    while hostclock.now() - host.board.tick > config.timeouts.lease_s or (orphaned and host.board.tick < began):
        if hostclock.now() - began >= config.timeouts.ready_s:
            place = place_for(config, process_environ())
            remedy = f"What it says is in {place / LOG}." if config.spawn else START_ONE
            log.warning(
                "no node runs for %s in %s: until one does, no stored session can be read here. %s", config.node, place, remedy
            )
            return
        time.sleep(_LOOK_EVERY_S)


def _node_starter(config: Config) -> Callable[[], None]:
    place = place_for(config, process_environ())
    return lambda: ensure_node(config, place)


def _myself(host: Host, config: Config) -> Member:
    """How this process introduces itself to peers: as the node of its host."""
    known = host.view.get(config.node)
    return known or Member(config.node, "", config.listen.port, host.board.incarnation)


def _write_lonely_board(store: Store, config: Config, ring: KeyRing) -> None:
    """What a node process would write that has nobody to watch: there is no other host, and nothing to wait for."""
    me = Member(config.node, "localhost", config.listen.port, 1, kids=ring.kids)
    write_board(store, Board((me,), {}, True, float("inf"), True, 1, ring.signing.kid))


ALONE: Final = Unreachable("unknown")


class NoPeers:
    """The transport of a host that is alone."""

    def hedge_delay(self, identity: str) -> float:
        return 0.0

    def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        return ALONE

    def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        return [ALONE] * len(batch)

    def tell(self, member: Member, call: Call) -> None:
        """There is nobody to tell."""

    def close(self) -> None:
        """Nothing is open."""


class NoAsyncPeers(NoPeers):
    """The same for asyncio code."""

    async def ask(self, member: Member, call: Call, deadline: float) -> Reply:  # type: ignore[override]
        return ALONE

    async def exchange(  # type: ignore[override]
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        return [ALONE] * len(batch)

    async def close(self) -> None:  # type: ignore[override]
        """Nothing is open."""
