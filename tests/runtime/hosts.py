"""A host on a memory store with a clock that the test moves."""

from __future__ import annotations

import itertools
from typing import Final

from clustersession.config import Limits, Timeouts
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member
from clustersession.core.record import Key, Record, encode_record
from clustersession.core.sealing import Sealer
from clustersession.ports import Change, Store
from clustersession.runtime.board import Board, write_board
from clustersession.runtime.counters import Counters
from clustersession.runtime.host import AT_REST, Host
from clustersession.store.memory import MemoryStore

RING: Final = KeyRing.parse("2:Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi,1:pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a")
SEALER: Final = Sealer(RING, "test")
TIMEOUTS: Final = Timeouts()
START: Final = 1000.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Numbers:
    """Entropy for tests: no two draws are equal."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def bytes(self, count: int) -> bytes:
        return next(self._count).to_bytes(count)


class Fixture:
    """A host `a` and what it stands on."""

    def __init__(self, *, store: Store | None = None, session_bytes_max: int = 1000, bytes_max: int | None = None) -> None:
        self.clock, self.counters = Clock(), Counters()
        self.store: Store = store or MemoryStore(now=self.clock, bytes_max=bytes_max)
        self.host = Host(
            "a",
            self.store,
            lambda: SEALER,
            clock=self.clock,
            entropy=Numbers(),
            observer=self.counters,
            limits=Limits(session_bytes_max=session_bytes_max),
            timeouts=TIMEOUTS,
        )

    def board(
        self, *members: Member, synced: bool = True, leases: tuple[str, ...] = (), tick: float = START, until: float = START + 1.5
    ) -> None:
        """What the node process has written."""
        write_board(self.store, Board(members, dict.fromkeys(leases, until), synced, tick, converged=True))

    def hold(self, key: Key, record: Record, *hints: str) -> None:
        sealed = SEALER.seal(AT_REST, key, encode_record(record), b"0" * 12)
        self.store.change(key, lambda _: Change(None, sealed, due=float("inf"), hint=hints))

    def spoil(self, key: Key, *hints: str) -> None:
        """Bytes that do not decode."""
        self.store.change(key, lambda _: Change(None, b"\x01 not a record, but long enough to be one", due=0.0, hint=hints))
