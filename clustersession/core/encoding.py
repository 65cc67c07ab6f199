"""Calls and replies as bytes, and their times on the way from one host's clock to another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    Forbid,
    Found,
    Frozen,
    Gone,
    Known,
    Many,
    Message,
    Promoted,
    Put,
    Reply,
    Theirs,
)
from .record import Lifetime, locks_moved
from .record import moved_to_clock as record_moved

M = TypeVar("M", bound=Message)


def moved_to_clock(message: M, by: float) -> M:
    """`message` with the times of all records in it moved by `by` seconds: minus now before sending, plus now after."""
    moved = WITH_TIMES.get(type(message))
    return message if moved is None else moved(message, by)


def _with_patch(message: Apply | Deliver, by: float) -> Message:
    patch, lifetime = message.patch, message.patch.lifetime
    if patch.locks:
        patch = _replace(patch, locks=locks_moved(patch.locks, by))
    if lifetime is not None and lifetime.deadline is not None:
        patch = _replace(patch, lifetime=Lifetime(lifetime.idle, lifetime.deadline + by))
    return message if patch is message.patch else _replace(message, patch=patch)


def _with_record(message: Put | Absorb | Found | Promoted | Frozen, by: float) -> Message:
    return _replace(message, record=record_moved(message.record, by))


def _with_held(message: Exported, by: float) -> Message:
    return message if message.record is None else _replace(message, record=record_moved(message.record, by))


def _with_grace(message: Gone, by: float) -> Message:
    return message if message.grace is None else _replace(message, grace=record_moved(message.grace, by))


def _with_better(message: Absorbed, by: float) -> Message:
    return message if message.better is None else _replace(message, better=record_moved(message.better, by))


def _with_differing(message: Confirmed, by: float) -> Message:
    if not message.differing:
        return message
    return _replace(message, differing=tuple([(key, r and record_moved(r, by)) for key, r in message.differing]))


def _with_hints(message: Beat, by: float) -> Message:
    return _replace(message, hints=tuple([(key, record_moved(r, by)) for key, r in message.hints])) if message.hints else message


def _with_calls(message: Many, by: float) -> Message:
    return _replace(message, calls=tuple([moved_to_clock(call, by) for call in message.calls]))


def _with_replies(message: Each, by: float) -> Message:
    return _replace(message, replies=tuple([moved_to_clock(reply, by) for reply in message.replies]))


def _with_sessions(message: Theirs, by: float) -> Message:
    return _replace(message, sessions=tuple([(key, record_moved(r, by)) for key, r in message.sessions]))


def _with_bar(message: Forbid, by: float) -> Message:
    return _replace(message, bar=message.bar.moved_to_clock(by))


def _with_bars(message: Known, by: float) -> Message:
    return _replace(message, bars=tuple([bar.moved_to_clock(by) for bar in message.bars]))


_replace = msgspec.structs.replace
# of most messages nothing is to be moved, and every message of every request is looked up here
WITH_TIMES: Final[Mapping[type, Callable[[Any, float], Any]]] = {
    **dict.fromkeys((Apply, Deliver), _with_patch),
    **dict.fromkeys((Put, Absorb, Found, Promoted, Frozen), _with_record),
    Exported: _with_held,
    Gone: _with_grace,
    Absorbed: _with_better,
    Confirmed: _with_differing,
    Beat: _with_hints,
    Many: _with_calls,
    Each: _with_replies,
    Theirs: _with_sessions,
    Forbid: _with_bar,
    Known: _with_bars,
}

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
