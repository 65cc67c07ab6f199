"""What the parts cost, each against redis-py in the same interleaved run: store, session ID, a call to a peer."""

from __future__ import annotations

import itertools
import os
from asyncio import Runner
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, perf_counter_ns
from typing import Any, Final

import redis

from clustersession.core.calls import Applied, Apply, Call, Reply, Settle
from clustersession.core.node import Member
from clustersession.core.record import Patch
from clustersession.core.session_id import IdContext, verify
from clustersession.transport.asynchronous import AsyncioTransport
from clustersession.transport.blocking import BlockingTransport

from . import peer_call, store_bench, traffic
from .cluster import NAMES, Cluster, Kept
from .measure import Block, Times, block_of, interleaved, times_of
from .redis_servers import Servers

STORE_READ: Final = "store: read"
STORE_WRITE: Final = "store: write"
ID_FIRST: Final = "session ID: parse and verify"
ID_SEEN: Final = "session ID: seen before"
PEER: Final = "peer call: PATCH of 1 KiB"
PEER_ASYNC: Final = "peer call: PATCH of 1 KiB, asyncio"
PEER_NODE: Final = "peer call: PATCH of 1 KiB, stored by a real node"
REDIS_GET: Final = "redis-py: GET of 1 KiB"
REDIS_SET: Final = "redis-py: SET of 1 KiB"
STORED_SESSIONS: Final = 10_000
DEADLINE_S: Final = 5.0
VALUE: Final = peer_call.VALUE


def bench_parts(cluster: Cluster, servers: Servers, rounds: int, block: int) -> dict[str, Times]:
    """Microseconds of single operations, one process, one after the other."""
    with ExitStack() as stack:
        client = redis.Redis("127.0.0.1", servers.alone)
        stack.callback(client.close)
        client.set("part", VALUE)
        store = stack.enter_context(store_bench.temporary_store())
        keys = itertools.cycle(store_bench.fill(store, STORED_SESSIONS))
        peer = stack.enter_context(peer_call.peer_process())
        runner = stack.enter_context(Runner())
        rows: dict[str, Block] = {
            STORE_READ: block_of(lambda: store.read(next(keys))),
            STORE_WRITE: block_of(store_bench.rewriting(store, keys)),
            **_id_blocks(cluster),
            PEER: _blocking_block(stack, peer),
            PEER_ASYNC: _asyncio_block(stack, peer, runner),
            PEER_NODE: _node_block(cluster),
            REDIS_GET: block_of(lambda: client.get("part")),
            REDIS_SET: block_of(lambda: client.set("part", VALUE)),
        }
        return {name: times_of(taken) for name, taken in interleaved(rows, rounds, block).items()}


def _id_blocks(cluster: Cluster) -> dict[str, Block]:
    engine = cluster.engine()
    (kept,) = cluster.sessions((NAMES[0], NAMES[1]), 1, traffic.values())
    name, _, text = kept.cookie.partition("=")
    ring, context = engine.ring(), IdContext(engine.config.cluster, name)
    fields = (kept.cookie,)
    return {
        ID_FIRST: block_of(lambda: verify(text, ring, context)),
        ID_SEEN: block_of(lambda: engine.cookies.ticket(fields)),
    }


# --- peer calls ------------------------------------------------------------------------------------------------------


class WrongReply(Exception):
    """A peer did not do what is being timed."""


def _checked(reply: object) -> Any:
    if not isinstance(reply, Applied):
        raise WrongReply(repr(reply))
    return reply


def _blocking_block(stack: ExitStack, peer: Member) -> Block:
    transport = BlockingTransport(peer_call.wiring("caller"))
    stack.callback(transport.close)
    numbers = itertools.count()
    return block_of(lambda: _checked(transport.ask(peer, peer_call.patch(next(numbers)), monotonic() + DEADLINE_S)))


def _asyncio_block(stack: ExitStack, peer: Member, runner: Runner) -> Block:
    transport = AsyncioTransport(peer_call.wiring("caller"))
    stack.callback(lambda: runner.run(transport.close()))
    numbers = itertools.count()

    async def calls(count: int) -> list[int]:
        taken = []
        for _ in range(count):
            began = perf_counter_ns()
            reply = await transport.ask(peer, peer_call.patch(next(numbers)), monotonic() + DEADLINE_S)
            taken.append(perf_counter_ns() - began)
            _checked(reply)
        return taken

    return lambda count: runner.run(calls(count))


def _node_block(cluster: Cluster) -> Block:
    """As a worker that serves a session mastered elsewhere. What settles the write afterwards is not timed."""
    (kept,) = cluster.sessions((NAMES[1], NAMES[2]), 1, traffic.values())
    ask = asking(cluster, NAMES[1])

    def calls(count: int) -> list[int]:
        taken = []
        for _ in range(count):
            call = patch_of(kept)
            began = perf_counter_ns()
            reply = ask(call)
            taken.append(perf_counter_ns() - began)
            ask(Settle(kept.key, kept.epoch, kept.owners, _checked(reply).version))
        return taken

    return calls


def patch_of(kept: Kept) -> Apply:
    """A new patch of 1 KiB for that session."""
    return Apply(kept.key, kept.epoch, Patch(os.urandom(8), {"note": VALUE}))


def asking(cluster: Cluster, node: str) -> Callable[[Call], Reply]:
    """Calls node `node` as a worker of this process's host does."""
    engine = cluster.engine()
    member = engine.host.view.get(node)
    assert member is not None
    transport = engine.blocking.transport
    return lambda call: transport.ask(member, call, monotonic() + DEADLINE_S)
