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
from .peers import FAILURES, Peer, Peers
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
        self._closed = False
        self._request_s = wiring.timeouts.request_s
        self._begin()

    def _begin(self) -> None:
        self._pid = getpid()
        self._own = Peers(self._wiring.timeouts, self._wiring.entropy)

    @property
    def _peers(self) -> Peers:
        if getpid() != self._pid:  # forked: the connections are the parent's, these are copies
            self._own.close()
            self._begin()
        return self._own

    # --- one call ------------------------------------------------------------------------------------------------------

    def _ask(self, member: Member, call: Call, deadline: float) -> Steps[Reply]:
        """One call: done by `deadline`, and within the request time-out."""
        began, peers = monotonic(), self._peers
        peer = peers.known.get(member.identity)
        if peer is None or peer.member is not member:
            peer = peers.of(member)
        until = began + self._request_s
        try:
            reply = yield from self._asked(peers, peer, call, min(until, deadline))
        except Failed as failure:
            why = "budget" if failure.why == "timeout" and deadline < until else failure.why
        except Closed:  # a new connection, after the request was sent: it may have been carried out
            why = "garbage"
        except (WireError, PeerRefused) as error:
            self._report.warn("peer.rejected", f"{member.identity} at {member.host}:{member.port}", error)
            why = "garbage"
        else:
            peer.latency.note(monotonic() - began)
            peer.silent_since = None
            if peer.breaker.troubled:
                peers.succeeded(peer)
            return reply
        if why in FAILURES:
            peers.failed(peer, began)
        self._wiring.observer.count(f"peer.{why}")
        return Unreachable(why)

    def _asked(self, peers: Peers, peer: Peer, call: Call, until: float) -> Steps[Reply]:
        """Once on an idle connection and, if the peer had closed that or its clock has jumped, once more on a new one.

        Every call may be repeated: patches have ids, everything else names an epoch or a version.
        """
        if peer.breaker.troubled:
            peers.check(peer, call)
        try:
            connection = peer.places.pop()
        except IndexError:
            connection = yield from self._queued(peer, until)
        try:
            if connection is not None:
                if connection.usable(self._wiring.ring(), monotonic(), self._request_s):
                    try:
                        reply = yield from connection.ask(call, until)
                        if reply != _STALE:
                            return reply
                    except Closed:
                        peer.drop_idle()  # it has most likely started anew
                connection.close()
                connection = None
            connection = yield from self._dialer.open(peer.member, until)
            peers.opened(peer, connection)
            return (yield from connection.ask(call, until))
        except GeneratorExit:  # the caller lost interest; the reply is read before the connection's next use
            peers.given_up(peer, connection)
            raise
        finally:
            peer.give_back(connection)
            if self._closed:
                peer.drop_idle()

    def _queued(self, peer: Peer, until: float) -> Steps[Connection | None]:
        try:
            peer.queue.pop()
        except IndexError:
            raise Failed("busy") from None
        try:
            while (now := monotonic()) < until:
                try:
                    return peer.places.pop()
                except IndexError:
                    yield Want(None, 0, min(until, now + QUEUE_STEP_S))
            raise Failed("busy")
        finally:
            peer.queue.append(None)

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
        told = False
        while peer.breaker.closed and peer.places and not told:
            try:
                connection = peer.places.pop()
            except IndexError:
                break
            if connection is None:
                peer.give_back(None)
                break
            connection.drain()
            told = connection.usable(self._wiring.ring(), monotonic(), self._request_s) and connection.tell(call)
            connection.broken = connection.broken or not told
            peer.give_back(connection)
        if not told:
            self._wiring.observer.count("peer.untold")

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

    def hang_up(self) -> None:
        self._closed = True
        self._peers.close()


_STALE: Final = Unreachable("stale")
