"""A call to a peer from end to end: breaker, place in flight, connection, one retry, accounts. And several calls at once.

Written once, as generators that yield what must be waited for; `blocking` and `asynchronous` run them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from os import getpid
from time import monotonic
from typing import Final, TypeAlias

from ..config import Address
from ..core.calls import Call, Reply, Unreachable
from ..core.node import Member
from ..errors import PeerRefused, WireError
from ..ports import Outgoing
from .connection import Closed, Connection, Dialer, Failed, Steps, Want
from .hedging import Schedule
from .peers import Peer, Peers
from .wiring import Report, Wiring

QUEUE_STEP_S: Final = 0.003

Exchange: TypeAlias = Generator[tuple[dict[int, Want], float], list[int], list[Reply | None]]
"""Yields what its calls want and when it must be woken at the latest; is sent the wants that are fulfilled."""


class Client:
    """Makes calls, as steps for `blocking` and `asynchronous` to run.

    What the peer or the network does ends as `Unreachable`, never as an exception. Deadlines are seconds of `time.monotonic`.
    Usable from any thread; after a fork the child starts without connections.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._report = Report(wiring)
        self._dialer = Dialer(wiring)
        self._begin()

    def _begin(self) -> None:
        self._current = (getpid(), Peers(self._wiring.timeouts, self._wiring.entropy))

    @property
    def _peers(self) -> Peers:
        pid, peers = self._current
        if pid != getpid():
            peers.abandon()
            self._begin()
            return self._current[1]
        return peers

    # --- one call ------------------------------------------------------------------------------------------------------

    def _ask(self, member: Member, call: Call, deadline: float) -> Steps[Reply]:
        """One call: done by `deadline`, and within the request time-out."""
        peers, began = self._peers, monotonic()
        peer = peers.of(member)
        reply: Reply | None = peers.refusal(peer, call)
        if reply is None:
            until = min(deadline, began + self._wiring.timeouts.request_s)
            reply = yield from self._guarded(peers, peer, member, call, until)
            if reply == _TIMEOUT and deadline <= until:
                reply = _BUDGET
            peers.note(peer, reply, monotonic() - began)
        if isinstance(reply, Unreachable):
            self._wiring.observer.count(f"peer.{reply.why}")
        return reply

    def _guarded(self, peers: Peers, peer: Peer, member: Member, call: Call, until: float) -> Steps[Reply]:
        try:
            yield from self._entered(peers, peer, until)
            try:
                return (yield from self._asked(peers, peer, member, call, until))
            finally:
                peers.leave(peer)
        except Failed as failure:
            return Unreachable(failure.why)
        except Closed:  # after the request was sent on a new connection: it may have been carried out
            return Unreachable("garbage")
        except (WireError, PeerRefused) as error:
            self._report.warn("peer.rejected", f"{member.identity} at {member.host}:{member.port}", error)
            return Unreachable("garbage")

    def _entered(self, peers: Peers, peer: Peer, until: float) -> Steps[None]:
        if peers.enter(peer):
            return
        if not peers.queue(peer):
            raise Failed("busy")
        try:
            while True:
                yield Want(None, 0, min(until, monotonic() + QUEUE_STEP_S))
                if peers.enter(peer):
                    return
                if monotonic() >= until:
                    raise Failed("busy")
        finally:
            peers.unqueue(peer)

    def _asked(self, peers: Peers, peer: Peer, member: Member, call: Call, until: float) -> Steps[Reply]:
        """Once on an idle connection and, if the peer had closed that or its clock has jumped, once more on a new one.

        All calls may be repeated: patches have ids, everything else names an epoch or a version.
        """
        connection = peers.take(peer, self._wiring.ring())
        if connection is not None:
            try:
                reply = yield from self._conversed(peers, peer, connection, call, until)
                if reply != _STALE:
                    return reply
            except Closed:
                pass
            peers.drop_idle(peer)  # a peer that closed one has most likely started anew
        connection = yield from self._dialer.open(member, until)
        peers.opened(peer, connection)
        return (yield from self._conversed(peers, peer, connection, call, until))

    def _conversed(self, peers: Peers, peer: Peer, connection: Connection, call: Call, until: float) -> Steps[Reply]:
        try:
            reply = yield from connection.ask(call, until)
            connection.broken = connection.broken or reply == _STALE
            return reply
        except Failed:
            connection.broken = True
            raise
        finally:  # also when the caller lost interest: the reply is read before the next use
            peers.put(peer, connection)

    # --- several calls, and none ---------------------------------------------------------------------------------------

    def _exchange(self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None) -> Exchange:
        """Several calls at once, or a hedge; what is still under way at the end is given up."""
        schedule = Schedule(batch, enough, monotonic())
        running: dict[int, Steps[Reply]] = {}
        wants: dict[int, Want] = {}

        def step(index: int, ready: bool | None) -> None:
            try:
                steps = running[index]
                wants[index] = next(steps) if ready is None else steps.send(ready)
            except StopIteration as stop:
                del running[index]
                wants.pop(index, None)
                schedule.answered(index, stop.value)

        try:
            while not schedule.done:
                due = schedule.due(monotonic())
                for index in due:
                    running[index] = self._ask(batch[index].member, batch[index].call, deadline)
                    step(index, None)
                if due:
                    continue
                fulfilled = yield wants, min(schedule.next_at, *(want.until for want in wants.values()))
                now = monotonic()
                for index, want in list(wants.items()):
                    if index in fulfilled or now >= want.until:
                        step(index, index in fulfilled)
        finally:
            for steps in running.values():
                steps.close()
        return schedule.replies

    def tell(self, member: Member, call: Call) -> None:
        """Send on an idle connection, or not at all; never waits. The reply is read before the connection's next use."""
        peers = self._peers
        peer = peers.of(member)
        connection = peers.take(peer, self._wiring.ring(), probe=True) if peer.breaker.closed else None
        if connection is None or not connection.tell(call):
            self._wiring.observer.count("peer.untold")
        if connection is not None:
            peers.put(peer, connection)

    # --- what is known of peers ----------------------------------------------------------------------------------------

    def hedge_delay(self, identity: str) -> float:
        """Seconds after which another peer should be asked too when this one has not answered: its 95th percentile, bounded."""
        return self._peers.hedge_delay(identity)

    def reset(self, identity: str) -> None:
        """Close the breaker of this peer: somebody knows that it is well."""
        self._peers.reset(identity)

    def identity_at(self, address: Address) -> str | None:
        """Who proved to be at `address` when a connection was last opened to it."""
        return self._peers.identity_at(address.host, address.port)

    def incarnation_of(self, identity: str) -> int | None:
        """Which start of this peer the last connection opened to it has reached."""
        return self._peers.incarnation_of(identity)

    def _close(self) -> None:
        self._peers.close()


_STALE: Final = Unreachable("stale")
_TIMEOUT: Final = Unreachable("timeout")
_BUDGET: Final = Unreachable("budget")
