"""The third driver: nodes, their clocks and the network between them in virtual time, all from one seed.

Everything that a real cluster does with sockets, sleeps and processes happens here as events of one queue, so that a run
is a function of its seed. The rules are the real ones (`core`, `runtime.host`, `runtime.keeper`); messages are encoded
and decoded as on the wire.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ..config import Limits, Timeouts
from ..core import calls, encoding
from ..core.calls import Call, Message, Reply, Unreachable
from ..core.effects import Operation
from ..core.encoding import WITH_TIMES
from ..core.keyring import KeyRing
from ..core.node import Member
from ..core.sealing import Sealer
from ..runtime.duty import Duty
from ..runtime.host import Host
from ..runtime.keeper import Keeper
from ..store.memory import MemoryStore
from .events import Event, Events
from .running import Run

T = TypeVar("T")

RING = KeyRing.parse("1:K7rV9xq2LmP4sTzW8yBnC3dFgH6jQaEu")
SWEEP_EVERY_S = 1.0
SWEEP_BATCH = 100
LOOK_EVERY_S = 0.2
LATENCY_MIN_S = 0.0003
LATENCY_SPAN_S = 0.003 - LATENCY_MIN_S
NONCE_BYTES = 12


class Network:
    """What happens to messages. `cut`: pairs (from, to) through which nothing passes; the rest are probabilities."""

    def __init__(self) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.silent: set[str] = set()  # hosts that nobody reaches, users neither
        self.loss = self.delay = self.duplicate = 0.0
        self.delay_max_s = 0.6


class World(Events):
    """The event queue, the seeded randomness and the nodes. `counts` says what really happened; `messages` and `sent_bytes`
    what each node has sent. `seeds`: how many nodes are named in the settings of a node that starts, or all. `on_wire`:
    messages travel as bytes, and these are counted; without, the same happens in less time. `zones`: nodes are in so many in
    turn; 0: in none."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        timeouts: Timeouts | None = None,
        seeds: int | None = None,
        on_wire: bool = True,
        zones: int = 0,
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        super().__init__(self.timeouts.request_s)
        self.on_wire = on_wire
        self.seed, self.random, self.seeds, self._zones = seed, random.Random(seed), seeds, zones
        self.made = 0  # nodes so far
        self.messages, self.sent_bytes = Counter[str](), Counter[str]()
        self.network, self.counts = Network(), Counter[str]()
        self.trace: Callable[[str], None] | None = None  # is told what happens, in words
        self.overheard: Callable[[str, str, Call, Reply], None] | None = None  # and each call: from, to, what, and the answer
        self.nodes = {name: SimulatedNode(self, name) for name in (f"n{i}" for i in range(nodes))}
        for node in self.nodes.values():
            node.start(files=None)

    def join(self, name: str) -> SimulatedNode:
        """A new host without files, which knows the seeds."""
        node = SimulatedNode(self, name)
        node.unready = True
        self.nodes[name] = node
        node.start(files=None)
        return node

    def remove(self, name: str) -> None:
        """Its process is killed, its host and its files are gone for good."""
        self.nodes.pop(name).crash()

    def zone_of_next(self) -> str:
        """The zone of the node that is being made."""
        self.made += 1
        return f"zone {(self.made - 1) % self._zones}" if self._zones else ""

    def log(self, text: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.now:9.4f} {text}")

    # --- the network ---------------------------------------------------------------------------------------------------

    def latency(self) -> float:
        latency = LATENCY_MIN_S + LATENCY_SPAN_S * self.random.random()
        if self.network.delay and self.random.random() < self.network.delay:
            self.counts["delayed"] += 1
            latency += self.random.uniform(0.05, self.network.delay_max_s)
        return latency

    def passes(self, source: str, target: str) -> bool:
        network = self.network
        if (network.cut and (source, target) in network.cut) or (network.silent and network.silent & {source, target}):
            self.counts["cut"] += 1
            return False
        if network.loss and self.random.random() < network.loss:
            self.counts["dropped"] += 1
            return False
        return True

    def call(self, source: SimulatedNode, target: str, call: Call, answered: Callable[[Reply], None]) -> None:
        """Send `call`; `answered` is called exactly once, by the reply or the time-out, while `source` lives."""
        pending = _Pending(answered)
        self.counts["calls"] += 1
        self.time_out(source, pending)
        node = self.nodes.get(target)
        if node is None or not self.passes(source.name, target):
            return
        arrival = partial(self._arrived, source, node, self._sent(source, call), self.now, pending)
        self.at(self.latency(), arrival)
        if self.network.duplicate and self.random.random() < self.network.duplicate:
            self.counts["duplicated"] += 1
            self.at(self.latency() + 0.05, arrival)

    def _arrived(self, source: SimulatedNode, node: SimulatedNode, data: Any, sent: float, pending: _Pending) -> None:
        if node.paused:
            node.waiting.append((node.process, partial(self._served, source, node, data, sent, pending)))
        elif node.up:
            self._served(source, node, data, sent, pending)
        elif self.passes(node.name, source.name):
            self.at(0.0005, lambda: pending.answer(Unreachable("refused")), source)

    def _served(self, source: SimulatedNode, node: SimulatedNode, data: Any, sent: float, pending: _Pending) -> None:
        if self.now - sent > self.timeouts.stale_request_s:
            self.counts["stale"] += 1
            return
        call = encoding.decode_call(data) if self.on_wire else data
        if type(call) in WITH_TIMES:
            call = encoding.moved_to_clock(call, node.clock())
        reply = node.keeper.on_call(call, source.name)
        if self.overheard is not None and not isinstance(call, calls.Heartbeat):
            self.overheard(source.name, node.name, call, reply)
        answer = self._sent(node, reply)
        if self.passes(node.name, source.name):
            self.at(self.latency(), partial(self._answered, source, answer, pending), source)

    def _sent(self, node: SimulatedNode, message: Message) -> Any:
        """What leaves `node`: bytes, or what these would be decoded to."""
        self.messages[node.name] += 1
        aged = encoding.moved_to_clock(message, -node.clock()) if type(message) in WITH_TIMES else message
        if not self.on_wire:
            return aged
        data = encoding.encode_message(aged)
        self.sent_bytes[node.name] += len(data)
        return data

    def _answered(self, node: SimulatedNode, data: Any, pending: _Pending) -> None:
        if not pending.over:
            reply: Reply = encoding.decode_reply(data) if self.on_wire else data
            pending.answer(encoding.moved_to_clock(reply, node.clock()) if type(reply) in WITH_TIMES else reply)


class _Pending:
    """One call that waits for its answer; later ones are ignored."""

    __slots__ = ("_answered", "over")

    def __init__(self, answered: Callable[[Reply], None]) -> None:
        self._answered, self.over = answered, False

    def answer(self, reply: Reply) -> None:
        if not self.over:
            self.over = True
            self._answered(reply)

    def strike(self) -> None:
        self.answer(Unreachable("timeout"))


class SimulatedNode:
    """A host: its files, its clock, and the process that has them while it is up."""

    host: Host
    keeper: Keeper
    duty: Duty

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.zone = world, name, world.zone_of_next()
        self.up = self.paused = self.unready = False  # unready: it is new, and as `/readyz` says 503 no user is sent there
        self.process = self.incarnation = 0
        self.waiting: list[tuple[int, Event]] = []
        self._offset = world.random.uniform(1.0, 1000.0)
        self.store: MemoryStore | None = None

    def clock(self) -> float:
        """This host's own time: no two hosts agree."""
        return self.world.now + self._offset

    # --- its life --------------------------------------------------------------------------------------------------------

    def start(self, *, files: MemoryStore | None) -> None:
        """A new process on `files`, or on none."""
        self.up, self.paused, self.waiting = True, False, []
        self.process += 1
        self.incarnation += 10
        self.store = files if files is not None else MemoryStore(now=self.clock)
        sealer = _Unsealed(RING, "simulated")
        self.host = Host(
            self.name,
            self.store,
            lambda: sealer,
            clock=self.clock,
            entropy=_SeededEntropy(self.world.random),
            observer=_Counting(self.world.counts),
            limits=Limits(),
            timeouts=self.world.timeouts,
        )
        me = Member(self.name, self.name, 10060, self.incarnation, zone=self.zone, kids=RING.kids)
        self.keeper = Keeper(self.host, me, self.world.timeouts)
        known = [node for node in self.world.nodes.values() if node is not self] if hasattr(self.world, "nodes") else []
        for other in known[: self.world.seeds]:
            self._greet(other)
        self.duty = Duty(self.keeper)
        self._mending = self.handing_over = False
        self.world.at(self.world.random.uniform(0.0, 0.1), self._tick, self)
        self.world.at(LOOK_EVERY_S, self._mend, self)
        self.world.at(SWEEP_EVERY_S, self._sweep, self)
        if not self.keeper.synced:
            self.world.at(0.05, self._sync, self)

    def _greet(self, other: SimulatedNode) -> None:
        """What the seeds of the settings do: everybody learns that the other is there, but who is out of reach."""
        for one, two in ((self, other), (other, self)):
            if one is not two and one.up and one.name not in self.world.network.silent:
                one.keeper.introduce(Member(two.name, two.name, 10060, 0))

    def crash(self) -> MemoryStore:
        """kill -9. What it leaves are its files."""
        self.up, self.paused, self.waiting = False, False, []
        self.world.log(f"{self.name} is killed")
        assert self.store is not None
        return self.store

    def pause(self) -> None:
        self.paused = True
        self.world.log(f"{self.name} is paused")

    def resume(self) -> None:
        """SIGCONT: everything that waited happens now, in order."""
        self.paused = False
        waiting, self.waiting = self.waiting, []
        self.world.log(f"{self.name} goes on")
        for process, event in waiting:
            if self.up and process == self.process:
                self.world.at(0.0, event, self)

    # --- its background work -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.keeper.tick()
        heartbeat_s = self.world.timeouts.heartbeat_s
        self.world.at(heartbeat_s * self.world.random.uniform(0.8, 1.0), self._tick, self)
        for peer in self.keeper.peers():
            self._beat(peer.identity)
        if not self.keeper.synced and not self._syncing:
            self.world.at(0.05, self._sync, self)

    def _beat(self, peer: str) -> None:
        sent = self.clock()
        self.run(self.keeper.beat(peer), lambda outcome: self.keeper.after_beat(peer, sent, outcome), background=True)

    def _sweep(self) -> None:
        self.world.at(SWEEP_EVERY_S, self._sweep, self)
        self.run(self.keeper.sweep(SWEEP_BATCH), lambda _: None, background=True)

    def _mend(self) -> None:
        self.world.at(LOOK_EVERY_S, self._mend, self)
        if not self._mending and (self.duty.due or self.handing_over):
            self._mending = True
            self.run(self.duty.done_once(), self._mended, background=True)

    def _mended(self, complete: bool) -> None:
        self._mending = False

    def leave(self) -> None:
        """SIGTERM: hand over everything. `duty.progress.owed` says what is left."""
        self.duty.leave()
        self.world.log(f"{self.name} leaves")
        self.world.at(self.world.timeouts.heartbeat_s, self._hand_over, self)

    def _hand_over(self) -> None:
        self.handing_over = True

    _syncing = False

    def _sync(self) -> None:
        if self.keeper.synced or self._syncing or not self.keeper.settled:
            return
        self._syncing, process = True, self.process

        def done(complete: bool) -> None:
            self._syncing = False
            if complete and process == self.process:
                self.unready = False
                self.keeper.sync_done()

        self.run(self.keeper.sync(), done, background=True)

    # --- the driver ----------------------------------------------------------------------------------------------------------

    def run(self, operation: Operation[T], done: Callable[[T], None], *, background: bool = False) -> None:
        """Run `operation` as this host's process. It is forgotten when the process dies."""
        deadline = None if background else self.world.now + self.world.timeouts.budget_s
        Run(self, operation, done, deadline).resume(None)


class _Unsealed(Sealer):
    """Files of the simulation are sealed by nobody: it costs time, and no rule depends on it."""

    __slots__ = ()

    def seal(self, purpose: bytes, key: bytes, data: bytes, nonce: bytes, kid: int | None = None) -> bytes:
        return nonce + data

    def open(self, purpose: bytes, key: bytes, sealed: bytes) -> bytes:
        return sealed[NONCE_BYTES:]

    def is_latest(self, sealed: bytes) -> bool:
        return True


class _SeededEntropy:
    def __init__(self, source: random.Random) -> None:
        self._source = source

    def bytes(self, count: int) -> bytes:
        return self._source.randbytes(count)


class _Counting:
    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def count(self, event: str, by: int = 1) -> None:
        self._counts[event] += by
