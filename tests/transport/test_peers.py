"""What a process remembers of its peers, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from clustersession.config import Address
from clustersession.core.calls import Applied
from clustersession.core.node import Member, State
from clustersession.transport import peers as peers_module
from clustersession.transport.blocking import BlockingTransport
from clustersession.transport.breaker import FAILURES_IN_A_ROW
from clustersession.transport.connection import Connection
from clustersession.transport.peers import IN_FLIGHT_MAX, Peer
from tests.transport.kit import ServerThread, eventually, patch, serving, wiring

APPLIED = Applied(1, 2, ("b", "a"))


@pytest.fixture
def transport() -> Iterator[BlockingTransport]:
    made = BlockingTransport(wiring("a"))
    yield made
    made.close()


def ask(transport: BlockingTransport, server: ServerThread) -> object:
    return transport.ask(server.member, patch(1), monotonic() + 10.0)


def peer_of(transport: BlockingTransport, server: ServerThread) -> Peer:
    return transport._peers.of(server.member)


def test_it_shows_what_is_going_on(transport: BlockingTransport) -> None:
    """For logs and the debugger."""
    with serving() as server:
        assert ask(transport, server) == APPLIED
        peer = peer_of(transport, server)
        assert repr(peer) == "<Peer 'b': 0 in flight, 1 idle, <Breaker: closed, 0 of 0 failed>>"
        assert "0 replies pending" in repr(peer.places[-1])


def test_an_old_connection_is_not_used_again(transport: BlockingTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The offset of the clocks that its hello measured does not hold for ever."""
    monkeypatch.setattr(Connection, "AGE_S", 0.0)
    with serving() as server:
        assert [ask(transport, server), ask(transport, server)] == [APPLIED] * 2
        eventually(lambda: server.server.connections == 1)


def test_idle_connections_to_all_peers_are_closed_in_time(transport: BlockingTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a connection to anybody opens: those to peers that nobody asks any more are not kept."""
    with serving() as one, serving(wiring("c")) as other:
        assert ask(transport, one) == APPLIED
        assert peer_of(transport, one).idle == 1
        monkeypatch.setattr(Connection, "IDLE_S", 0.0)
        assert ask(transport, other) == APPLIED
        assert peer_of(transport, one).idle == 0
        eventually(lambda: one.server.connections == 0)


def test_peers_that_are_gone_are_forgotten(transport: BlockingTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout in which every node gets a new name leaves nothing of the old ones."""
    with serving() as one, serving(wiring("c")) as other:
        assert ask(transport, one) == APPLIED
        assert transport.incarnation_of("b") == 7
        monkeypatch.setattr(Connection, "IDLE_S", 0.0)
        monkeypatch.setattr(peers_module, "FORGET_S", 0.0)
        assert ask(transport, other) == APPLIED
        assert list(transport._peers.known) == ["c"]
        assert transport.incarnation_of("b") is None
        assert transport.identity_at(Address(host=one.address.host, port=one.address.port)) is None
        assert ask(transport, one) == APPLIED


@pytest.mark.parametrize(
    "news",
    [
        Member("b", "127.0.0.1", 2, 7),
        Member("b", "127.0.0.2", 1, 7),
        Member("b", "127.0.0.1", 1, 8),
    ],
    ids=["port", "host", "incarnation"],
)
def test_a_peer_that_moved_or_started_anew_is_met_without_prejudice(transport: BlockingTransport, news: Member) -> None:
    """Its breaker is closed; the same news again changes nothing."""
    peers = transport._peers
    peer = peers.of(Member("b", "127.0.0.1", 1, 7))
    for _ in range(FAILURES_IN_A_ROW):
        peers.failed(peer, monotonic())
    assert not peers.of(Member("b", "127.0.0.1", 1, 7)).breaker.closed
    assert peers.of(news).breaker.closed
    for _ in range(FAILURES_IN_A_ROW):
        peers.failed(peer, monotonic())
    assert not peers.of(news).breaker.closed


def test_a_peer_that_is_alive_again_is_met_without_prejudice(transport: BlockingTransport) -> None:
    """The member table knows better than what this process has seen of it."""
    peers = transport._peers
    peer = peers.of(Member("b", "127.0.0.1", 1, 7, state=State.DEAD))
    for _ in range(FAILURES_IN_A_ROW):
        peers.failed(peer, monotonic())
    assert peers.of(Member("b", "127.0.0.1", 1, 7, state=State.ALIVE)).breaker.closed


def test_a_call_that_began_before_a_peer_was_back_says_nothing_of_it(transport: BlockingTransport) -> None:
    """Three that were under way when the link was mended must not keep everybody off it for another second."""
    peers, began = transport._peers, monotonic()
    peer = peers.of(Member("b", "127.0.0.1", 1, 7, state=State.DEAD))
    peers.of(Member("b", "127.0.0.1", 1, 8, state=State.ALIVE))
    for _ in range(FAILURES_IN_A_ROW):
        peers.failed(peer, began)
    assert peer.breaker.closed


def test_no_more_idle_connections_than_places(transport: BlockingTransport) -> None:
    """Each place holds one at most, whatever is given back in which order."""
    with serving() as server:
        assert ask(transport, server) == APPLIED
        peer = peer_of(transport, server)
        taken = [peer.places.pop() for _ in range(IN_FLIGHT_MAX)]
        for connection in reversed(taken):
            peer.give_back(connection)
        assert (peer.in_flight, peer.idle, len(peer.places)) == (0, 1, IN_FLIGHT_MAX)
        assert ask(transport, server) == APPLIED
        assert server.server.connections == 1
