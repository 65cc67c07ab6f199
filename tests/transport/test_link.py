"""Both ends of a connection without a socket: what passes, and what is refused before anybody acts on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from clustersession.config import Limits, Timeouts
from clustersession.core.calls import (
    Applied,
    Broken,
    Call,
    Confirm,
    Done,
    Each,
    Found,
    Full,
    Held,
    Many,
    NotMine,
    Reply,
    TooLarge,
    Touch,
    Unreachable,
)
from clustersession.core.handshake import Hello
from clustersession.core.keyring import KeyRing
from clustersession.core.together import PIECE_MAX
from clustersession.errors import Corrupt, PeerRefused, ShardDown, StoreFull, WireError
from clustersession.transport.http1 import request_bytes, response_bytes
from clustersession.transport.link import PROVING_BYTES_MAX, Initiator, Responder, TooLong
from clustersession.transport.wiring import Wiring
from tests.transport.kit import KEY, OTHER_RING, RING, answer, events, fetch, patch, wiring

APPLIED = Applied(1, 2, ("b", "a"))


@dataclass
class Pair:
    """A connection from a to b, its hello done, and the calls that have reached the handler."""

    caller: Wiring = field(default_factory=lambda: wiring("a"))
    server: Wiring = field(default_factory=lambda: wiring("b"))
    reply: Callable[[Call, str], Reply] = answer
    handled: list[tuple[Call, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.initiator = Initiator(self.caller, "b")
        self.responder = Responder(self.server, self.handle, lambda hello: None)
        self.greeting = self.initiator.hello()
        self.welcome = self.responder.feed(self.greeting)
        assert self.initiator.feed(self.welcome) == []

    def handle(self, call: Call, peer: str) -> Reply:
        self.handled.append((call, peer))
        return self.reply(call, peer)

    def asked(self, call: Call) -> bytes:
        return self.initiator.ask(call)

    def answered(self, request: bytes) -> bytes:
        assert self.responder.feed(request) == b""
        return b"".join(self.responder.answer() for _ in range(len(self.responder.asked)))

    def exchanged(self, call: Call) -> Reply:
        [reply] = self.initiator.feed(self.answered(self.asked(call)))
        return reply


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_call_reaches_the_handler_and_its_reply_comes_back() -> None:
    """With the identity that the peer has proven."""
    pair = Pair()
    assert pair.exchanged(patch(1)) == APPLIED
    assert pair.handled == [(patch(1), "a")]
    assert pair.responder.proven
    assert (len(pair.initiator.asked), pair.initiator.mid_reply) == (0, False)


def test_several_calls_may_be_on_their_way() -> None:
    """Replies come in the order of the calls."""
    pair = Pair(reply=lambda call, _: NotMine() if isinstance(call, Touch) else Done())
    requests = pair.asked(Confirm(())) + pair.asked(Touch(KEY)) + pair.asked(Confirm(()))
    assert len(pair.initiator.asked) == 3
    assert pair.initiator.feed(pair.answered(requests)) == [Done(), NotMine(), Done()]


def test_a_large_request_is_carried_out_piece_by_piece() -> None:
    """Whoever runs the responder decides what happens in between; it is one reply in the end, and the next request waits."""
    pair = Pair(
        reply=lambda call, _: Each(tuple(Held(len(call.calls)) for _ in call.calls)) if isinstance(call, Many) else Done()
    )
    large = Many(tuple(Touch(number.to_bytes(16)) for number in range(2 * PIECE_MAX + 1)))
    assert pair.responder.feed(pair.asked(large) + pair.asked(Touch(KEY))) == b""
    assert [pair.responder.step(), pair.responder.step()] == [None, None]
    assert [len(call.calls) for call, _ in pair.handled if isinstance(call, Many)] == [PIECE_MAX, PIECE_MAX]
    sent = [pair.responder.step(), pair.responder.step()]
    assert not pair.responder.busy()
    held = (Held(PIECE_MAX),) * (2 * PIECE_MAX) + (Held(1),)
    assert pair.initiator.feed(b"".join(filter(None, sent))) == [Each(held), Done()]


def test_a_large_request_that_no_handler_carries_out_is_answered() -> None:
    """As a small one: the store is full, or a sixteenth is down."""

    def full(call: Call, _: str) -> Reply:
        raise StoreFull("no room")

    assert Pair(reply=full).exchanged(Many((Touch(KEY),) * (PIECE_MAX + 1))) == Full()


def test_no_value_and_no_identity_can_be_read_on_the_way() -> None:
    """Bodies are sealed, and the path names a session only by its store key."""
    pair = Pair()
    request = pair.asked(patch(1, size=40))
    assert b"xxxxxxxx" not in request
    assert b"cart" not in request
    assert KEY.hex().encode() in request


# --- changed on the way ----------------------------------------------------------------------------------------------


@given(st.data())
def test_one_changed_bit_of_a_request_never_reaches_the_handler(data: st.DataObject) -> None:
    """Head and body: the request is refused, or (where the head is now incomplete) waits for ever; it is not acted on."""
    pair = Pair()
    request = pair.asked(patch(1))
    request = flipped(request, data.draw(st.integers(0, len(request) * 8 - 1)))
    try:
        pair.responder.feed(request)
    except (WireError, PeerRefused):
        pass
    assert pair.responder.asked == deque()
    assert pair.handled == []


@given(st.data())
def test_one_changed_bit_of_a_reply_is_never_believed(data: st.DataObject) -> None:
    """Head and body: no reply comes out of it."""
    pair = Pair()
    response = pair.answered(pair.asked(fetch()))
    response = flipped(response, data.draw(st.integers(0, len(response) * 8 - 1)))
    try:
        assert pair.initiator.feed(response) == []
    except (WireError, PeerRefused):
        pass


@given(st.data())
def test_one_changed_bit_of_a_hello_opens_no_connection(data: st.DataObject) -> None:
    """Of the two messages of a hello, head and body: at most the time in the head, which a hello does not use, may change."""
    caller, server = wiring("a"), wiring("b")
    initiator, responder = Initiator(caller, "b"), Responder(server, answer, lambda hello: None)
    greeting = initiator.hello()
    unused = greeting.index(b"cs-sent: 0") + len(b"cs-sent: ")
    bit = data.draw(st.integers(0, len(greeting) * 8 - 1).filter(lambda bit: bit // 8 != unused))
    try:
        initiator.feed(responder.feed(flipped(greeting, bit)))
    except (WireError, PeerRefused):
        pass
    assert initiator.peer is None


@given(st.data())
def test_one_changed_bit_of_a_welcome_opens_no_connection(data: st.DataObject) -> None:
    """The initiator believes no answer that was changed."""
    initiator, responder = Initiator(wiring("a"), "b"), Responder(wiring("b"), answer, lambda hello: None)
    welcome = responder.feed(initiator.hello())
    try:
        initiator.feed(flipped(welcome, data.draw(st.integers(0, len(welcome) * 8 - 1))))
    except (WireError, PeerRefused):
        pass
    assert initiator.peer is None


# --- recorded and played again ----------------------------------------------------------------------------------------


def test_a_request_is_good_once() -> None:
    """Replayed on its own connection it is refused, and acted on once."""
    pair = Pair()
    request = pair.asked(patch(1))
    pair.answered(request)
    with pytest.raises(WireError, match="authentication"):
        pair.responder.feed(request)
    assert len(pair.handled) == 1


def test_a_request_is_good_on_its_own_connection_only() -> None:
    """Recorded, and played on another connection of the same two nodes: refused."""
    recorded, pair = Pair(), Pair()
    with pytest.raises(WireError, match="authentication"):
        pair.responder.feed(recorded.asked(patch(1)))
    assert pair.handled == []


def test_a_whole_connection_played_again_does_nothing() -> None:
    """Hello included: a new connection has a new nonce, so the recorded requests fit nowhere, also after a restart."""
    pair = Pair()
    requests = [pair.asked(patch(number)) for number in range(3)]
    replayed = Responder(pair.server, pair.handle, lambda hello: None)
    replayed.feed(pair.greeting)
    for request in requests:
        with pytest.raises(WireError):
            replayed.feed(request)
    assert pair.handled == []
    assert not replayed.proven


def test_a_request_sent_back_is_no_reply() -> None:
    """Reflection: nothing a node sent is taken from its own hand."""
    pair = Pair()
    request = pair.asked(fetch())
    body = request.partition(b"\r\n\r\n")[2]
    with pytest.raises(WireError):
        pair.initiator.feed(response_bytes(200, body))


def test_a_reply_played_again_is_not_believed() -> None:
    """The reply to the first call is none to the second."""
    pair = Pair()
    first = pair.answered(pair.asked(fetch()))
    pair.initiator.feed(first)
    pair.answered(pair.asked(fetch()))
    with pytest.raises(WireError, match="authentication"):
        pair.initiator.feed(first)


def test_swapped_replies_are_not_believed() -> None:
    """Two replies in the wrong order are none."""
    pair = Pair()
    first = pair.answered(pair.asked(fetch()))
    second = pair.answered(pair.asked(fetch()))
    with pytest.raises(WireError, match="authentication"):
        pair.initiator.feed(second + first)


def test_a_reply_that_nobody_asked_for_is_refused() -> None:
    """Even with the right key."""
    pair = Pair()
    response = pair.answered(pair.asked(fetch()))
    with pytest.raises(WireError):
        pair.initiator.feed(response + response)


# --- who may speak ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"ring": lambda: OTHER_RING}, {"cluster": "other"}], ids=["key", "cluster"])
def test_a_stranger_learns_nothing(changes: dict[str, Any]) -> None:
    """Wrong key and wrong cluster: refused before the responder has said a word about itself."""
    responder = Responder(wiring("b"), answer, lambda hello: None)
    with pytest.raises(PeerRefused):
        responder.feed(Initiator(wiring("a", **changes), "b").hello())
    assert responder.peer is None


def test_a_request_before_the_hello_is_refused() -> None:
    """There is no key yet that could prove it."""
    with pytest.raises(WireError, match="without a hello"):
        Responder(wiring("b"), answer, lambda hello: None).feed(request_bytes(b"POST /v1/digests", b"1", b"\1" + b"0" * 40))


def test_the_initiator_sends_no_request_before_it_knows_whom_to() -> None:
    """No session is named to a peer that has not proven itself."""
    with pytest.raises(WireError, match="before the hello"):
        Initiator(wiring("a"), "b").ask(fetch())


def test_a_second_hello_is_refused() -> None:
    """A connection belongs to one peer."""
    pair = Pair()
    with pytest.raises(WireError):
        pair.responder.feed(Initiator(wiring("c"), "b").hello())


def test_a_refused_hello_is_understood() -> None:
    """403 to a hello means: look into the other node's log."""
    initiator = Initiator(wiring("a"), "b")
    with pytest.raises(PeerRefused, match="its log says why"):
        initiator.feed(response_bytes(403, b""))


def test_the_server_may_turn_a_proven_peer_away() -> None:
    """For its certificate, or because it has too many connections."""

    def full(hello: Hello) -> None:
        raise PeerRefused(f"{hello.identity} has too many connections")

    with pytest.raises(PeerRefused, match="a has too many"):
        Responder(wiring("b"), answer, full).feed(Initiator(wiring("a"), "b").hello())


def test_a_key_that_is_taken_out_of_the_ring_ends_its_connections() -> None:
    """Revoking a key takes effect at once; adding one changes nothing."""
    rings = [RING]
    pair = Pair(server=wiring("b", ring=lambda: rings[0]))
    rings[0] = KeyRing.parse("1:v8Jq2mN5xR7tB1kZ4wP9cL3dF6hG0sYa,2:Hs7Dk2Lq9Wm4Xz1Vb6Nc3Pf8Rt5Yj0Gu")
    assert pair.exchanged(patch(1)) == APPLIED
    assert pair.initiator.stands_on(rings[0])
    rings[0] = KeyRing.parse("2:Hs7Dk2Lq9Wm4Xz1Vb6Nc3Pf8Rt5Yj0Gu")
    assert not pair.initiator.stands_on(rings[0])
    with pytest.raises(PeerRefused, match="taken out of the ring"):
        pair.responder.feed(pair.asked(patch(2)))
    assert len(pair.handled) == 1


# --- old requests -------------------------------------------------------------------------------------------------------


@dataclass
class Clocks:
    """Two hosts whose clocks have nothing to do with each other."""

    caller: float = 1_000.0
    server: float = 700_000.0

    def passes(self, seconds: float) -> None:
        self.caller += seconds
        self.server += seconds


def clocked() -> tuple[Clocks, Pair]:
    clocks = Clocks()
    times = Timeouts(stale_request_s=1.0)
    pair = Pair(
        wiring("a", clock=lambda: clocks.caller, timeouts=times), wiring("b", clock=lambda: clocks.server, timeouts=times)
    )
    return clocks, pair


@pytest.mark.parametrize(("waited", "reply"), [(0.0, APPLIED), (0.99, APPLIED), (1.01, Unreachable("stale"))])
def test_a_request_that_waited_too_long_is_not_acted_on(waited: float, reply: Reply) -> None:
    """What stood in the queue of a paused node for more than a second is refused, whatever the two clocks show."""
    clocks, pair = clocked()
    clocks.passes(500.0)
    request = pair.asked(patch(1))
    clocks.passes(waited)
    assert pair.initiator.feed(pair.answered(request)) == [reply]
    assert len(pair.handled) == (0 if reply == Unreachable("stale") else 1)
    assert events(pair.server)["peer.stale_request"] == (1 if reply == Unreachable("stale") else 0)


def test_a_clock_that_has_jumped_is_noticed() -> None:
    """After a jump of either clock the offset of the hello does not hold: refused, so that a new hello measures it."""
    clocks, pair = clocked()
    clocks.server -= 3600.0
    assert pair.exchanged(patch(1)) == Unreachable("stale")
    assert pair.handled == []


@pytest.mark.parametrize("clock", [float("nan"), float("inf"), float("-inf")])
def test_a_clock_that_is_no_number_makes_no_request_young(clock: float) -> None:
    """A peer whose hello says nonsense about its time is never fresh."""
    times = [clock, 1000.0, 1000.0, 1000.0, 1000.0]
    caller = wiring("a", clock=lambda: times.pop(0) if len(times) > 1 else times[0])
    assert Pair(caller).exchanged(patch(1)) == Unreachable("stale")


# --- sizes --------------------------------------------------------------------------------------------------------------


def test_a_large_first_request_is_preceded_by_a_proof() -> None:
    """An unproven peer may not fill the memory, so a large first request comes after something small; one reply counts."""
    pair = Pair(reply=lambda call, _: Done())
    request = pair.asked(patch(1, size=PROVING_BYTES_MAX))
    assert len(pair.initiator.asked) == 2
    assert pair.initiator.feed(pair.answered(request)) == [Done(), Done()]
    assert [type(call) for call, _ in pair.handled] == [Confirm, type(patch(1))]


def test_an_unproven_peer_cannot_send_much() -> None:
    """Its first body is bounded well below that of a proven one."""
    pair = Pair()
    with pytest.raises(WireError, match=f"the limit is {PROVING_BYTES_MAX}"):
        pair.responder.feed(request_bytes(b"POST /v1/digests", b"1", b"x" * (PROVING_BYTES_MAX + 1)))


def test_a_call_over_the_limit_is_not_sent() -> None:
    """The caller is told which limit, and the connection goes on."""
    limits = Limits(message_bytes_max=10_000)
    pair = Pair(wiring("a", limits=limits), wiring("b", limits=limits))
    with pytest.raises(TooLong) as refused:
        pair.initiator.ask(patch(1, size=10_000))
    assert refused.value.reply.size > refused.value.reply.limit
    assert pair.exchanged(patch(2)) == APPLIED


@given(st.integers(-40, 40))
def test_the_limit_of_a_message_is_exact(difference: int) -> None:
    """What the sender lets through the receiver takes, up to the last byte."""
    limits = Limits(message_bytes_max=2000)
    pair = Pair(wiring("a", limits=limits), wiring("b", limits=limits))
    try:
        request = pair.initiator.ask(patch(1, size=1900 + difference))
    except TooLong as refused:
        event(f"{refused.reply.size - refused.reply.limit} bytes too many")
        return
    pair.answered(request)
    assert len(pair.handled) == 1


def test_a_reply_over_the_limit_becomes_a_refusal() -> None:
    """The peer is told, and the connection goes on."""
    limits = Limits(message_bytes_max=1000)
    reply = Applied(1, 2, ("b" * 2000, "a"))
    pair = Pair(wiring("a", limits=limits), wiring("b", limits=limits), reply=lambda call, _: reply)
    assert isinstance(pair.exchanged(patch(1)), TooLarge)


# --- what the handler raises ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reply"), [(StoreFull("full"), Full()), (ShardDown(3, 17), Unreachable("down")), (Corrupt("bad"), Broken())]
)
def test_what_the_store_cannot_do_is_a_reply(error: Exception, reply: Reply) -> None:
    """Full, down and broken are told to the peer, which then asks another owner."""

    def fail(call: Call, peer: str) -> Reply:
        raise error

    assert Pair(reply=fail).exchanged(patch(1)) == reply


def test_a_fault_of_the_handler_is_no_reply() -> None:
    """It is for the server to log, and to close the connection."""

    def fail(call: Call, peer: str) -> Reply:
        raise ZeroDivisionError

    pair = Pair(reply=fail)
    pair.responder.feed(pair.asked(patch(1)))
    with pytest.raises(ZeroDivisionError):
        pair.responder.answer()


def test_values_survive_the_way() -> None:
    """A record with bytes of all kinds arrives as it was."""
    found = Pair().exchanged(fetch())
    assert isinstance(found, Found)
    assert found.record.items["cart"][1] == b"x" * 100
