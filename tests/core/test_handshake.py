"""How two nodes prove to each other that they belong to one cluster."""

from __future__ import annotations

import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core import handshake
from clustersession.core.channel import WIRE_VERSION
from clustersession.core.handshake import HELLO_NONCE_BYTES, Channel, Greeting, Party, accept
from clustersession.core.keyring import KeyRing
from clustersession.errors import PeerRefused, WireError

OLD, NEW, LEAKED = "v8Jq2mN5xR7tB1kZ4wP9cL3dF6hG0sYa", "Hs7Dk2Lq9Wm4Xz1Vb6Nc3Pf8Rt5Yj0Gu", "Zt6Yr4Ew2Qa9Sd8Fg7Hj5Kl3Mn1Bv0Cx"
ONE = KeyRing.parse(f"1:{OLD}")
A, B = Party("a", 7, "shop", "1.0"), Party("b", 8, "shop", "1.1")
NONCE_A, NONCE_B = b"a" * HELLO_NONCE_BYTES, b"b" * HELLO_NONCE_BYTES


def greet(me: Party = A, ring: KeyRing = ONE, wanted: str = "b", nonce: bytes = NONCE_A, clock: float = 100.0) -> Greeting:
    return Greeting(me, ring, wanted, nonce, clock)


def met(mine: KeyRing = ONE, theirs: KeyRing = ONE, wanted: str = "b") -> tuple[Channel, Channel]:
    """Both ends of a connection from a to b."""
    greeting = greet(ring=mine, wanted=wanted)
    answer, responder = accept(greeting.data, B, theirs, NONCE_B, 5000.0)
    return greeting.conclude(answer, mine), responder


def same_keys(one: Channel, other: Channel) -> bool:
    body = one.requests.seal(b"line", b"data", bytes(12))
    try:
        return other.requests.open(b"line", body) == b"data"
    except WireError:
        return False


@pytest.mark.parametrize("wanted", ["b", ""])
def test_both_know_whom_they_met(wanted: str) -> None:
    """After two messages each end knows identity, incarnation and release of the other, and both have the same keys."""
    initiator, responder = met(wanted=wanted)
    assert (initiator.peer.identity, initiator.peer.incarnation, initiator.peer.release) == ("b", 8, "1.1")
    assert (responder.peer.identity, responder.peer.incarnation, responder.peer.release) == ("a", 7, "1.0")
    assert initiator.replies.open(b"200", responder.replies.seal(b"200", b"reply", bytes(12))) == b"reply"
    assert same_keys(initiator, responder)


@pytest.mark.parametrize(
    ("mine", "theirs", "kid"),
    [
        (f"2:{NEW},1:{OLD}", f"1:{OLD}", 1),
        (f"1:{OLD}", f"2:{NEW},1:{OLD}", 1),
        (f"2:{NEW},1:{OLD}", f"1:{OLD},2:{NEW}", 2),
        (f"1:{OLD},2:{NEW}", f"2:{NEW},1:{OLD}", 1),
    ],
)
def test_the_first_common_key_of_the_initiator_is_taken(mine: str, theirs: str, kid: int) -> None:
    """In every step of a rotation two nodes with a common key understand each other."""
    initiator, responder = met(KeyRing.parse(mine), KeyRing.parse(theirs))
    assert initiator.kid == responder.kid == kid
    assert same_keys(initiator, responder)


def test_no_common_key_is_refused() -> None:
    """Different numbers: refused, and the reason says which there are."""
    with pytest.raises(PeerRefused, match=r"no common key: 'a' has \[2\], this node \[1\]"):
        accept(greet(ring=KeyRing.parse(f"2:{NEW}")).data, B, ONE, NONCE_B, 0.0)


def test_another_secret_of_the_same_number_is_refused() -> None:
    """The number alone proves nothing."""
    with pytest.raises(PeerRefused, match="another secret of that number"):
        accept(greet(ring=KeyRing.parse(f"1:{NEW}")).data, B, ONE, NONCE_B, 0.0)


def test_another_cluster_is_refused() -> None:
    """Two clusters with one secret do not mix."""
    with pytest.raises(PeerRefused, match="cluster 'test'"):
        accept(greet(me=A._replace(cluster="test")).data, B, ONE, NONCE_B, 0.0)


def test_a_greeting_to_somebody_else_is_refused() -> None:
    """An address that another node has now: its node says so before any session is named."""
    with pytest.raises(PeerRefused, match="'a' wants 'c', this is 'b'"):
        accept(greet(wanted="c").data, B, ONE, NONCE_B, 0.0)


def test_an_answer_of_somebody_else_is_refused() -> None:
    """A member of the cluster that answers in another's place is not talked to."""
    greeting, key = greet(wanted="b"), ONE.signing
    for me, wanted in (("c", "a"), ("b", "somebody else")):
        hello = handshake._hello(B._replace(identity=me), NONCE_B, 0.0, (1,), wanted)
        transcript = handshake._transcript(greeting._hello, hello)
        answer = handshake._Answer(hello, 1, handshake._proof(key, b"responder", transcript))
        with pytest.raises(PeerRefused, match=f"'{me}' answered where 'b' was wanted"):
            greeting.conclude(msgspec.msgpack.encode(answer), ONE)


def test_an_answer_without_the_key_is_refused() -> None:
    """Who only knows the number of the key cannot answer."""
    greeting = greet(ring=ONE)
    impostor = KeyRing.parse(f"1:{NEW}")
    answer, _ = accept(greet(ring=impostor).data, B, impostor, NONCE_B, 0.0)
    with pytest.raises(PeerRefused, match="proof for key 1 is wrong"):
        greeting.conclude(answer, ONE)


def test_a_key_that_was_not_offered_is_refused() -> None:
    """A responder cannot pull the initiator down to a key that it has dropped."""
    both = KeyRing.parse(f"1:{OLD},3:{LEAKED}")
    answer, _ = accept(greet(ring=KeyRing.parse(f"3:{LEAKED}")).data, B, both, NONCE_B, 0.0)
    with pytest.raises(PeerRefused, match="did not offer or has dropped"):
        greet(ring=ONE).conclude(answer, ONE)


def test_a_connection_stands_on_one_secret() -> None:
    """Its number is not enough: another secret of the same number, or none, does not carry it."""
    initiator, _ = met()
    assert initiator.stands_on(KeyRing.parse(f"2:{NEW},1:{OLD}"))
    assert not initiator.stands_on(KeyRing.parse(f"1:{NEW}"))
    assert not initiator.stands_on(KeyRing.parse(f"2:{OLD}"))


def test_a_replayed_greeting_leads_to_other_keys() -> None:
    """Who replays a recorded greeting gets an answer, and cannot use it: the connection has other keys."""
    greeting = greet()
    answer, first = accept(greeting.data, B, ONE, NONCE_B, 0.0)
    initiator = greeting.conclude(answer, ONE)
    _, replayed = accept(greeting.data, B, ONE, b"c" * HELLO_NONCE_BYTES, 0.0)
    assert not same_keys(initiator, replayed)
    assert same_keys(greeting.conclude(answer, ONE), first)


def test_a_replayed_answer_is_refused() -> None:
    """An answer belongs to its greeting."""
    answer, _ = accept(greet().data, B, ONE, NONCE_B, 0.0)
    with pytest.raises(PeerRefused, match="proof"):
        greet(nonce=b"n" * HELLO_NONCE_BYTES).conclude(answer, ONE)


def test_a_greeting_sent_back_is_no_answer() -> None:
    """Reflection: a node's own greeting proves nothing to it."""
    greeting = greet(wanted="")
    with pytest.raises((PeerRefused, WireError)):
        greeting.conclude(greeting.data, ONE)


def test_another_start_of_the_same_node_has_other_keys() -> None:
    """The incarnation is in the keys, even if all random bytes were the same."""
    greeting = greet()
    answers = [accept(greeting.data, B._replace(incarnation=each), ONE, NONCE_B, 0.0) for each in (8, 9)]
    assert not same_keys(greeting.conclude(answers[0][0], ONE), answers[1][1])


@given(st.data())
def test_one_changed_bit_of_a_greeting_is_refused(data: st.DataObject) -> None:
    """Whatever bit of it changes, the responder answers nothing, or an answer that the initiator refuses."""
    greeting = greet()
    bit = data.draw(st.integers(0, len(greeting.data) * 8 - 1))
    changed = bytearray(greeting.data)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((PeerRefused, WireError)):
        greeting.conclude(accept(bytes(changed), B, ONE, NONCE_B, 0.0)[0], ONE)


@given(st.data())
def test_one_changed_bit_of_an_answer_is_refused(data: st.DataObject) -> None:
    """Whatever bit of it changes, the initiator does not believe it."""
    greeting = greet()
    answer = bytearray(accept(greeting.data, B, ONE, NONCE_B, 0.0)[0])
    bit = data.draw(st.integers(0, len(answer) * 8 - 1))
    answer[bit // 8] ^= 1 << bit % 8
    with pytest.raises((PeerRefused, WireError)):
        greeting.conclude(bytes(answer), ONE)


@given(st.binary(max_size=300))
def test_rubbish_is_no_hello(data: bytes) -> None:
    """Nothing but the two errors comes out of arbitrary bytes."""
    with pytest.raises((PeerRefused, WireError)):
        accept(data, B, ONE, NONCE_B, 0.0)
    with pytest.raises((PeerRefused, WireError)):
        greet().conclude(data, ONE)


def test_a_field_that_a_later_release_adds_is_passed_over() -> None:
    """An N+1 node may say more of itself, and is understood in the version both speak."""
    greeting = greet(wanted="")
    answer, responder = accept(_with_later_fields(greeting.data), B, ONE, NONCE_B, 0.0)
    assert responder.peer.identity == "a"
    assert responder.peer.wire == WIRE_VERSION + 1
    assert len(answer) > 0


def _with_later_fields(data: bytes) -> bytes:
    hello, _ = msgspec.msgpack.decode(data)
    later = msgspec.msgpack.encode([WIRE_VERSION + 1, *msgspec.msgpack.decode(hello)[1:], "a later field"])
    key = ONE.get(1)
    assert key is not None
    proof = hmac.digest(key.hello, b"clustersession hello initiator\0" + later, "sha256")
    return msgspec.msgpack.encode([later, {1: proof}, "another"])


def test_a_version_that_is_too_old_is_refused() -> None:
    """A node that speaks only what this release has dropped is told apart from a stranger."""
    hello = msgspec.msgpack.encode([0, *msgspec.msgpack.decode(msgspec.msgpack.decode(greet().data)[0])[1:]])
    key = ONE.get(1)
    assert key is not None
    proof = hmac.digest(key.hello, b"clustersession hello initiator\0" + hello, "sha256")
    with pytest.raises(PeerRefused, match="wire version 0"):
        accept(msgspec.msgpack.encode([hello, {1: proof}]), B, ONE, NONCE_B, 0.0)


@given(st.floats(-1e5, 1e5), st.floats(0.0, 0.25), st.floats(0.0, 5.0))
def test_the_age_of_a_request_is_measured_across_clocks(offset: float, hello_took: float, request_took: float) -> None:
    """A request's age is its time on the way, less at most what the hello took: the bound is the request time-out."""
    _, responder = accept(greet(clock=100.0).data, B, ONE, NONCE_B, 100.0 + offset + hello_took)
    age = responder.age(sent=110.0, now=110.0 + offset + request_took)
    assert age == pytest.approx(request_took - hello_took, abs=1e-6)


@pytest.mark.parametrize("me", [A._replace(identity="a" * 256), A._replace(release="r" * 256)])
def test_a_hello_with_an_endless_name_is_refused(me: Party) -> None:
    """Also from somebody with the key."""
    with pytest.raises(WireError, match="wrong length"):
        accept(greet(me=me).data, B, ONE, NONCE_B, 0.0)


def test_a_channel_shows_whom_it_leads_to() -> None:
    """And how much has passed, but no key."""
    initiator, _ = met()
    initiator.requests.seal(b"line", b"data", bytes(12))
    assert repr(initiator) == "<Channel with 'b': requests <Direction: 1 messages>, replies <Direction: 0 messages>>"


def test_a_nonce_of_another_length_is_a_mistake_of_the_caller() -> None:
    """Too few random bytes are not sent."""
    with pytest.raises(ValueError, match="32 bytes"):
        greet(nonce=b"short")
