"""How calls and replies look on the way between nodes: request line, status, and the bytes of the message.

The tagged message decides; method, path and status say the same for people who read along, and are checked. Times leave as
ages and arrive as times of the receiver's clock. Within a wire version fields may be added at the end of a message: an
older receiver passes over them. A version and the one before it understand each other.
"""

from __future__ import annotations

from binascii import hexlify
from typing import Final

import msgspec

from ..errors import WireError
from . import calls, encoding
from .calls import Call, Message, Reply
from .encoding import encode_message, moved_to_clock

HELLO: Final = b"POST /v1/hello"

_BATCHES: Final[dict[type[Message], bytes]] = {
    calls.Heartbeat: b"POST /v1/members",
    calls.Examine: b"POST /v1/members",
    calls.Confirm: b"POST /v1/digests",
    calls.Inventory: b"POST /v1/digests",
    calls.Many: b"POST /v1/records",
    calls.Forbid: b"POST /v1/users",
    calls.Bars: b"POST /v1/users",
    calls.OfUser: b"POST /v1/users",
}
_RECORDS: Final[dict[type[Message], bytes]] = {
    calls.Fetch: b"GET /v1/records/",
    calls.Export: b"GET /v1/records/",
    calls.Apply: b"PATCH /v1/records/",
    calls.Deliver: b"PUT /v1/records/",
    calls.Put: b"PUT /v1/records/",
}
_OTHERS: Final = b"POST /v1/records/"
_STATUSES: Final[dict[type[Message], int]] = {
    calls.Gone: 410,
    calls.Moved: 421,
    calls.NotMine: 404,
    calls.Later: 503,
    calls.Gap: 412,
    calls.Conflict: 409,
    calls.Rotating: 423,
    calls.TooLarge: 413,
    calls.Differs: 412,
    calls.Unsuitable: 422,
    calls.Full: 507,
    calls.Broken: 500,
    calls.Unreachable: 503,
}


def line_of(call: Call) -> bytes:
    """What `call` is in HTTP: method and path."""
    batch = _BATCHES.get(type(call))
    if batch is not None:
        return batch
    return _RECORDS.get(type(call), _OTHERS) + hexlify(call.key)  # type: ignore[union-attr]


def status_of(reply: Reply) -> int:
    """What `reply` is in HTTP."""
    return _STATUSES.get(type(reply), 200)


def encode(message: Call | Reply, now: float) -> bytes:
    """`now`: the sender's clock."""
    return encode_message(moved_to_clock(message, -now))


def decode_call(line: bytes, data: bytes, now: float) -> Call:
    """The call of an authenticated request; `now`: the receiver's clock. Raises `WireError`."""
    try:
        call = encoding.decode_call(data)
    except msgspec.DecodeError as error:
        raise WireError(f"a call that does not decode: {error}") from None
    if line_of(call) != line:
        raise WireError(f"a {type(call).__name__} with the request line of something else")
    return moved_to_clock(call, now)


def decode_reply(status: int, data: bytes, now: float) -> Reply:
    """The reply of an authenticated response; `now`: the receiver's clock. Raises `WireError`."""
    try:
        reply = encoding.decode_reply(data)
    except msgspec.DecodeError as error:
        raise WireError(f"a reply that does not decode: {error}") from None
    if status_of(reply) != status:
        raise WireError(f"a {type(reply).__name__} with the status of something else")
    return moved_to_clock(reply, now)
