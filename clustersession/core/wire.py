"""How calls and replies look on the way between nodes: method, path, status, and the bytes of a body.

The tagged message in the body decides; method, path and status say the same for people who read along, and are checked. A
body is an envelope of two bytes (wire version, sealed or plain) and the message. Whatever carries session values is sealed;
times leave as ages and arrive as times of the receiver's clock. Within a wire version, fields may be added at the end of a
message: an older receiver passes over them. A version and the one before it understand each other.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ..errors import Corrupt, WireError
from . import calls
from .calls import Call, Message, Reply, carries_values, encode_message, moved_to_clock
from .sealing import Sealer

M = TypeVar("M", bound=Message)

WIRE_VERSION: Final = 1
WIRE_VERSION_OLDEST: Final = 1  # the one before WIRE_VERSION, once there is one
NONCE_BYTES: Final = 12

HELLO: Final = (b"POST", b"/v1/hello")

_BATCHES: Final[dict[type[Message], tuple[bytes, bytes]]] = {
    calls.Heartbeat: (b"POST", b"/v1/members"),
    calls.Confirm: (b"POST", b"/v1/digests"),
    calls.Inventory: (b"POST", b"/v1/digests"),
}
_METHODS: Final[dict[type[Message], bytes]] = {
    calls.Fetch: b"GET",
    calls.Export: b"GET",
    calls.Apply: b"PATCH",
    calls.Deliver: b"PUT",
    calls.Put: b"PUT",
}
_STATUSES: Final[dict[type[Message], int]] = {
    calls.Gone: 410,
    calls.Moved: 421,
    calls.NotMine: 404,
    calls.Later: 503,
    calls.Gap: 412,
    calls.Conflict: 409,
    calls.Rotating: 423,
    calls.TooLarge: 413,
    calls.Full: 507,
    calls.Broken: 500,
    calls.Unreachable: 503,
}

_RECORDS: Final = b"/v1/records/"
_BATCH_PATHS: Final = frozenset(path for _, path in _BATCHES.values())
_PLAIN: Final = 0
_SEALED: Final = 1
_CALL: Final = b"peer call"
_REPLY: Final = b"peer reply"


def method_and_path(call: Call) -> tuple[bytes, bytes]:
    """What `call` is in HTTP."""
    batch = _BATCHES.get(type(call))
    return batch or (_METHODS.get(type(call), b"POST"), _RECORDS + sealing_key(call).hex().encode())


def status_of(reply: Reply) -> int:
    """What `reply` is in HTTP, for people; the tag in the body decides."""
    return _STATUSES.get(type(reply), 200)


def sealing_key(call: Call) -> bytes:
    """What the sealed bodies of `call` and of its reply are bound to: the session's key, or nothing for a batch."""
    return getattr(call, "key", b"")


class Codec:
    """Calls and replies of one connection as bytes: sealed with key `kid`, which both ends have, in the `version` both speak.

    Everything that does not decode is a `WireError`. A `nonce` is 12 random bytes, used where `carries_values` says so.
    """

    __slots__ = ("_kid", "_sealer", "_version")

    def __init__(self, sealer: Sealer, kid: int, version: int = WIRE_VERSION) -> None:
        self._sealer, self._kid, self._version = sealer, kid, version

    def encode_call(self, call: Call, now: float, nonce: bytes) -> bytes:
        return self._encode(call, _CALL, sealing_key(call), now, nonce)

    def decode_call(self, method: bytes, path: bytes, body: bytes, now: float) -> Call:
        try:
            call = calls.decode_call(self._opened(body, _CALL, _key_in(path)))
            if method_and_path(call) == (method, path):
                return _received(call, body, now)
        except (msgspec.DecodeError, Corrupt, ValueError) as error:
            raise WireError(f"a call that does not decode: {error}") from None
        raise WireError(f"a {type(call).__name__} whose method or path say something else")

    def encode_reply(self, reply: Reply, key: bytes, now: float, nonce: bytes) -> bytes:
        """`key` is the `sealing_key` of the call it answers."""
        return self._encode(reply, _REPLY, key, now, nonce)

    def decode_reply(self, status: int, body: bytes, key: bytes, now: float) -> Reply:
        try:
            reply = calls.decode_reply(self._opened(body, _REPLY, key))
            if status_of(reply) == status:
                return _received(reply, body, now)
        except (msgspec.DecodeError, Corrupt, ValueError) as error:
            raise WireError(f"a reply that does not decode: {error}") from None
        raise WireError(f"a {type(reply).__name__} whose status says something else")

    def _encode(self, message: Message, purpose: bytes, key: bytes, now: float, nonce: bytes) -> bytes:
        data = encode_message(moved_to_clock(message, -now))
        if carries_values(message):
            return b"%c%c%b" % (self._version, _SEALED, self._sealer.seal(purpose, key, data, nonce, self._kid))
        return b"%c%c%b" % (self._version, _PLAIN, data)

    def _opened(self, body: bytes, purpose: bytes, key: bytes) -> bytes:
        if len(body) < 2 or not WIRE_VERSION_OLDEST <= body[0] <= WIRE_VERSION or body[1] not in (_PLAIN, _SEALED):
            raise WireError("an envelope that this release does not know")
        return self._sealer.open(purpose, key, body[2:]) if body[1] == _SEALED else body[2:]


def _received(message: M, body: bytes, now: float) -> M:
    if carries_values(message) != (body[1] == _SEALED):
        raise WireError(f"a {type(message).__name__} that is sealed and should not be, or the other way round")
    return moved_to_clock(message, now)


def _key_in(path: bytes) -> bytes:
    if path in _BATCH_PATHS:
        return b""
    if not path.startswith(_RECORDS):
        raise WireError("a path that no node has")
    return bytes.fromhex(path[len(_RECORDS) :].decode("ascii"))
