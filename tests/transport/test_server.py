"""The server that peers talk to: who fills it up, who is slow, what goes wrong inside."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import Any

import pytest

from clustersession.config import Address, Limits, Timeouts
from clustersession.core.calls import Applied, Call, Done, Each, Found, Many, Reply, Touch, Unreachable
from clustersession.core.node import Member
from clustersession.core.record import Record, Stamp
from clustersession.core.together import PIECE_MAX
from clustersession.transport import server as server_module
from clustersession.transport.asynchronous import AsyncioTransport
from clustersession.transport.blocking import BlockingTransport
from clustersession.transport.http1 import request_bytes, response_bytes
from clustersession.transport.link import HELLO_REFUSED, Initiator
from clustersession.transport.server import PeerServer
from clustersession.transport.wiring import LOG_INTERVAL_S, Report
from tests.transport.kit import KEY, ServerThread, answer, eventually, fetch, patch, serving, until_closed, wiring

APPLIED = Applied(1, 2, ("b", "a"))
IMPATIENT = Timeouts(header_s=0.2, body_s=0.3, connect_s=2.0, request_s=5.0)


@contextmanager
def calling(server: ServerThread, **changes: Any) -> Iterator[BlockingTransport]:
    transport = BlockingTransport(wiring("a", **changes))
    try:
        yield transport
    finally:
        transport.close()


def ask(transport: BlockingTransport, server: ServerThread, call: Call | None = None) -> Reply:
    return transport.ask(server.member, call or patch(1), monotonic() + 10.0)


def connected(server: ServerThread) -> socket.socket:
    return socket.create_connection((server.address.host, server.address.port), 10.0)


def introduced(server: ServerThread) -> tuple[socket.socket, Initiator]:
    """A connection whose hello is done, for a test to write on."""
    sock, initiator = connected(server), Initiator(wiring("a"), "b")
    sock.sendall(initiator.hello())
    while initiator.peer is None:
        initiator.feed(sock.recv(65536))
    return sock, initiator


def asked(initiator: Initiator, call: Call) -> bytes:
    return initiator.ask(call)


def replies(sock: socket.socket, initiator: Initiator) -> list[Reply]:
    """The next ones that arrive."""
    while not (found := initiator.feed(sock.recv(65536))):
        pass
    return found


def drip(sock: socket.socket, data: bytes, every_s: float, step: int = 1) -> None:
    """Send like somebody who has all the time in the world."""
    for begin in range(0, len(data), step):
        sock.sendall(data[begin : begin + step])
        sleep(every_s)


# --- strangers -------------------------------------------------------------------------------------------------------


def test_a_thousand_idle_sockets_keep_nobody_out() -> None:
    """They are dropped, the oldest first, while peers go on calling on old and on new connections."""
    with serving() as server, calling(server) as before, calling(server) as after, ExitStack() as idle:
        assert ask(before, server) == APPLIED
        for _ in range(1000):
            idle.enter_context(connected(server))
        assert ask(before, server) == APPLIED
        assert ask(after, server) == APPLIED
        assert server.server.connections <= Limits().connections_max
        assert server.events["peer.crowded_out"] > 500


def test_a_socket_that_says_nothing_is_dropped() -> None:
    """After the header time-out, before a hello or between the hello and the first request."""
    with serving(wiring("b", timeouts=IMPATIENT)) as server:
        sock, _ = introduced(server)
        with connected(server) as silent, sock:
            assert until_closed(silent) == b""
            assert until_closed(sock) == b""
        assert server.events["peer.slow"] == 2


def test_a_hello_that_drips_is_dropped() -> None:
    """One byte now and then does not prolong the time."""
    with serving(wiring("b", timeouts=IMPATIENT)) as server, connected(server) as sock:
        greeting, began = Initiator(wiring("a"), "b").hello(), monotonic()
        with pytest.raises(OSError):
            drip(sock, greeting, every_s=0.02)
        assert monotonic() - began < 5.0


@pytest.mark.parametrize("stage", ["head", "body"])
def test_a_request_that_drips_is_dropped(stage: str) -> None:
    """A peer that has proven itself has the header time-out for a head and the body time-out for a body."""
    with serving(wiring("b", timeouts=IMPATIENT)) as server:
        sock, initiator = introduced(server)
        with sock:
            sock.sendall(asked(initiator, patch(1)))
            assert sock.recv(65536)
            request = asked(initiator, patch(2))
            sock.sendall(request[: 30 if stage == "head" else -1])
            began = monotonic()
            assert until_closed(sock) == b""
            assert monotonic() - began > 0.15
        eventually(lambda: server.events["peer.slow"] == 1)


def test_a_request_in_pieces_is_answered() -> None:
    """Slowness within the bounds is no fault."""
    with serving(wiring("b", timeouts=IMPATIENT)) as server:
        sock, initiator = introduced(server)
        with sock:
            for number in range(3):
                request = asked(initiator, patch(number))
                drip(sock, request, every_s=0.01, step=100)
                assert initiator.feed(sock.recv(65536)) == [APPLIED]


@pytest.mark.parametrize(
    "junk",
    [
        b"\0" * 300,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        request_bytes(b"POST /v1/hello", b"0", b"x" * 100),
        request_bytes(b"POST /v1/members", b"0", b"x" * 100),
        request_bytes(b"POST /v1/hello", b"0", b"x" * 5000),
        b"POST /v1/hello HTTP/1.1\r\nhost: clustersession\r\ncontent-length: 999999999\r\ncs-sent: 0\r\n\r\n",
    ],
    ids=["zeros", "a browser", "no hello", "no greeting first", "a long hello", "a very long hello"],
)
def test_junk_is_dropped_without_a_word(junk: bytes) -> None:
    """No version, no name, no reason; counted."""
    with serving() as server:
        with connected(server) as sock:
            sock.sendall(junk)
            assert until_closed(sock) == b""
        eventually(lambda: server.server.connections == 0)
        assert server.events["peer.rejected"] == 1


def test_a_stranger_learns_that_it_is_refused_and_nothing_else() -> None:
    """The same answer for every reason, without a name in it."""
    answers = set()
    with serving() as server:
        for changes in ({"cluster": "other"}, {}):
            with connected(server) as sock:
                sock.sendall(Initiator(wiring("a", **changes), "c").hello())
                answers.add(until_closed(sock))
    assert answers == {HELLO_REFUSED}


def test_a_flood_of_junk_is_bounded() -> None:
    """Thousands of junk connections leave no connection, few log lines, and calls are answered all the time."""
    with serving() as server, calling(server) as transport:
        assert ask(transport, server) == APPLIED
        for number in range(2000):
            with connected(server) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n" if number % 2 else b"\xff" * 200)
            if number % 100 == 0:
                assert ask(transport, server) == APPLIED
        eventually(lambda: server.server.connections == 1)


def test_pipelined_junk_after_a_good_request_is_not_acted_on() -> None:
    """Whatever follows a bad message on a connection is dropped with it."""
    handled: list[Call] = []

    def handler(call: Call, peer: str) -> Reply:
        handled.append(call)
        return answer(call, peer)

    with serving(handler=handler) as server:
        sock, initiator = introduced(server)
        with sock:
            first, second = asked(initiator, patch(1)), asked(initiator, patch(2))
            sock.sendall(first)
            assert initiator.feed(sock.recv(65536)) == [APPLIED]
            sock.sendall(b"junk" * 100 + second)
            assert until_closed(sock) == b""
        assert handled == [patch(1)]


def test_logs_are_not_filled_by_strangers(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each kind of event and subject in ten seconds; what a stranger sent is shown as a repr, and cut."""
    now = [0.0]
    wired = wiring("b", clock=lambda: now[0])
    report = Report(wired)
    with caplog.at_level(logging.WARNING, "clustersession.peers"):
        for _ in range(1000):
            report.warn("peer.rejected", "10.0.0.9\r\nforged: line", "x\n" * 1000)
        assert len(caplog.records) == 1
        assert "\n" not in caplog.records[0].getMessage()
        assert len(caplog.records[0].getMessage()) < 1000
        now[0] = LOG_INTERVAL_S
        report.warn("peer.rejected", "10.0.0.9\r\nforged: line", "again")
        for number in range(1000):
            report.warn("peer.rejected", f"10.0.{number}", "other")
    assert len(caplog.records) == 1002


# --- how many --------------------------------------------------------------------------------------------------------


def test_connections_are_bounded() -> None:
    """A full server turns further ones away; those it has go on."""
    small = wiring("b", limits=Limits(connections_max=8))
    with serving(small) as server, ExitStack() as stack:
        callers = []
        for identity in ("a", "c", "d", "e"):
            for _ in range(2):
                transport = BlockingTransport(wiring(identity))
                stack.callback(transport.close)
                assert ask(transport, server) == APPLIED
                callers.append(transport)
        with calling(server) as late:
            assert ask(late, server) == Unreachable("refused")
        assert [ask(transport, server) for transport in callers] == [APPLIED] * 8
    assert small.observer["peer.too_many"] == 1  # type: ignore[index]


def test_one_peer_cannot_take_all_connections() -> None:
    """Half of them are the most for one identity; others still get in."""
    with serving(wiring("b", limits=Limits(connections_max=8))) as server, ExitStack() as stack:
        greedy = []
        for _ in range(5):
            transport = BlockingTransport(wiring("a"))
            stack.callback(transport.close)
            greedy.append(ask(transport, server))
        assert greedy == [APPLIED] * 4 + [Unreachable("auth")]
        other = BlockingTransport(wiring("c"))
        stack.callback(other.close)
        assert ask(other, server) == APPLIED


def test_idle_connections_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that vanished without a word holds no connection for ever; one that is used stays."""
    monkeypatch.setattr(server_module, "IDLE_S", 0.3)
    monkeypatch.setattr(server_module, "SWEEP_S", 0.05)
    with serving() as server, calling(server) as busy, calling(server) as idle:
        assert [ask(idle, server), ask(busy, server)] == [APPLIED] * 2
        assert server.server.connections == 2
        eventually(lambda: ask(busy, server) == APPLIED and server.server.connections == 1)
        assert ask(idle, server) == APPLIED


def test_without_descriptors_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """accept() failing for want of descriptors neither ends the server nor keeps it busy."""
    monkeypatch.setattr(server_module, "NO_ROOM_PAUSE_S", 0.02)
    with serving() as server, calling(server) as transport:
        listener = server.server._listener
        assert listener is not None
        failing = Failing(listener, 3)
        server.server._listener = failing  # type: ignore[assignment]
        assert ask(transport, server) == APPLIED
        assert failing.left == 0
        assert server.events["peer.accept_failed"] == 3
        server.server._listener = listener


class Failing:
    """A listener whose first calls of accept() fail."""

    def __init__(self, listener: socket.socket, times: int) -> None:
        self._listener, self.left = listener, times

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()


# --- slow readers ----------------------------------------------------------------------------------------------------


def large(call: Call, peer: str) -> Reply:
    return Found(Record(1, 2, ("b", "a"), {"cart": (Stamp(1, 2, "b"), b"x" * 60_000)}), serving=True)


def test_a_peer_that_does_not_read_is_not_answered_for_ever() -> None:
    """Many requests for large records, no reading: the server stops working for it, keeps little, and drops it."""
    answered: list[int] = []

    def handler(call: Call, peer: str) -> Reply:
        answered.append(1)
        return large(call, peer)

    with serving(wiring("b", timeouts=IMPATIENT), handler) as server:
        sock, initiator = introduced(server)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        requests = [asked(initiator, fetch()) for _ in range(2000)]
        with sock:
            try:
                sock.sendall(b"".join(requests))
            except ConnectionError:  # dropped while it still sent: fine, too
                pass
            eventually(lambda: server.server.connections == 0)
        assert server.events["peer.slow"] == 1
        assert len(answered) < 500


def test_a_peer_that_reads_late_gets_everything() -> None:
    """Backpressure is not loss: what was asked is answered in order once it reads."""
    with serving(handler=large) as server:
        sock, initiator = introduced(server)
        with sock:
            count = 300
            writer = threading.Thread(target=sock.sendall, args=(b"".join(asked(initiator, fetch()) for _ in range(count)),))
            writer.start()
            eventually(lambda: any(connection._full for connection in server.server._proven))
            replies: list[Reply] = []
            while len(replies) < count:
                replies += initiator.feed(sock.recv(65536))
            writer.join()
        assert all(isinstance(reply, Found) for reply in replies)


# --- what goes wrong inside ------------------------------------------------------------------------------------------


def test_others_have_their_turn_while_much_is_done_for_one_peer() -> None:
    """A small request waits for a piece of a large one, not for all of it; both are answered."""
    begun, sent, order = threading.Event(), threading.Event(), list[str]()

    def handler(call: Call, peer: str) -> Reply:
        if not isinstance(call, Many):
            order.append("small")
            return answer(call, peer)
        order.append("piece")
        begun.set()
        assert sent.wait(10.0)
        return Each((Done(),) * len(call.calls))

    with serving(handler=handler) as server:
        (one, much), (other, little) = introduced(server), introduced(server)
        with one, other:
            other.sendall(asked(little, patch(1)))
            assert replies(other, little) == [APPLIED]
            one.sendall(asked(much, Many((Touch(KEY),) * (5 * PIECE_MAX))))
            assert begun.wait(10.0)
            other.sendall(asked(little, patch(1)))
            sent.set()
            assert replies(other, little) == [APPLIED]
            assert replies(one, much) == [Each((Done(),) * (5 * PIECE_MAX))]
    assert order.count("piece") == 5
    assert order.index("small", 1) == 2


def test_a_fault_of_the_handler_closes_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and logged with its traceback, the peer gets no answer, and the server goes on."""

    def fail(call: Call, peer: str) -> Reply:
        if call == patch(13):
            raise ZeroDivisionError
        return answer(call, peer)

    with serving(handler=fail) as server, calling(server) as transport, caplog.at_level(logging.ERROR):
        assert ask(transport, server, patch(13)) == Unreachable("garbage")
        assert ask(transport, server, patch(1)) == APPLIED
        assert server.events["peer.handler_failed"] == 1
    assert any(record.exc_info for record in caplog.records)


def test_an_authentic_request_that_does_not_decode_closes_the_connection() -> None:
    """A peer with the key can still be wrong: its request is dropped, others are not disturbed."""
    with serving() as server:
        sock, initiator = introduced(server)
        channel = initiator._channel
        assert channel is not None
        sent = b"%x" % int(monotonic() * 1e6)
        body = channel.requests.seal(b"POST /v1/members %b" % sent, b"no message", bytes(12))
        with sock:
            sock.sendall(request_bytes(b"POST /v1/members", sent, body))
            assert until_closed(sock) == b""
        assert server.events["peer.rejected"] == 1


def test_a_stopped_server_is_gone() -> None:
    """Its port refuses, its connections are closed, and it may be started again."""
    with serving() as server, calling(server) as transport, connected(server) as silent:
        assert ask(transport, server) == APPLIED
        server.run(server.server.stop())
        assert until_closed(silent) == b""
        assert server.server.connections == 0
        with pytest.raises(ConnectionRefusedError):
            connected(server)
        server.run(server.server.stop())
        again = server.run(server.server.start(server.address))
        assert again == server.address
        assert ask(transport, server) == APPLIED


def test_it_listens_where_it_is_told() -> None:
    """IPv6 too; on a port that is taken it says so."""

    async def both() -> None:
        server, other = PeerServer(answer, wiring("b")), PeerServer(answer, wiring("b"))
        address = await server.start(Address(host="::1", port=0))
        with pytest.raises(OSError):
            await other.start(address)
        transport = AsyncioTransport(wiring("a"))
        reply = await transport.ask(Member("b", "::1", address.port, 7), patch(1), monotonic() + 10.0)
        assert reply == APPLIED
        assert "1 connections of peers, 0 newcomers" in repr(server)
        await transport.close()
        await server.stop()

    asyncio.run(both())


def test_a_response_is_no_request() -> None:
    """What a server sends, a server does not take."""
    with serving() as server, connected(server) as sock:
        sock.sendall(response_bytes(200, b"x" * 300))
        assert until_closed(sock) == b""
