"""Calls and replies as bytes, and their times on the way from one host's clock to another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from .calls import (
    Absorb,
    Absorbed,
    Apply,
    Beat,
    Call,
    Confirmed,
    Deliver,
    Each,
    Exported,
    Found,
    Frozen,
    Gone,
    Many,
    Message,
    Promoted,
    Put,
    Reply,
)
from .record import Lifetime, Patch, Record
from .record import moved_to_clock as record_moved

M = TypeVar("M", bound=Message)


def moved_to_clock(message: M, by: float) -> M:
    """`message` with the times of all records in it moved by `by` seconds: minus now before sending, plus now after."""
    return message if is_timeless(message) else _moved(message, by)


def is_timeless(message: Message) -> bool:
    """No record, no times: so are most messages, and this is on the hot path."""
    return type(message) not in _WITH_VALUES


def _moved(message: M, by: float) -> M:
    match message:
        case Apply() | Deliver():
            patch = _patch_moved(message.patch, by)
            return message if patch is message.patch else _with(message, patch=patch)
        case Put() | Absorb() | Found() | Promoted() | Frozen():
            return _with(message, record=record_moved(message.record, by))
        case Gone(grace=Record() as grace):
            return _with(message, grace=record_moved(grace, by))
        case Exported(record=Record() as held):
            return _with(message, record=record_moved(held, by))
        case Absorbed(better=Record() as better):
            return _with(message, better=record_moved(better, by))
        case Confirmed():
            return _with(message, differing=tuple((key, r and record_moved(r, by)) for key, r in message.differing))
        case Many():
            return _with(message, calls=tuple(moved_to_clock(call, by) for call in message.calls))
        case Each():
            return _with(message, replies=tuple(moved_to_clock(reply, by) for reply in message.replies))
        case Beat():
            return _with(message, hints=tuple((key, record_moved(r, by)) for key, r in message.hints))
    return message


def _with(message: M, **changes: Any) -> M:
    return msgspec.structs.replace(message, **changes)


def _patch_moved(patch: Patch, by: float) -> Patch:
    if patch.lifetime is None or patch.lifetime.deadline is None:
        return patch
    return msgspec.structs.replace(patch, lifetime=Lifetime(patch.lifetime.idle, patch.lifetime.deadline + by))


_WITH_VALUES: Final = frozenset(
    (Put, Absorb, Found, Exported, Promoted, Frozen, Apply, Deliver, Gone, Absorbed, Confirmed, Beat, Many, Each)
)

encode_message: Callable[[Message], bytes] = msgspec.msgpack.Encoder().encode

_decode_call = msgspec.msgpack.Decoder(Call).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


def decode_call(data: bytes) -> Call:
    """Raises `msgspec.DecodeError` (also for a value of the wrong type)."""
    try:
        return _decode_call(data)  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:  # which msgspec lets out for a text that is none
        raise msgspec.DecodeError(str(error)) from None


def decode_reply(data: bytes) -> Reply:
    """Raises `msgspec.DecodeError` (also for a value of the wrong type)."""
    try:
        return _decode_reply(data)  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from None
