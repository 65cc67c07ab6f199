"""What many bring: calls from 16 connections at once, a million sessions, and the memory that they take.

`python -m tests.benchmark.scale load NODE CALLS` is one of the processes that call; it is started from here.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Final, NamedTuple

import psutil

from clustersession import hostclock
from clustersession.config import Config
from clustersession.core.calls import Applied, Fetch, Found
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member
from clustersession.core.record import Lifetime, Patch, Record, encode_record, patched
from clustersession.core.sealing import Sealer
from clustersession.core.session_id import TOKEN_BYTES, store_key
from clustersession.core.values import encode_value
from clustersession.middleware.assembly import EngineSource, NoAsyncPeers, NoPeers
from clustersession.node.launch import node_environ
from clustersession.ports import Change
from clustersession.runtime.board import Board, write_board
from clustersession.runtime.counters import Counters
from clustersession.runtime.engine import Backplane, Engine, SystemEntropy
from clustersession.runtime.host import AT_REST, Host
from clustersession.store import LmdbStore

from . import parts, store_bench, traffic
from .cluster import NAMES, Cluster, Kept
from .measure import Block, Times, interleaved, times_of

CONNECTIONS: Final = 16
LOADERS: Final = 2
ROOT: Final = Path(__file__).parents[2]


class Throughput(NamedTuple):
    """Calls that one node's server answers in a second, and what of its processor's time one takes."""

    per_second: float
    server_us: float


def bench_throughput(cluster: Cluster, seconds: float) -> dict[str, Throughput]:
    """Two processes with eight connections each, as workers of one host, call the node of another one."""
    node = NAMES[1]
    kept = cluster.sessions((node, NAMES[2]), CONNECTIONS, traffic.values())
    return {what: _loaded(cluster, node, what, kept, seconds) for what in ("GET of a session", "PATCH of 1 KiB")}


def _loaded(cluster: Cluster, node: str, what: str, kept: list[Kept], seconds: float) -> Throughput:
    server = psutil.Process(cluster.processes[node].pid)
    share = CONNECTIONS // LOADERS
    command = [sys.executable, "-m", "tests.benchmark.scale", "load", node, what.partition(" ")[0], str(seconds)]
    loaders = [
        subprocess.Popen(
            [*command, *(each.key.hex() for each in kept[at * share : (at + 1) * share])],
            cwd=ROOT,
            env=node_environ(cluster.home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for at in range(LOADERS)
    ]
    for loader in loaders:
        assert loader.stdout is not None
        if loader.stdout.readline() != "ready\n":
            raise RuntimeError("a process that should call the node did not start; its output is above")
    before = server.cpu_times()
    for loader in loaders:
        assert loader.stdin is not None
        loader.stdin.write("go\n")
        loader.stdin.flush()
    calls = sum(int(loader.communicate(timeout=seconds + 60)[0]) for loader in loaders)
    after = server.cpu_times()
    busy_s = after.user + after.system - before.user - before.system
    return Throughput(calls / seconds, busy_s / calls * 1e6)


async def _load(node: str, method: str, seconds: float, keys: list[bytes]) -> None:
    engine = EngineSource(framework="benchmark")()
    member = engine.host.view.get(node)
    assert member is not None
    transport = engine.asynchronous.transport

    async def call(key: bytes, deadline: float) -> None:
        kept = Kept("", key, (node, NAMES[2]), 1)
        reply = await transport.ask(member, Fetch(key, 0.0) if method == "GET" else parts.patch_of(kept), deadline)
        if not isinstance(reply, Found | Applied):
            raise parts.WrongReply(repr(reply))

    async def calls_until(key: bytes, end: float) -> int:
        count = 0
        while monotonic() < end:
            await call(key, end + parts.DEADLINE_S)
            count += 1
        return count

    await asyncio.gather(*(call(key, monotonic() + parts.DEADLINE_S) for key in keys))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    end = monotonic() + seconds
    print(sum(await asyncio.gather(*(calls_until(key, end) for key in keys))))


# --- a million sessions ----------------------------------------------------------------------------------------------

VALUES: Final[Mapping[str, object]] = {"user": traffic.USER, "cart": traffic.CART[:3]}
COOKIES_MAX: Final = 10_000
SCALED_BYTES_MAX: Final = 4 * 2**30


class Scaled(NamedTuple):
    """A read of one of so many sessions that no worker has seen before, from cookie to values, and of the store alone."""

    sessions: int
    read: Times
    store_read: Times
    bytes_each: float


def bench_scale(few: int, many: int, rounds: int, block: int) -> list[Scaled]:
    with ExitStack() as stack:
        hosts = [_Many(stack.enter_context(store_bench.temporary_store(SCALED_BYTES_MAX)), count) for count in (few, many)]
        rows: dict[str, Block] = {}
        for host in hosts:
            rows |= {f"read {host.sessions}": host.reads, f"store {host.sessions}": host.store_reads}
        taken = {name: times_of(times) for name, times in interleaved(rows, rounds, block).items()}
        return [
            Scaled(
                host.sessions,
                taken[f"read {host.sessions}"],
                taken[f"store {host.sessions}"],
                host.store.stats().bytes_used / host.sessions,
            )
            for host in hosts
        ]


class _Many:
    """A host that is alone, with so many sessions in its store."""

    def __init__(self, store: LmdbStore, sessions: int) -> None:
        self.store, self.sessions = store, sessions
        self._config = Config(secret=os.urandom(32).hex(), node="bench", cluster="bench")
        self._ring = KeyRing.parse(self._config.secret)
        self._sealer = Sealer(self._ring, self._config.cluster)
        me = Member("bench", "localhost", 10060, 1, kids=self._ring.kids)
        write_board(store, Board((me,), {}, True, float("inf"), True, 1, self._ring.signing.kid))
        self._tokens = self._filled()
        engine = self._engine()
        self._cookies = [f"{engine.cookies.name}={self._text(engine, token)}" for token in self._tokens]

    def _text(self, engine: Engine, token: bytes) -> str:
        return engine.cookies.id_text(token, ("bench", None), (1, 1))

    def _filled(self) -> list[bytes]:
        """Tokens of some of the sessions, spread over all."""
        items: dict[str, bytes | None] = {name: encode_value(value) for name, value in VALUES.items()}
        every, tokens = max(1, self.sessions // COOKIES_MAX), []
        now = hostclock.now()
        empty = Record(1, 0, ("bench", None), created=now, last_seen=now, lifetime=Lifetime(3600.0, None), base=1)
        for number in range(self.sessions):
            token = os.urandom(TOKEN_BYTES)
            key = store_key(token)
            record = patched(empty, Patch(os.urandom(8), items), 1)
            sealed = self._sealer.seal(AT_REST, key, encode_record(record), os.urandom(12))
            self.store.change(key, _putting(Change(None, sealed, now + 3600.0 + number % 3600, (0, now))))
            if number % every == 0:
                tokens.append(token)
        return tokens

    def _engine(self) -> Engine:
        """A worker that has seen nothing yet."""
        entropy, counters = SystemEntropy(), Counters()
        host = Host(
            "bench",
            self.store,
            lambda: self._sealer,
            clock=hostclock.now,
            entropy=entropy,
            observer=counters,
            limits=self._config.limits,
            timeouts=self._config.timeouts,
        )
        return Engine(self._config, Backplane.of(host, lambda: self._ring, NoPeers(), NoAsyncPeers(), counters, entropy))

    def reads(self, count: int) -> list[int]:
        engine, taken = self._engine(), []
        for cookie in random.sample(self._cookies, count):
            began = perf_counter_ns()
            visit = engine.visit((cookie,), blocking=True)
            user = visit.session["user"]
            visit.close()
            taken.append(perf_counter_ns() - began)
            assert user == traffic.USER
        return taken

    def store_reads(self, count: int) -> list[int]:
        keys = [store_key(token) for token in random.sample(self._tokens, count)]
        found, taken = [], []
        for key in keys:
            began = perf_counter_ns()
            found.append(self.store.read(key))
            taken.append(perf_counter_ns() - began)
        assert None not in found
        return taken


def _putting(change: Change) -> Callable[[bytes | None], Change]:
    return lambda _: change


# --- memory ----------------------------------------------------------------------------------------------------------


class Footprint(NamedTuple):
    """All nodes together at one moment: entries of their stores, bytes of these, resident bytes of the node processes."""

    entries: int
    store_bytes: int
    resident_bytes: int

    @classmethod
    def of(cls, cluster: Cluster) -> Footprint:
        stores = [cluster.status(name)["store"] for name in NAMES]
        resident = sum(psutil.Process(process.pid).memory_info().rss for process in cluster.processes.values())
        return cls(sum(each["entries"] for each in stores), sum(each["bytes_used"] for each in stores), resident)


class Memory(NamedTuple):
    """Bytes for one copy of a session with a 20-item cart; every session has two."""

    copies: int
    store_bytes: float
    resident_bytes: float


def memory_between(before: Footprint, after: Footprint) -> Memory:
    copies = after.entries - before.entries
    return Memory(
        copies,
        (after.store_bytes - before.store_bytes) / copies,
        (after.resident_bytes - before.resident_bytes) / copies,
    )


if __name__ == "__main__":
    if sys.argv[1] != "load":
        raise SystemExit(__doc__)
    asyncio.run(_load(sys.argv[2], sys.argv[3], float(sys.argv[4]), [bytes.fromhex(key) for key in sys.argv[5:]]))
