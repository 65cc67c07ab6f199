"""The sealed messages of one direction of a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.channel import OVERHEAD_BYTES, WIRE_VERSION, Direction
from clustersession.errors import WireError

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NONCE = bytes(12)


def ends(key: bytes = KEY) -> tuple[Direction, Direction]:
    return Direction(key, WIRE_VERSION), Direction(key, WIRE_VERSION)


@given(st.lists(st.tuples(st.binary(max_size=50), st.binary(max_size=2000), st.binary(min_size=12, max_size=12)), max_size=5))
def test_messages_arrive_in_their_order(messages: list[tuple[bytes, bytes, bytes]]) -> None:
    """What one end seals, the other opens, each message in turn, and nobody reads it on the way."""
    sender, receiver = ends()
    for context, data, nonce in messages:
        body = sender.seal(context, data, nonce)
        assert len(body) == len(data) + OVERHEAD_BYTES
        assert len(data) < 8 or data not in body[13:]  # after version and nonce
        assert receiver.open(context, body) == data


@given(st.binary(min_size=1, max_size=100), st.data())
def test_one_changed_bit_is_noticed(message: bytes, data: st.DataObject) -> None:
    """Version, nonce, ciphertext and tag: no bit of a body may change."""
    sender, receiver = ends()
    body = bytearray(sender.seal(b"line", message, NONCE))
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        receiver.open(b"line", bytes(body))


@pytest.mark.parametrize("length", [0, 1, OVERHEAD_BYTES - 1, OVERHEAD_BYTES])
def test_a_truncated_body_is_noticed(length: int) -> None:
    """However much is missing."""
    sender, receiver = ends()
    with pytest.raises(WireError):
        receiver.open(b"line", sender.seal(b"line", b"data", NONCE)[:length])


def test_another_context_is_noticed() -> None:
    """The request line, time or status belongs to the message."""
    sender, receiver = ends()
    with pytest.raises(WireError, match="authentication"):
        receiver.open(b"GET /v1/records/b", sender.seal(b"GET /v1/records/a", b"data", NONCE))


def test_a_repeated_message_is_noticed() -> None:
    """A message is good once."""
    sender, receiver = ends()
    body = sender.seal(b"line", b"data", NONCE)
    receiver.open(b"line", body)
    with pytest.raises(WireError, match="authentication"):
        receiver.open(b"line", body)


def test_a_message_left_out_or_moved_is_noticed() -> None:
    """The second message is not taken for the first."""
    sender, receiver = ends()
    sender.seal(b"line", b"first", NONCE)
    with pytest.raises(WireError, match="authentication"):
        receiver.open(b"line", sender.seal(b"line", b"second", NONCE))


def test_another_key_is_noticed() -> None:
    """Neither another connection's message nor one of the other direction is taken."""
    sender, _ = ends(OTHER_KEY)
    _, receiver = ends()
    with pytest.raises(WireError, match="authentication"):
        receiver.open(b"line", sender.seal(b"line", b"data", NONCE))


@pytest.mark.parametrize("version", [0, WIRE_VERSION + 1])
def test_another_wire_version_is_refused(version: int) -> None:
    """A body of a version this release does not know is not looked into."""
    _, receiver = ends()
    with pytest.raises(WireError, match="does not know"):
        receiver.open(b"line", Direction(KEY, version).seal(b"line", b"data", NONCE))
