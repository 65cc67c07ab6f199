"""What a process knows of each peer: idle connections, calls in flight, breaker and latency. One lock, never held over IO."""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import Final

from ..config import Timeouts
from ..core.calls import Call, Heartbeat, Reply, Unreachable
from ..core.keyring import KeyRing
from ..core.node import Member
from ..ports import Entropy
from .breaker import Breaker
from .connection import Connection
from .hedging import Latency

IN_FLIGHT_MAX: Final = 32
QUEUE_MAX: Final = 64
IDLE_S: Final = 60.0
AGE_S: Final = 300.0  # two clocks drift apart by at most 0.3 s in it (500 ppm each): the offset of the hello still holds
FORGET_S: Final = 600.0

_FAILURES: Final = frozenset({"refused", "timeout", "garbage", "auth"})


class Peer:
    """One peer as this process sees it. Only `Peers` changes it."""

    __slots__ = ("address", "breaker", "idle", "in_flight", "incarnation", "latency", "queued", "used_at")

    def __init__(self, member: Member) -> None:
        self.address = (member.host, member.port)
        self.incarnation = member.incarnation
        self.breaker = Breaker()
        self.latency = Latency()
        self.idle: list[Connection] = []  # the last one used is the first one taken
        self.in_flight = 0
        self.queued = 0
        self.used_at = monotonic()

    def __repr__(self) -> str:
        return f"<Peer at {self.address}: {self.in_flight} in flight, {len(self.idle)} idle, {self.breaker!r}>"


class Peers:
    """All peers of one process. Usable from any thread; of no use after a fork."""

    def __init__(self, timeouts: Timeouts, entropy: Entropy) -> None:
        self._timeouts, self._entropy = timeouts, entropy
        self._lock = Lock()
        self._peers: dict[str, Peer] = {}
        self._learnt: dict[tuple[str, int], str] = {}
        self._incarnations: dict[str, int] = {}
        self._closed = False

    def of(self, member: Member) -> Peer:
        """The peer; one that has moved or started anew is met without prejudice."""
        name = member.identity or f"{member.host}:{member.port}"
        peer = self._peers.get(name)
        if peer is None:
            with self._lock:
                peer = self._peers.setdefault(name, Peer(member))
        if peer.address != (member.host, member.port) or peer.incarnation < member.incarnation:
            self._met_anew(peer, member)
        return peer

    def _met_anew(self, peer: Peer, member: Member) -> None:
        with self._lock:
            peer.address, peer.incarnation = (member.host, member.port), member.incarnation
            peer.breaker.reset()
        self.drop_idle(peer)

    def refusal(self, peer: Peer, call: Call) -> Unreachable | None:
        """Why not to ask now. A heartbeat is always let through: it is how a peer that is back gets noticed."""
        if peer.breaker.closed or isinstance(call, Heartbeat):
            return None
        with self._lock:
            return None if peer.breaker.allows(monotonic()) else Unreachable("breaker")

    def enter(self, peer: Peer) -> bool:
        """Take one of the peer's places in flight, if there is one."""
        with self._lock:
            peer.used_at = monotonic()
            if peer.in_flight >= IN_FLIGHT_MAX:
                return False
            peer.in_flight += 1
            return True

    def leave(self, peer: Peer) -> None:
        with self._lock:
            peer.in_flight -= 1

    def queue(self, peer: Peer) -> bool:
        """Take one of the places of those who wait for a place in flight, if there is one."""
        with self._lock:
            if peer.queued >= QUEUE_MAX:
                return False
            peer.queued += 1
            return True

    def unqueue(self, peer: Peer) -> None:
        with self._lock:
            peer.queued -= 1

    def note(self, peer: Peer, reply: Reply, seconds: float) -> None:
        """What came of a call: to the breaker, and to the latency if it was an answer."""
        why = reply.why if isinstance(reply, Unreachable) else None
        with self._lock:
            if why in _FAILURES:
                peer.breaker.failed(monotonic(), int.from_bytes(self._entropy.bytes(4), "big") / 2**32)
            elif why in (None, "stale", "down"):
                peer.breaker.succeeded()
                peer.latency.note(seconds)

    # --- connections -------------------------------------------------------------------------------------------------

    def take(self, peer: Peer, ring: KeyRing, *, probe: bool = False) -> Connection | None:
        """The idle connection that was used last, if any is good. `probe`: also look whether the peer has closed it."""
        while True:
            with self._lock:
                if not peer.idle:
                    return None
                connection = peer.idle.pop()
            now = monotonic()
            fresh = now - connection.born < AGE_S and now - connection.asked_at < IDLE_S
            if fresh and connection.link.stands_on(ring) and self._settled(peer, connection, now, probe):
                return connection
            connection.close()

    def _settled(self, peer: Peer, connection: Connection, now: float, probe: bool) -> bool:
        """Whether nothing is overdue on it: a call that was given up for another peer's answer is a failure too, if late."""
        if probe or connection.link.pending:
            connection.drain()
        if connection.link.pending and not connection.broken and now - connection.asked_at >= self._timeouts.request_s:
            self.note(peer, Unreachable("timeout"), 0.0)
            return False
        return not connection.broken

    def put(self, peer: Peer, connection: Connection) -> None:
        """Keep it for the next call, or close it."""
        with self._lock:
            keep = not (connection.broken or self._closed) and len(peer.idle) < IN_FLIGHT_MAX
            if keep:
                peer.idle.append(connection)
        if not keep:
            connection.close()

    def opened(self, peer: Peer, connection: Connection) -> None:
        """A new connection: note who is there, and tidy up, as this happens rarely."""
        hello = connection.link.peer
        assert hello is not None
        with self._lock:
            self._learnt[peer.address] = hello.identity
            self._incarnations[hello.identity] = hello.incarnation
        self._sweep()

    def drop_idle(self, peer: Peer) -> None:
        with self._lock:
            idle, peer.idle = peer.idle, []
        for connection in idle:
            connection.close()

    def _sweep(self) -> None:
        now = monotonic()
        old: list[Connection] = []
        with self._lock:
            for name, peer in list(self._peers.items()):
                old += [each for each in peer.idle if now - each.asked_at >= IDLE_S]
                peer.idle = [each for each in peer.idle if now - each.asked_at < IDLE_S]
                if now - peer.used_at >= FORGET_S and not (peer.idle or peer.in_flight or peer.queued):
                    del self._peers[name]
                    self._learnt.pop(peer.address, None)
                    self._incarnations.pop(name, None)
        for connection in old:
            connection.close()

    def close(self) -> None:
        self._closed = True
        for peer in list(self._peers.values()):
            self.drop_idle(peer)

    def abandon(self) -> None:
        """After a fork: the connections are the parent's. Closes this process's copies, whoever held the lock."""
        for peer in self._peers.values():
            for connection in peer.idle:
                connection.close()

    # --- what others ask -----------------------------------------------------------------------------------------------

    def hedge_delay(self, identity: str) -> float:
        peer, times = self._peers.get(identity), self._timeouts
        if peer is None:
            return times.hedge_min_s
        return peer.latency.hedge_delay(times.hedge_min_s, times.hedge_max_s)

    def reset(self, identity: str) -> None:
        with self._lock:
            peer = self._peers.get(identity)
            if peer is not None:
                peer.breaker.reset()

    def identity_at(self, host: str, port: int) -> str | None:
        return self._learnt.get((host, port))

    def incarnation_of(self, identity: str) -> int | None:
        return self._incarnations.get(identity)
