"""What a process knows of each peer: places for calls in flight with their connections, breaker, latency.

Places are taken and given back by single list operations, which are atomic; the lock is for what happens rarely, and never held
over anything that could let another greenlet run: it may be older than gevent's patches.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import Final

from ..config import Timeouts
from ..core.calls import Call, Heartbeat
from ..core.node import Member, State
from ..ports import Entropy
from .breaker import Breaker
from .connection import Connection, Failed
from .hedging import Latency

IN_FLIGHT_MAX: Final = 32
QUEUE_MAX: Final = 64
FORGET_S: Final = 600.0

FAILURES: Final = frozenset({"refused", "timeout", "garbage", "auth"})
"""Why a peer gave no answer, where that speaks against the peer."""


class Peer:
    """One peer as this process sees it.

    `places`: one for each further call that may be in flight, with the connection that is idle in it or None. The last one
    given back is the first one taken.
    """

    __slots__ = ("breaker", "latency", "member", "places", "queue", "silent_since", "used_at", "well_since")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.breaker = Breaker()
        self.latency = Latency()
        self.places: list[Connection | None] = [None] * IN_FLIGHT_MAX
        self.queue: list[None] = [None] * QUEUE_MAX  # places of those who wait for a place
        self.silent_since: float | None = None  # a call was given up then, and nothing was heard since
        self.used_at = monotonic()
        self.well_since = 0.0  # what failed but began earlier says nothing: somebody knew better meanwhile

    def __repr__(self) -> str:
        return f"<Peer {self.member.identity!r}: {self.in_flight} in flight, {self.idle} idle, {self.breaker!r}>"

    @property
    def in_flight(self) -> int:
        return IN_FLIGHT_MAX - len(self.places)

    @property
    def idle(self) -> int:
        """Idle connections."""
        return sum(place is not None for place in self.places)

    def give_back(self, connection: Connection | None) -> None:
        """End the stay in a place; a connection that is broken is closed."""
        if connection is not None and not connection.broken:
            self.places.append(connection)
            return
        if connection is not None:
            connection.close()
        self.places.insert(0, None)

    def drop_idle(self, older_than: float | None = None) -> None:
        """Close the connections that are idle now, or those of them not used since a time."""
        for _ in range(len(self.places)):
            try:
                connection = self.places.pop(0)
            except IndexError:  # others took the rest meanwhile
                return
            if connection is not None and (older_than is None or connection.asked_at < older_than):
                connection.close()
                connection = None
            self.places.append(connection)


class Peers:
    """All peers of one process, for any thread; of no use after a fork."""

    def __init__(self, timeouts: Timeouts, entropy: Entropy) -> None:
        self._timeouts, self._entropy = timeouts, entropy
        self._lock = Lock()
        self.known: dict[str, Peer] = {}
        self._learnt: dict[tuple[str, int], str] = {}
        self._incarnations: dict[str, int] = {}

    def of(self, member: Member) -> Peer:
        """The peer; one that has moved or started anew is met without prejudice."""
        name = member.identity or f"{member.host}:{member.port}"
        peer = self.known.get(name)
        if peer is None:
            with self._lock:
                peer = self.known.setdefault(name, Peer(member))
        known = peer.member
        if known is not member:
            peer.member = member
            back = member.state is State.ALIVE and known.state is not State.ALIVE
            moved = (known.host, known.port) != (member.host, member.port)
            if back or moved or known.incarnation < member.incarnation:
                self.reset(name)
                peer.drop_idle()
        return peer

    def check(self, peer: Peer, call: Call) -> None:
        """Raises `Failed` where the breaker is open. Heartbeats always pass: by them a peer that is back gets noticed."""
        if isinstance(call, Heartbeat) or not peer.member.reachable:
            return  # who is dead in the member table is asked only as the last resort: it may be back
        with self._lock:
            if not peer.breaker.allows(monotonic()):
                raise Failed("breaker")

    def failed(self, peer: Peer, began: float) -> None:
        """A call that began then was not answered."""
        if began < peer.well_since:
            return
        with self._lock:
            peer.breaker.failed(monotonic(), int.from_bytes(self._entropy.bytes(4), "big") / 2**32)

    def given_up(self, peer: Peer, connection: Connection | None) -> None:
        """A call was given up for another peer's answer: a failure only if nothing at all was heard for a request time-out."""
        now = monotonic()
        if peer.silent_since is None or (connection is not None and connection.heard_at >= peer.silent_since):
            peer.silent_since = now
        elif now - peer.silent_since >= self._timeouts.request_s:
            self.failed(peer, peer.silent_since)

    def succeeded(self, peer: Peer) -> None:
        """To be told while the breaker is `troubled`."""
        with self._lock:
            peer.breaker.succeeded()

    def opened(self, peer: Peer, connection: Connection) -> None:
        """There is a new connection: note who is there and, as this happens rarely, tidy up."""
        hello = connection.link.peer
        assert hello is not None
        now = monotonic()
        peer.used_at = now
        for other in list(self.known.values()):
            other.drop_idle(older_than=now - Connection.IDLE_S)
        with self._lock:
            self._learnt[peer.member.host, peer.member.port] = hello.identity
            self._incarnations[hello.identity] = hello.incarnation
            for name, other in list(self.known.items()):
                if now - other.used_at >= FORGET_S and not (other.idle or other.in_flight):
                    del self.known[name]
                    self._learnt.pop((other.member.host, other.member.port), None)
                    self._incarnations.pop(name, None)

    def close(self) -> None:
        """Close all idle connections. Takes no lock, so that it serves after a fork too, for the child's copies."""
        for peer in list(self.known.values()):
            peer.drop_idle()

    # --- what others ask -----------------------------------------------------------------------------------------------

    def hedge_delay(self, identity: str) -> float:
        peer, times = self.known.get(identity), self._timeouts
        if peer is None:
            return times.hedge_min_s
        return peer.latency.hedge_delay(times.hedge_min_s, times.hedge_max_s)

    def reset(self, name: str) -> None:
        with self._lock:
            peer = self.known.get(name)
            if peer is not None:
                peer.breaker.reset()
                peer.well_since, peer.silent_since = monotonic(), None

    def identity_at(self, host: str, port: int) -> str | None:
        return self._learnt.get((host, port))

    def incarnation_of(self, identity: str) -> int | None:
        return self._incarnations.get(identity)
