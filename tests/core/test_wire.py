"""Calls and replies as request lines, statuses and bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core import calls
from clustersession.core.bars import Bar
from clustersession.core.calls import Call, Reply
from clustersession.core.encoding import moved_to_clock
from clustersession.core.node import Member
from clustersession.core.record import Digest, Ending, Lifetime, Patch, Record, Stamp
from clustersession.core.wire import decode_call, decode_reply, encode, line_of, status_of
from clustersession.errors import WireError

KEY = bytes(range(16))
RECORD = Record(
    3,
    4,
    ("a", "b"),
    {"cart": (Stamp(3, 4, "a"), b"value"), "gone": (Stamp(3, 2, "a"), None)},
    created=900.0,
    auth_time=950.0,
    last_seen=990.0,
    lifetime=Lifetime(1800.0, 5000.0),
    frozen_until=1001.0,
)
ENDED = RECORD.but(ended=Ending("rotated", 995.0, 1005.0))
PATCH = Patch(b"12345678", {"cart": b"new", "old": None}, Lifetime(60.0, 4000.0))
DIGEST = Digest(KEY, 3, 4, ("a", None), False)
BAR = Bar(b"12345678", (b"l" * 16,), 990.0, (KEY,))
MEMBER = Member("a", "10.0.0.1", 10060, 5, "zone", kids=(1, 2))

CALLS: list[tuple[Call, bytes]] = [
    (calls.Fetch(KEY, 12.5), b"GET /v1/records/000102030405060708090a0b0c0d0e0f"),
    (calls.Apply(KEY, 3, PATCH), b"PATCH /v1/records/000102030405060708090a0b0c0d0e0f"),
    (calls.Deliver(KEY, 3, 4, ("a", "b"), PATCH), b"PUT /v1/records/000102030405060708090a0b0c0d0e0f"),
    (calls.Put(KEY, RECORD), b"PUT /v1/records/000102030405060708090a0b0c0d0e0f"),
    (calls.Absorb(KEY, ENDED), b"POST /v1/records/000102030405060708090a0b0c0d0e0f"),
    (calls.End(KEY, "logout", ("a", None), 3, 10.0), b"POST /v1/records/000102030405060708090a0b0c0d0e0f"),
    (calls.Confirm((DIGEST,)), b"POST /v1/digests"),
    (calls.Heartbeat(MEMBER, (MEMBER,), 1000.0), b"POST /v1/members"),
    (calls.Forbid(BAR), b"POST /v1/users"),
    (calls.Bars(), b"POST /v1/users"),
    (calls.OfUser((b"l" * 16,)), b"POST /v1/users"),
]
REPLIES: list[tuple[Reply, int]] = [
    (calls.Found(RECORD, serving=True), 200),
    (calls.Applied(3, 5, ("a", "b")), 200),
    (calls.Held(5), 200),
    (calls.Done(), 200),
    (calls.Promoted(RECORD), 200),
    (calls.Frozen(RECORD), 200),
    (calls.Absorbed(ENDED), 200),
    (calls.Confirmed(((KEY, RECORD), (b"x" * 16, None))), 200),
    (calls.Beat(MEMBER, (), ((KEY, ENDED),), 3, 1000.0), 200),
    (calls.Forbidden((KEY,)), 200),
    (calls.Known((BAR,)), 200),
    (calls.Theirs(((KEY, RECORD),)), 200),
    (calls.NotMine(), 404),
    (calls.Conflict(4, ("b", "c")), 409),
    (calls.Gone("logout", 5.0, 3, ("a", "b"), RECORD), 410),
    (calls.Gap(2), 412),
    (calls.Differs("n"), 412),
    (calls.Unsuitable("incr", "n", "str"), 422),
    (calls.TooLarge("the session", 70000, 65536), 413),
    (calls.Moved(4, ("b", "c")), 421),
    (calls.Rotating(), 423),
    (calls.Broken(), 500),
    (calls.Later(), 503),
    (calls.Unreachable("down"), 503),
    (calls.Full(), 507),
]


@pytest.mark.parametrize(("call", "line"), CALLS, ids=lambda value: type(value).__name__)
def test_a_call_arrives_as_it_was_sent(call: Call, line: bytes) -> None:
    """Between hosts with one clock a call survives the way unchanged, under the method and path that HTTP has for it."""
    assert line_of(call) == line
    assert decode_call(line, encode(call, 1000.0), 1000.0) == call


@pytest.mark.parametrize(("reply", "status"), REPLIES, ids=lambda value: type(value).__name__)
def test_a_reply_arrives_as_it_was_sent(reply: Reply, status: int) -> None:
    """Between hosts with one clock a reply survives the way unchanged, under the status that HTTP has for it."""
    assert status_of(reply) == status
    assert decode_reply(status, encode(reply, 1000.0), 1000.0) == reply


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_times_keep_their_distance_from_now(sender: float, receiver: float) -> None:
    """What was 10 s ago at the sender is 10 s ago at the receiver, whatever their clocks show."""
    sent = RECORD.but(last_seen=sender - 10.0, created=sender - 100.0, auth_time=None, frozen_until=sender + 0.25)
    call = calls.Put(KEY, sent)
    received = decode_call(line_of(call), encode(call, sender), receiver)
    assert isinstance(received, calls.Put)
    assert received.record.last_seen == pytest.approx(receiver - 10.0, abs=1e-6)
    assert received.record.created == pytest.approx(receiver - 100.0, abs=1e-6)
    assert received.record.frozen_until == pytest.approx(receiver + 0.25, abs=1e-6)
    assert received.record.auth_time is None


@pytest.mark.parametrize("message", [calls.Forbid(BAR), calls.Known((BAR,))], ids=lambda message: type(message).__name__)
def test_a_bar_keeps_its_age(message: calls.Forbid | calls.Known) -> None:
    """It ends the same sessions on a host with another clock."""
    moved = moved_to_clock(moved_to_clock(message, -1000.0), 70.0)
    [bar] = [moved.bar] if isinstance(moved, calls.Forbid) else moved.bars
    assert bar == BAR.moved_to_clock(-930.0)
    assert bar.at == pytest.approx(60.0)


@pytest.mark.parametrize("call", [call for call, _ in CALLS], ids=lambda call: type(call).__name__)
def test_a_field_that_a_later_release_adds_is_passed_over(call: Call) -> None:
    """An N+1 sender may add fields at the end of a message, to a receiver of release N."""
    fields = [*msgspec.msgpack.decode(encode(call, 1000.0)), "a later field", {"and": 1}]
    assert decode_call(line_of(call), msgspec.msgpack.encode(fields), 1000.0) == call


@pytest.mark.parametrize(
    "line",
    [
        b"PUT /v1/records/000102030405060708090a0b0c0d0e0f",
        b"GET /v1/records/ff0102030405060708090a0b0c0d0e0f",
        b"GET /v1/digests",
    ],
)
def test_a_request_line_that_says_something_else_is_refused(line: bytes) -> None:
    """Neither another method nor another session's path goes with a call."""
    with pytest.raises(WireError, match="request line"):
        decode_call(line, encode(calls.Fetch(KEY, 0.0), 0.0), 0.0)


def test_a_status_that_says_something_else_is_refused() -> None:
    """A reply whose status contradicts it is not believed."""
    with pytest.raises(WireError, match="status"):
        decode_reply(200, encode(calls.NotMine(), 0.0), 0.0)


def test_a_message_of_an_unknown_kind_is_refused() -> None:
    """A call that only a later wire version has does not reach anybody."""
    with pytest.raises(WireError):
        decode_call(b"POST /v1/digests", msgspec.msgpack.encode(["Teleport", KEY]), 0.0)


@given(st.binary(max_size=200))
def test_rubbish_is_refused(data: bytes) -> None:
    """Whatever bytes arrive, decoding gives a call or a `WireError`, nothing else."""
    for line in (b"GET /v1/records/000102030405060708090a0b0c0d0e0f", b"POST /v1/members"):
        try:
            assert line_of(decode_call(line, data, 0.0)) == line
        except WireError:
            pass


@given(st.sampled_from([call for call, _ in CALLS]), st.data())
def test_a_damaged_message_decodes_or_is_refused(call: Call, data: st.DataObject) -> None:
    """Bytes that nearly are a message raise nothing but `WireError`, with a reply's decoder too."""
    encoded = bytearray(encode(call, 1000.0))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    for decode in (lambda: decode_call(line_of(call), bytes(encoded), 1.0), lambda: decode_reply(200, bytes(encoded), 1.0)):
        try:
            decode()
        except WireError:
            pass
