"""A cluster in one process, for tests of middlewares and apps: real rules, memory stores, calls instead of sockets.

Each host has an `engine` to wrap an app with. Faults are switched on by name; a host that does not answer also loses its
leases at the others, as it would within two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from .. import hostclock
from ..config import Config, CookieConfig
from ..core.calls import Call, Reply, Unreachable
from ..core.encoding import decode_call, decode_reply, encode_message
from ..core.keyring import KeyRing
from ..core.node import Member, State
from ..ports import Outgoing, Store
from ..runtime.board import Board, write_board
from ..runtime.counters import Counters
from ..runtime.engine import Backplane, Engine, SystemEntropy
from ..runtime.host import Host
from ..runtime.keys import CurrentSealer
from ..store.memory import MemoryStore

SECRET: Final = "1:K7rV9xq2LmP4sTzW8yBnC3dFgH6jQaEu"  # noqa: S105  (for tests, and known to all)
FAULTS: Final = {"down": "refused", "paused": "timeout", "garbage": "garbage"}
HEDGE_S: Final = 0.05
FOREVER: Final = float("inf")


class Sent(NamedTuple):
    """One call between two hosts."""

    source: str
    target: str
    call: Call


class InProcessCluster:
    """Hosts by name. `sent` lists every call between them; `clock` may be one that tests move, `store` gives each host its
    own (default: in memory)."""

    def __init__(
        self,
        names: Sequence[str] = ("a", "b", "c"),
        *,
        secret: str = SECRET,
        clock: Callable[[], float] = hostclock.now,
        store: Callable[[str], Store] | None = None,
        **settings: object,
    ) -> None:
        defaults = {"cookie": CookieConfig(names=("cs",), secure=False), **settings}
        self.sent: list[Sent] = []
        self.clock = clock
        self.store_of = store or (lambda name: MemoryStore(now=clock))
        self.ring = KeyRing.parse(secret)
        self._faults: dict[str, str] = {}
        self._states: dict[str, State] = {}
        self.nodes = {
            name: InProcessNode(self, Config(secret=secret, node=name, **defaults))  # type: ignore[arg-type]
            for name in names
        }
        self._publish()

    def __getitem__(self, name: str) -> InProcessNode:
        return self.nodes[name]

    def __iter__(self) -> Iterator[InProcessNode]:
        return iter(self.nodes.values())

    def engines(self) -> list[Engine]:
        return [node.engine for node in self]

    # --- faults --------------------------------------------------------------------------------------------------------

    def down(self, *names: str) -> None:
        """Calls to these hosts are refused."""
        self._fail("down", names)

    def paused(self, *names: str) -> None:
        """Calls to these hosts run into their time-out."""
        self._fail("paused", names)

    def garbage(self, *names: str) -> None:
        """These hosts answer what cannot be understood."""
        self._fail("garbage", names)

    def dead(self, *names: str) -> None:
        """Calls are refused, and the others know that these hosts are gone."""
        self._states.update(dict.fromkeys(names, State.DEAD))
        self._fail("down", names)

    def back(self, *names: str) -> None:
        """These hosts answer again."""
        for name in names:
            self._faults.pop(name, None)
            self._states.pop(name, None)
        self._publish()

    def _fail(self, fault: str, names: Sequence[str]) -> None:
        self._faults.update(dict.fromkeys(names, fault))
        self._publish()

    def _publish(self) -> None:
        """What each host's own node process would have written by now."""
        members = tuple(
            Member(name, name, 10060, 1, state=self._states.get(name, State.ALIVE), kids=self.ring.kids) for name in self.nodes
        )
        for node in self:
            reachable = [name for name in self.nodes if name not in self._faults and node.name not in self._faults]
            leases = {name: FOREVER for name in reachable if name != node.name}
            alive = (msgspec.structs.replace(member, state=State.ALIVE) for member in members)  # nobody is dead to itself
            seen = tuple(own if own.identity == node.name else each for own, each in zip(alive, members, strict=True))
            write_board(node.store, Board(seen, leases, True, FOREVER, True, 1, None))

    # --- what tests look at -----------------------------------------------------------------------------------------------

    def entries(self) -> int:
        """Records, tombstones and pointers in all stores."""
        return sum(node.store.stats().entries for node in self)

    def counted(self, event: str) -> int:
        return sum(node.counters.of(event) for node in self)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Fails if a call is sent inside the block."""
        before = len(self.sent)
        yield
        if len(self.sent) != before:
            raise AssertionError(f"calls were sent: {self.sent[before:]}")

    def answer(self, source: str, target: str, call: Call) -> Reply:
        """Carry one call from host to host, or the fault between them."""
        self.sent.append(Sent(source, target, call))
        fault = self._faults.get(target)
        if fault is not None:
            return Unreachable(FAULTS[fault])
        host = self.nodes[target].host
        return decode_reply(encode_message(host.handle(decode_call(encode_message(call)), source)))


class InProcessNode:
    """One host: its store, and the engine that wraps the apps on it."""

    def __init__(self, cluster: InProcessCluster, config: Config) -> None:
        self.name = config.node
        self.store = cluster.store_of(config.node)
        self.counters = Counters()
        sealer = CurrentSealer(lambda: cluster.ring, config.cluster)
        entropy = SystemEntropy()
        self.host = Host(
            config.node,
            self.store,
            sealer,
            clock=cluster.clock,
            entropy=entropy,
            observer=self.counters,
            limits=config.limits,
            timeouts=config.timeouts,
        )
        transport = DirectTransport(cluster, self.name)
        self.engine_shared = Backplane.of(
            self.host, lambda: cluster.ring, transport, AsyncDirectTransport(transport), self.counters, entropy
        )
        self.config = config
        self.engine = Engine(config, self.engine_shared)

    def engine_with(self, **settings: object) -> Engine:
        """An engine of another app on the same host, whose settings differ by these."""
        return Engine(replace(self.config, **settings), self.engine_shared)  # type: ignore[arg-type]


class DirectTransport:
    """`ports.Transport` without a network."""

    def __init__(self, cluster: InProcessCluster, source: str) -> None:
        self._cluster, self._source = cluster, source

    def hedge_delay(self, identity: str) -> float:
        return HEDGE_S

    def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        return self._cluster.answer(self._source, member.identity, call)

    def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        replies: list[Reply | None] = [None] * len(batch)
        for place, outgoing in enumerate(batch):
            replies[place] = reply = self.ask(outgoing.member, outgoing.call, deadline)
            if enough is not None and enough(reply):
                break
        return replies

    def tell(self, member: Member, call: Call) -> None:
        self.ask(member, call, FOREVER)

    def close(self) -> None:
        """Nothing is open."""


class AsyncDirectTransport:
    """`ports.AsyncTransport` over a `DirectTransport`."""

    def __init__(self, transport: DirectTransport) -> None:
        self._transport = transport

    def hedge_delay(self, identity: str) -> float:
        return HEDGE_S

    async def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        return self._transport.ask(member, call, deadline)

    async def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        return self._transport.exchange(batch, deadline, enough)

    def tell(self, member: Member, call: Call) -> None:
        self._transport.tell(member, call)

    async def close(self) -> None:
        """Nothing is open."""
