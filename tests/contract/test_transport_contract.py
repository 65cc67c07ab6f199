"""What a transport promises, the same for the blocking and the asyncio one, over real sockets and with real faults."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Any

import pytest

from clustersession.config import Address, Limits, Timeouts
from clustersession.core.calls import (
    Applied,
    Apply,
    Call,
    Done,
    Fetch,
    Found,
    Full,
    Heartbeat,
    NotMine,
    Reply,
    TooLarge,
    Touch,
    Unreachable,
)
from clustersession.core.node import Member
from clustersession.errors import StoreFull
from clustersession.ports import Outgoing
from clustersession.transport.asynchronous import AsyncioTransport
from clustersession.transport.blocking import BlockingTransport
from clustersession.transport.http1 import response_bytes
from clustersession.transport.peers import IN_FLIGHT_MAX, QUEUE_MAX
from clustersession.transport.wiring import Wiring
from tests.transport.kit import (
    KEY,
    OTHER_RING,
    Events,
    Proxy,
    answer,
    eventually,
    fetch,
    free_port,
    patch,
    peer_process,
    rogue,
    serving,
    until_closed,
    wiring,
)

APPLIED = Applied(1, 2, ("b", "a"))
HUGE = 24_000_000
QUICK = Timeouts(connect_s=0.1, request_s=0.25, stale_request_s=5.0)


class Caller:
    """A transport as the tests call it: both kinds look the same from here."""

    def __init__(self, kind: str, wired: Wiring) -> None:
        self.wiring = wired
        self._closed = False
        self._runner = asyncio.Runner() if kind == "asyncio" else None
        self.transport: Any = AsyncioTransport(wired) if self._runner else BlockingTransport(wired)

    @property
    def events(self) -> Events:
        assert isinstance(self.wiring.observer, Events)
        return self.wiring.observer

    def ask(self, member: Member, call: Call, within_s: float = 10.0) -> Reply:
        deadline = monotonic() + within_s
        reply: Reply = self._run(lambda: self.transport.ask(member, call, deadline))
        return reply

    def exchange(
        self, batch: Sequence[Outgoing], enough: Callable[[Reply], bool] | None = None, within_s: float = 10.0
    ) -> list[Reply | None]:
        deadline = monotonic() + within_s
        replies: list[Reply | None] = self._run(lambda: self.transport.exchange(batch, deadline, enough))
        return replies

    def tell(self, member: Member, call: Call) -> None:
        self._run(lambda: self.transport.tell(member, call))

    def at_once(self, asks: Sequence[tuple[Member, Call]], within_s: float = 10.0) -> list[Reply]:
        """Many calls in parallel, as threads or tasks do them."""
        deadline = monotonic() + within_s
        if self._runner is None:
            with ThreadPoolExecutor(len(asks)) as threads:
                in_threads: list[Reply] = list(threads.map(lambda ask: self.transport.ask(*ask, deadline), asks))
            return in_threads

        async def gathered() -> list[Reply]:
            on_loop: list[Reply] = await asyncio.gather(*(self.transport.ask(*ask, deadline) for ask in asks))
            return on_loop

        return self._runner.run(gathered())

    def _run(self, call: Callable[[], Any]) -> Any:
        if self._runner is None:
            return call()

        async def run() -> Any:
            result = call()
            return await result if isinstance(result, Coroutine) else result

        return self._runner.run(run())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._run(self.transport.close)
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["blocking", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Caller]]:
    """Makes callers named "a" with the given differences to the usual wiring."""
    made: list[Caller] = []

    def make(**changes: Any) -> Caller:
        made.append(Caller(request.param, wiring("a", **changes)))
        return made[-1]

    yield make
    for caller in made:
        caller.close()


# --- calls that are answered -----------------------------------------------------------------------------------------


def test_a_call_is_answered(make: Callable[..., Caller]) -> None:
    """By the peer's handler, which knows who calls; all on one connection."""
    seen: list[tuple[Call, str]] = []

    def handler(call: Call, peer: str) -> Reply:
        seen.append((call, peer))
        return answer(call, peer)

    caller = make()
    with serving(handler=handler) as server:
        assert [caller.ask(server.member, patch(number)) for number in range(5)] == [APPLIED] * 5
        assert isinstance(caller.ask(server.member, fetch()), Found)
        assert seen[0] == (patch(0), "a")
        assert len(seen) == 6
        assert server.server.connections == 1
    assert caller.events == {}


def measure(call: Call, peer: str) -> Reply:
    """The version of the reply is the size of the value."""
    return Applied(len(call.patch.changes["cart"] or b""), 0, ("b", None)) if isinstance(call, Apply) else Done()


def test_calls_and_replies_of_any_size_pass(make: Callable[..., Caller]) -> None:
    """Up to the limit of a message, also as the first call of a connection."""
    caller = make()
    with serving(handler=measure) as server:
        for size in (3_000_000, 0, 1_000_000, 70_000):
            assert caller.ask(server.member, patch(1, size)) == Applied(size, 0, ("b", None))
        assert isinstance(caller.ask(server.member, patch(1, 5_000_000)), TooLarge)
        caller.tell(server.member, patch(1, 5_000_000))
        assert caller.events.pop("peer.untold") == 1
        assert caller.ask(server.member, patch(1, 1)) == Applied(1, 0, ("b", None))


def test_a_call_that_the_kernel_does_not_take_at_once_is_sent_in_parts(make: Callable[..., Caller]) -> None:
    """Larger than all buffers on the way, in both directions at once."""
    limits = Limits(message_bytes_max=HUGE * 2)
    caller = make(limits=limits)
    with serving(wiring("b", limits=limits), measure) as server:
        assert caller.ask(server.member, patch(1, HUGE)) == Applied(HUGE, 0, ("b", None))
        replies = caller.exchange([Outgoing(server.member, patch(number, HUGE)) for number in range(2)])
        assert replies == [Applied(HUGE, 0, ("b", None))] * 2


def test_many_calls_at_once_are_answered(make: Callable[..., Caller]) -> None:
    """Each gets its own reply; no more connections than places in flight."""
    caller = make()
    with serving(handler=lambda call, _: Applied(call.epoch, 0, ("b", None)) if isinstance(call, Apply) else Done()) as server:
        calls: list[tuple[Member, Call]] = [(server.member, Apply(KEY, number, patch(number).patch)) for number in range(80)]
        assert caller.at_once(calls) == [Applied(number, 0, ("b", None)) for number in range(80)]
        assert server.server.connections <= IN_FLIGHT_MAX


def test_an_exchange_asks_all_at_once(make: Callable[..., Caller]) -> None:
    """Replies stand in the order of the calls, failures among them."""
    caller = make()
    with serving() as one, serving(wiring("c"), lambda call, peer: NotMine()) as other:
        nobody = Member("d", "127.0.0.1", free_port(), 1)
        replies = caller.exchange([Outgoing(member, patch(1)) for member in (one.member, nobody, other.member)])
    assert replies == [APPLIED, Unreachable("refused"), NotMine()]
    assert caller.exchange([]) == []


def test_an_exchange_may_ask_one_peer_twice(make: Callable[..., Caller]) -> None:
    """Two calls to one peer have two connections."""
    caller = make()
    with serving() as server:
        assert caller.exchange([Outgoing(server.member, patch(number)) for number in range(3)]) == [APPLIED] * 3


# --- hedges ----------------------------------------------------------------------------------------------------------


def is_applied(reply: Reply) -> bool:
    return isinstance(reply, Applied)


def test_a_hedge_leaves_the_second_alone_when_the_first_answers(make: Callable[..., Caller]) -> None:
    """The second is not even connected to."""
    caller = make()
    with serving() as one, serving(wiring("c")) as other:
        batch = [Outgoing(one.member, patch(1)), Outgoing(other.member, patch(1), 5.0)]
        assert caller.exchange(batch, is_applied) == [APPLIED, None]
        assert other.server.connections == 0


def test_a_hedge_asks_the_second_when_the_first_is_slow(make: Callable[..., Caller]) -> None:
    """After its delay, and takes the first good answer; the peer that is silent costs no more than that."""
    caller = make()
    with rogue(until_closed) as silent, serving(wiring("c")) as other:
        began = monotonic()
        batch = [Outgoing(silent, patch(1)), Outgoing(other.member, patch(1), 0.05)]
        assert caller.exchange(batch, is_applied) == [None, APPLIED]
        assert 0.05 <= monotonic() - began < 2.0


def test_a_hedge_asks_the_second_at_once_when_the_first_fails(make: Callable[..., Caller]) -> None:
    """Refused is an answer: the delay is not waited for."""
    caller = make()
    with serving(wiring("c")) as other:
        nobody = Member("b", "127.0.0.1", free_port(), 1)
        began = monotonic()
        replies = caller.exchange([Outgoing(nobody, patch(1)), Outgoing(other.member, patch(1), 5.0)], is_applied)
        assert replies == [Unreachable("refused"), APPLIED]
        assert monotonic() - began < 4.0


def test_a_hedge_without_a_good_answer_has_all_answers(make: Callable[..., Caller]) -> None:
    """The caller sees what each said."""
    caller = make()
    with serving(handler=lambda call, peer: NotMine()) as one, serving(wiring("c"), lambda call, peer: NotMine()) as other:
        batch = [Outgoing(one.member, patch(1)), Outgoing(other.member, patch(1), 5.0)]
        assert caller.exchange(batch, is_applied) == [NotMine(), NotMine()]


def test_what_a_hedge_gave_up_does_not_disturb_the_next_call(make: Callable[..., Caller]) -> None:
    """The late reply is read before the connection is used again, and is not taken for another one's."""
    release = threading.Event()

    def slow(call: Call, peer: str) -> Reply:
        if isinstance(call, Touch):
            release.wait(10)
            return NotMine()
        return answer(call, peer)

    caller = make()
    with serving(handler=slow) as one, serving(wiring("c")) as other:
        assert caller.ask(one.member, patch(1)) == APPLIED
        batch = [Outgoing(one.member, Touch(KEY)), Outgoing(other.member, patch(1), 0.02)]
        assert caller.exchange(batch, is_applied) == [None, APPLIED]
        release.set()
        assert caller.ask(one.member, patch(1)) == APPLIED
        assert one.server.connections == 1


def test_a_connection_whose_reply_is_overdue_is_not_used_again(make: Callable[..., Caller]) -> None:
    """A reply got lost while another peer's was taken: the next call does not wait behind it."""
    caller = make(timeouts=QUICK)
    with serving() as server, serving(wiring("c")) as other:
        proxy = Proxy(server.member)
        with rogue(proxy) as between:
            assert caller.ask(between, patch(1)) == APPLIED
            proxy.change_reply = lambda data: b""
            batch = [Outgoing(between, patch(2)), Outgoing(other.member, patch(2), 0.001)]
            assert caller.exchange(batch, is_applied) == [None, APPLIED]
            sleep(QUICK.request_s)
            proxy.change_reply = lambda data: data
            assert caller.ask(between, patch(3)) == APPLIED
            assert caller.events == {}


# --- telling ---------------------------------------------------------------------------------------------------------


def test_what_is_told_arrives(make: Callable[..., Caller]) -> None:
    """On an idle connection; its reply is not taken for the next call's."""
    heard: list[Call] = []

    def handler(call: Call, peer: str) -> Reply:
        heard.append(call)
        return NotMine() if isinstance(call, Touch) else answer(call, peer)

    caller = make()
    with serving(handler=handler) as server:
        caller.ask(server.member, patch(1))
        for _ in range(3):
            caller.tell(server.member, Touch(KEY))
        assert caller.ask(server.member, patch(2)) == APPLIED
        assert heard == [patch(1), Touch(KEY), Touch(KEY), Touch(KEY), patch(2)]
        assert server.server.connections == 1


def test_telling_a_silent_peer_never_waits(make: Callable[..., Caller]) -> None:
    """Without a connection, with one whose replies don't come, or after a restart: dropped and counted, at once."""
    caller = make()
    began = monotonic()
    with rogue(until_closed) as silent:
        caller.tell(silent, Touch(KEY))
    assert caller.events["peer.untold"] == 1
    with peer_process() as (process, member):
        assert caller.ask(member, patch(1)) == APPLIED
        process.send_signal(signal.SIGSTOP)
        for _ in range(50):
            caller.tell(member, Touch(KEY))
        assert caller.events["peer.untold"] > 40
        process.send_signal(signal.SIGCONT)
    caller.tell(member, Touch(KEY))
    assert monotonic() - began < 5.0


# --- peers that are not there ----------------------------------------------------------------------------------------


def test_a_peer_that_is_down_is_refused_at_once(make: Callable[..., Caller]) -> None:
    """Nobody listens: the answer costs no time-out."""
    caller = make()
    began = monotonic()
    assert caller.ask(Member("b", "127.0.0.1", free_port(), 1), patch(1)) == Unreachable("refused")
    assert monotonic() - began < 1.0
    assert caller.events["peer.refused"] == 1


@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1 ", "", "::ffff:256.0.0.1"])
def test_a_host_that_does_not_exist_is_no_exception(make: Callable[..., Caller], host: str) -> None:
    """Whatever stands in a member table."""
    reply = make().ask(Member("b", host, 99999, 1), patch(1), within_s=1.0)
    assert reply in (Unreachable("refused"), Unreachable("timeout"), Unreachable("budget"))


def test_a_silent_peer_costs_one_request_time_out(make: Callable[..., Caller]) -> None:
    """It takes the connection and never answers: 250 ms, however long the caller would have waited."""
    caller = make(timeouts=QUICK)
    with rogue(until_closed) as silent:
        began = monotonic()
        assert caller.ask(silent, patch(1)) == Unreachable("timeout")
        assert 0.24 < monotonic() - began < 1.0


def test_a_stopped_process_costs_one_request_time_out(make: Callable[..., Caller]) -> None:
    """SIGSTOP, on a connection that was good before; after SIGCONT it answers again, and what waited was not believed."""
    caller = make(timeouts=QUICK)
    with peer_process() as (process, member):
        assert caller.ask(member, patch(1)) == APPLIED
        process.send_signal(signal.SIGSTOP)
        began = monotonic()
        assert caller.ask(member, patch(2)) == Unreachable("timeout")
        assert caller.ask(member, patch(2)) == Unreachable("timeout")
        assert monotonic() - began < 2.0
        process.send_signal(signal.SIGCONT)
        eventually(lambda: caller.ask(member, patch(3)) == APPLIED)


def test_the_deadline_ends_a_call_before_its_time_out(make: Callable[..., Caller]) -> None:
    """What the request of the app has left is the bound, and the peer is not blamed for it."""
    caller = make()
    with rogue(until_closed) as silent:
        began = monotonic()
        for _ in range(4):
            assert caller.ask(silent, patch(1), within_s=0.05) == Unreachable("budget")
        assert monotonic() - began < 1.5
    assert caller.events["peer.breaker"] == 0


def test_a_restarted_peer_costs_no_error(make: Callable[..., Caller]) -> None:
    """The idle connections are dead, the call is made once more on a new one."""
    caller, port = make(), free_port()
    with serving(port=port) as server:
        assert caller.at_once([(server.member, patch(number)) for number in range(4)]) == [APPLIED] * 4
    with serving(port=port) as server:
        assert [caller.ask(server.member, patch(number)) for number in range(4)] == [APPLIED] * 4
    assert caller.events == {}


def test_a_killed_process_that_comes_back_costs_no_error(make: Callable[..., Caller]) -> None:
    """kill -9 and a new process on the same port, with a new incarnation."""
    caller, port = make(), free_port()
    with peer_process(port, incarnation=7) as (process, member):
        assert caller.ask(member, patch(1)) == APPLIED
        process.kill()
        process.wait()
        assert caller.ask(member, patch(1)) == Unreachable("refused")
    with peer_process(port, incarnation=8) as (process, member):
        assert caller.ask(member, patch(1)) == APPLIED
        assert caller.transport.incarnation_of("b") == 8


def test_a_repeated_call_is_not_repeated_again(make: Callable[..., Caller]) -> None:
    """A peer that closes every connection after the hello gets one call on a new connection, not more."""
    caller = make()
    with serving() as server:
        proxy = Proxy(server.member)
        replies = iter([True])
        proxy.change_reply = lambda data: data if next(replies, False) else _closing()
        with rogue(proxy) as between:
            assert caller.ask(between, patch(1)) == Unreachable("garbage")
        assert server.events == {}


def _closing() -> bytes:
    raise OSError("closed instead of answered")


def test_a_host_that_drops_packets_costs_the_connect_time_out(make: Callable[..., Caller]) -> None:
    """Its SYN goes unanswered: 100 ms, not the whole request time-out. Here the queue of its listener is full."""
    caller = make(timeouts=Timeouts(connect_s=0.1, request_s=5.0))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        began = monotonic()
        assert caller.ask(Member("b", "127.0.0.1", address[1], 7), patch(1)) == Unreachable("timeout")
        assert 0.09 < monotonic() - began < 3.0


def test_a_peer_that_stops_in_the_midst_of_a_large_call_costs_one_time_out(make: Callable[..., Caller]) -> None:
    """More than the kernel takes at once: sending ends with the request time-out, and the connection is not used again."""
    caller = make(timeouts=QUICK, limits=Limits(message_bytes_max=HUGE * 2))
    with peer_process() as (process, member):
        assert caller.ask(member, patch(1)) == APPLIED
        process.send_signal(signal.SIGSTOP)
        assert caller.ask(member, patch(2, HUGE)) == Unreachable("timeout")
        process.send_signal(signal.SIGCONT)
        eventually(lambda: caller.ask(member, patch(3)) == APPLIED)


def test_a_connection_that_is_reset_is_no_answer(make: Callable[..., Caller]) -> None:
    """After the request was sent on a new connection: no second try, as it may have been carried out."""
    caller = make()

    def reset(sock: socket.socket) -> None:
        with socket.create_connection((server.member.host, server.member.port)) as onward:
            onward.sendall(sock.recv(65536))
            sock.sendall(onward.recv(65536))
            sock.recv(65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving() as server, rogue(reset) as between:
        assert caller.ask(between, patch(1)) == Unreachable("garbage")


# --- peers that misbehave --------------------------------------------------------------------------------------------


def hello_then(behaviour: bytes) -> Callable[[bytes], bytes]:
    """Let the answer to the hello pass, and replace the next reply."""
    passed: list[bytes] = []

    def change(data: bytes) -> bytes:
        passed.append(data)
        return data if len(passed) == 1 else behaviour

    return change


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"\0" * 1000, "garbage"),
        (response_bytes(200, b"\1" + b"x" * 60), "garbage"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000, "garbage"),
    ],
    ids=["zeros", "forged", "redirect", "chunked", "absurd length", "too long", "endless head"],
)
def test_rubbish_is_no_answer(make: Callable[..., Caller], reply: bytes, why: str) -> None:
    """Whatever comes instead of a reply ends as one word, and the connection is not used again."""
    caller = make()
    with serving() as server:
        proxy = Proxy(server.member)
        proxy.change_reply = hello_then(reply)
        with rogue(proxy) as between:
            assert caller.ask(between, patch(1)) == Unreachable(why)
            proxy.change_reply = lambda data: data
            assert caller.ask(between, patch(2)) == APPLIED


@pytest.mark.parametrize("kept", [1, 40, 100])
def test_a_truncated_answer_is_no_answer(make: Callable[..., Caller], kept: int) -> None:
    """The peer dies while it answers: garbage, and no second try, as some of the reply had come."""
    caller = make()
    with serving() as server:
        proxy = Proxy(server.member)
        with rogue(lambda sock: _truncate(sock, proxy, kept)) as between:
            assert caller.ask(between, fetch()) == Unreachable("garbage")


def _truncate(sock: socket.socket, proxy: Proxy, kept: int) -> None:
    with socket.create_connection((proxy.target.host, proxy.target.port)) as onward:
        for number in range(2):
            onward.sendall(sock.recv(65536))
            reply = onward.recv(65536)
            sock.sendall(reply if number == 0 else reply[:kept])


def test_a_half_closed_connection_is_no_answer(make: Callable[..., Caller]) -> None:
    """The peer says nothing more but goes on listening: known at once, not after the time-out."""
    caller = make()

    def half_close(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        until_closed(sock)

    with rogue(half_close) as between:
        began = monotonic()
        assert caller.ask(between, patch(1)) == Unreachable("refused")
        assert monotonic() - began < 2.0


def test_one_changed_bit_is_no_answer(make: Callable[..., Caller]) -> None:
    """Of the request, which the peer then drops; and of the reply, which nobody believes."""
    caller = make()
    handled: list[Call] = []

    def handler(call: Call, peer: str) -> Reply:
        handled.append(call)
        return answer(call, peer)

    def flip_last(data: bytes) -> bytes:
        return data if b"/v1/hello" in data else data[:-1] + bytes([data[-1] ^ 1])

    with serving(handler=handler) as server:
        proxy = Proxy(server.member)
        proxy.change_request = flip_last
        with rogue(proxy) as between:
            assert caller.ask(between, patch(1)) == Unreachable("garbage")
        assert handled == []
        eventually(lambda: server.events["peer.rejected"] == 1)
        proxy.change_request = lambda data: data
        passed = hello_then(b"")
        proxy.change_reply = lambda data: passed(data) or data[:-1] + bytes([data[-1] ^ 1])
        with rogue(proxy) as between:
            assert caller.ask(between, patch(1)) == Unreachable("garbage")


def test_swapped_replies_are_no_answers(make: Callable[..., Caller]) -> None:
    """A proxy hands each of two callers the other one's reply: neither believes it."""
    caller, replies = make(), threading.Barrier(2)
    swap: dict[int, bytes] = {}

    def swapping(sock: socket.socket) -> None:
        with socket.create_connection((server.member.host, server.member.port)) as onward:
            onward.sendall(sock.recv(65536))
            sock.sendall(onward.recv(65536))
            onward.sendall(sock.recv(65536))
            mine = replies.wait(10)
            swap[mine] = onward.recv(65536)
            replies.wait(10)
            sock.sendall(swap[1 - mine])

    with serving() as server, rogue(swapping) as between:
        assert caller.at_once([(between, fetch()), (between, fetch())]) == [Unreachable("garbage")] * 2


def test_a_recorded_conversation_does_nothing_when_played_again(make: Callable[..., Caller]) -> None:
    """Byte for byte to the same node: its hello is answered, no request of it is acted on."""
    caller, handled = make(), []

    def handler(call: Call, peer: str) -> Reply:
        handled.append(call)
        return answer(call, peer)

    with serving(handler=handler) as server:
        proxy = Proxy(server.member)
        with rogue(proxy) as between:
            assert [caller.ask(between, patch(number)) for number in range(3)] == [APPLIED] * 3
        with socket.create_connection((server.member.host, server.member.port)) as replay:
            replay.sendall(proxy.upstream[0])
            assert replay.recv(65536)
            replay.sendall(b"".join(proxy.upstream[1:]))
            assert until_closed(replay) == b""
        assert len(handled) == 3
        eventually(lambda: server.events["peer.rejected"] == 1)


# --- whom it talks to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"ring": lambda: OTHER_RING}, {"cluster": "other"}], ids=["key", "cluster"])
def test_a_node_of_another_cluster_is_not_talked_to(make: Callable[..., Caller], changes: dict[str, Any]) -> None:
    """Wrong key or wrong cluster name: both sides count it, no call is made."""
    caller = make(**changes)
    with serving() as server:
        assert caller.ask(server.member, patch(1)) == Unreachable("auth")
        assert server.events["peer.rejected"] == 1
    assert caller.events["peer.hello"] == 1


def test_a_listener_without_the_key_gets_no_session(make: Callable[..., Caller]) -> None:
    """Whoever took over the address of a node that is gone learns nothing but a hello."""
    heard: list[bytes] = []

    def listen(sock: socket.socket) -> None:
        heard.append(sock.recv(65536))
        sock.sendall(response_bytes(200, b"\x93\xc4\x05hello\x01\xc4\x05proof"))
        heard.append(until_closed(sock))

    caller = make()
    with rogue(listen) as thief:
        assert caller.ask(thief, patch(1)) in (Unreachable("garbage"), Unreachable("auth"))
        eventually(lambda: len(heard) == 2)
    assert heard[1] == b""
    assert KEY.hex().encode() not in heard[0]


def test_another_node_at_a_known_address_is_not_taken_for_it(make: Callable[..., Caller]) -> None:
    """A member of the cluster, but not the one that was wanted: no call reaches it."""
    caller = make()
    with serving(wiring("c")) as other:
        moved = Member("b", other.address.host, other.address.port, 7)
        assert caller.ask(moved, patch(1)) == Unreachable("auth")
        assert other.events["peer.rejected"] == 1


def test_a_seed_tells_who_it_is(make: Callable[..., Caller]) -> None:
    """An address whose node is not known yet is asked with the identity "", and the answer is remembered."""
    caller = make()
    with serving() as server:
        address = Address(host=server.address.host, port=server.address.port)
        assert caller.transport.identity_at(address) is None
        assert caller.ask(Member("", address.host, address.port, 0), patch(1)) == APPLIED
        assert caller.transport.identity_at(address) == "b"
        assert caller.transport.incarnation_of("b") == 7


def test_a_key_dropped_from_the_ring_ends_its_connections(make: Callable[..., Caller]) -> None:
    """The next call opens a new one with a key that is left, or fails."""
    rings = [OTHER_RING]
    caller = make(ring=lambda: rings[0])
    with serving(wiring("b", ring=lambda: OTHER_RING)) as server:
        assert caller.ask(server.member, patch(1)) == APPLIED
        rings[0] = wiring("a").ring()
        assert caller.ask(server.member, patch(1)) == Unreachable("auth")


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_dead_peer_is_not_asked_for_long(make: Callable[..., Caller]) -> None:
    """After three failures the breaker answers at once; a heartbeat still passes, and a reset or a success closes it."""
    caller, port = make(), free_port()
    member = Member("b", "127.0.0.1", port, 7)
    seen = [caller.ask(member, patch(1)) for _ in range(20)]
    assert seen[:3] == [Unreachable("refused")] * 3
    assert Unreachable("breaker") in seen
    beats = [caller.ask(member, Heartbeat(member, (), 0.0)) for _ in range(20)]
    assert beats == [Unreachable("refused")] * 20
    with serving(port=port):
        assert caller.ask(member, Heartbeat(member, (), 0.0)) == APPLIED
        assert caller.ask(member, patch(1)) == APPLIED
    for _ in range(5):
        caller.ask(member, patch(1))
    with serving(port=port):
        caller.transport.reset("b")
        assert caller.ask(member, patch(1)) == APPLIED


def test_a_peer_that_started_anew_is_asked_again(make: Callable[..., Caller]) -> None:
    """A new incarnation or address in the member table says that it is worth a try."""
    caller, port = make(), free_port()
    for _ in range(20):
        last = caller.ask(Member("b", "127.0.0.1", port, 7), patch(1))
    assert last == Unreachable("breaker")
    with serving() as server:
        assert caller.ask(Member("b", server.address.host, server.address.port, 8), patch(1)) == APPLIED


def test_a_peer_that_only_loses_hedges_is_given_up_too(make: Callable[..., Caller]) -> None:
    """A paused process never lets its calls time out, as others answer first; after a time-out's silence it counts as failing."""
    caller = make(timeouts=QUICK)
    with peer_process() as (process, member), serving(wiring("c")) as other:
        assert caller.ask(member, patch(1)) == APPLIED
        process.send_signal(signal.SIGSTOP)
        batch = [Outgoing(member, patch(1)), Outgoing(other.member, patch(1), 0.01)]
        eventually(lambda: caller.exchange(batch, is_applied) == [Unreachable("breaker"), APPLIED])
        process.send_signal(signal.SIGCONT)
        eventually(lambda: caller.ask(member, patch(2)) == APPLIED)


def test_a_peer_that_is_slower_than_others_is_not_given_up(make: Callable[..., Caller]) -> None:
    """It loses every hedge and answers all the same: its late replies count as signs of life."""

    def slow(call: Call, peer: str) -> Reply:
        sleep(0.02)
        return answer(call, peer)

    caller = make(timeouts=Timeouts(connect_s=2.0, request_s=0.3, stale_request_s=5.0))
    with serving(handler=slow) as server, serving(wiring("c")) as other:
        assert caller.ask(server.member, patch(1)) == APPLIED
        batch = [Outgoing(server.member, patch(1)), Outgoing(other.member, patch(1), 0.001)]
        for _ in range(60):
            caller.exchange(batch, is_applied)
            sleep(0.02)
        assert caller.events["peer.breaker"] == 0


def test_a_silent_peer_slows_only_its_own_calls(make: Callable[..., Caller]) -> None:
    """A hundred calls to one that never answers: 32 wait, 64 queue, the rest is refused; others answer meanwhile."""
    caller = make()
    with rogue(until_closed) as silent, serving(wiring("c")) as other:
        asks: list[tuple[Member, Call]] = [(silent, patch(number)) for number in range(120)]
        asks[60:60] = [(other.member, patch(number)) for number in range(10)]
        replies = caller.at_once(asks, within_s=2.5)
    assert replies[60:70] == [APPLIED] * 10
    rest = replies[:60] + replies[70:]
    assert set(rest) <= {Unreachable("budget"), Unreachable("busy")}
    assert rest.count(Unreachable("budget")) <= IN_FLIGHT_MAX
    assert rest.count(Unreachable("busy")) >= 120 - IN_FLIGHT_MAX - QUEUE_MAX


def test_a_queued_call_is_made_when_a_place_is_free(make: Callable[..., Caller]) -> None:
    """More calls than places, to a peer that takes its time: all are answered."""
    caller = make()

    def slow(call: Call, peer: str) -> Reply:
        sleep(0.002)
        return answer(call, peer)

    with serving(handler=slow) as server:
        assert set(caller.at_once([(server.member, patch(number)) for number in range(IN_FLIGHT_MAX + 30)])) == {APPLIED}


def test_the_hedge_delay_follows_the_peer(make: Callable[..., Caller]) -> None:
    """Unknown peers have the least delay, a slow one its own, none more than the most."""
    times = Timeouts(connect_s=2.0, request_s=5.0, stale_request_s=5.0, hedge_min_s=0.001, hedge_max_s=0.02)
    caller = make(timeouts=times)
    assert caller.transport.hedge_delay("nobody") == 0.001

    def slow(call: Call, peer: str) -> Reply:
        sleep(0.03)
        return answer(call, peer)

    with serving(handler=slow) as server:
        for number in range(3):
            caller.ask(server.member, patch(number))
        assert caller.transport.hedge_delay("b") == 0.02


def test_what_the_peers_store_cannot_do_is_told(make: Callable[..., Caller]) -> None:
    """A full store is a reply, and the peer is not blamed for it."""

    def full(call: Call, peer: str) -> Reply:
        raise StoreFull("no room")

    caller = make()
    with serving(handler=full) as server:
        assert [caller.ask(server.member, patch(number)) for number in range(5)] == [Full()] * 5


def test_a_peers_clock_that_jumps_costs_no_error(make: Callable[..., Caller]) -> None:
    """The call is refused as stale and made again on a new connection, whose hello measures the clocks anew."""
    jump = [0.0]
    with serving(wiring("b", clock=lambda: monotonic() + jump[0])) as server:
        caller = make()
        assert caller.ask(server.member, patch(1)) == APPLIED
        jump[0] = -3600.0
        assert caller.ask(server.member, patch(1)) == APPLIED
        assert server.events["peer.stale_request"] == 1


def test_limits_hold_on_both_sides(make: Callable[..., Caller]) -> None:
    """A peer with a smaller limit drops what is too large for it; the caller learns that there is no answer."""
    caller = make()
    with serving(wiring("b", limits=Limits(message_bytes_max=10_000))) as server:
        assert caller.ask(server.member, patch(1)) == APPLIED
        assert caller.ask(server.member, patch(1, 20_000)) == Unreachable("garbage")
        assert caller.ask(server.member, Fetch(KEY, 0.0)).__class__ is Found


def test_a_closed_transport_leaves_nothing_open(make: Callable[..., Caller]) -> None:
    """The server sees its connections go."""
    caller = make()
    with serving() as server:
        caller.at_once([(server.member, patch(number)) for number in range(8)])
        assert server.server.connections >= 1
        caller.close()
        eventually(lambda: server.server.connections == 0)


def test_a_call_under_way_outlives_close_and_nothing_else(make: Callable[..., Caller]) -> None:
    """It is answered, and then its connection is closed too."""
    caller, begun, release = make(), threading.Event(), threading.Event()

    def slow(call: Call, peer: str) -> Reply:
        begun.set()
        release.wait(10)
        return answer(call, peer)

    with serving(handler=slow) as server:
        replies: list[Reply] = []
        thread = threading.Thread(target=lambda: replies.append(caller.ask(server.member, patch(1))))
        thread.start()
        assert begun.wait(10)
        closing = caller.transport.close()
        if isinstance(closing, Coroutine):
            asyncio.run(closing)
        release.set()
        thread.join()
        assert replies == [APPLIED]
        eventually(lambda: server.server.connections == 0)
