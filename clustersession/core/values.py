"""Session values as bytes: MessagePack, with extension types for what it lacks. Never pickle.

Held exactly, at any depth and also as dict keys: None, bool, int of any size, float, str, bytes, list, dict, tuple, set,
frozenset, datetime, date, time, timedelta, Decimal, UUID, markupsafe.Markup. Subclasses come back as the type they are made
of, as with JSON (an OrderedDict as dict, an IntEnum as int, a named tuple as tuple, Django's SafeString and lazy strings
as str); bytearray and memoryview come back as bytes. A datetime or time keeps a ZoneInfo by name, any other zone as its
offset from UTC, and its fold.

One value has one encoding, and encoding what was decoded gives the same bytes again: this is how changes are found. So sets
are written in the order of their elements' bytes, while dicts keep their own order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import chain
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import msgspec

from ..errors import Corrupt, ValueNotSupported

TUPLE, SET, FROZENSET, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID_, MARKUP, BIG_INT = range(1, 12)

HIDDEN: Final = "\0"  # keys and users whose names begin with it are our own, and no app's
_INT_64: Final = range(-(2**63), 2**64)
UNCHANGEABLE: Final = frozenset({type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID})
"""Exact types whose values cannot change in place, so that only an assignment can have changed one."""
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)
_REFUSED: Final = (TypeError, ValueError, OverflowError, RecursionError)  # of the packer, by `_extension` too
_BLAME_STEPS: Final = 64
_KEPT_BYTES_MAX: Final = 64 * 1024


def is_immutable(value: object) -> bool:
    """Whether only an assignment can have changed it."""
    return type(value) in UNCHANGEABLE


def encode_value(value: object, name: str | None = None) -> bytes:
    """The bytes of the value stored under the key `name`. Raises `ValueNotSupported`, which names the part at fault."""
    try:
        return _pack(value)
    except _REFUSED:
        raise _refusal(value, name) from None


def decode_value(data: bytes) -> object:
    """What `encode_value` was given. Raises `Corrupt` for bytes that this release does not understand."""
    try:
        return _decode(data)
    # Also an unhashable key, a date that is none, a zone this host does not know, a Decimal of no number.
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError, ImportError, RecursionError) as error:
        raise Corrupt(f"a value of {len(data)} bytes does not decode: {type(error).__name__}") from None


def fingerprint(data: bytes) -> str:
    """What stands for a user that is no text."""
    return f"sha256:{hashlib.sha256(data).hexdigest()[:32]}"


def user_name(text: str) -> str:
    """Under which name the user is known that an app calls `text`: the same, but of what begins as our own names do a digest, so
    that no app's user is taken for one of those."""
    return fingerprint(text.encode(errors="surrogatepass")) if text.startswith(HIDDEN) else text


def check_depth(value: object, depth_max: int, name: str | None = None) -> None:
    """Raise `ValueNotSupported` for containers within containers in more than `depth_max` levels (a scalar has none)."""
    level = [value]
    for _ in range(depth_max):
        level = _next_level(level)
        if not level:
            return
    if any(isinstance(child, _CONTAINERS) for child in level):
        problem = f"is nested in more than {depth_max} levels"
        raise ValueNotSupported(f"{_place(name)} {problem}; keep it flatter, or keep it elsewhere and its key in the session")


def _next_level(level: list[Any]) -> list[Any]:
    """What is in the containers of `level` and may be a container itself; plain loops, on the path of every write."""
    found: list[Any] = []
    for value in level:
        if isinstance(value, dict):
            found += [key for key in value if type(key) is not str and type(key) not in UNCHANGEABLE]
            value = value.values()
        elif not isinstance(value, _CONTAINERS):
            continue
        for child in value:
            if type(child) not in UNCHANGEABLE:
                found.append(child)
    return found


# --- encoding: the packer passes on whatever is not exactly of a type it knows ---------------------------------------


def _pack(value: object) -> bytes:
    """Packers are reused, each by one call at a time: a hook may pack the inside of a value meanwhile."""
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = msgpack.Packer(default=_extension, strict_types=True, buf_size=4096)
    data: bytes = packer.pack(value)
    if len(data) <= _KEPT_BYTES_MAX:  # a packer keeps its buffer; one that failed is dropped with what it had written
        _idle_packers.append(packer)
    return data


_idle_packers: list[msgpack.Packer] = []


def _extension(value: Any) -> Any:
    """What the packer can pack in place of `value`."""
    encode = _EXACT.get(type(value))
    if encode is not None:
        return encode(value)
    return _degraded(value)


def _degraded(value: Any) -> Any:
    """A subclass as what it is made of."""
    names = {(base.__module__, base.__qualname__) for base in type(value).__mro__}
    if ("markupsafe", "Markup") in names:
        return msgpack.ExtType(MARKUP, str.__str__(value).encode())
    if ("django.utils.functional", "Promise") in names:
        return str(value)
    if isinstance(value, dict):
        return dict(value.items())  # as json does: a MultiValueDict gives its last values
    for base, encode in _BASES:
        if isinstance(value, base):
            return encode(value)
    raise TypeError(type(value).__qualname__)


def _int(value: int) -> Any:
    exact = int.__int__(value)
    if exact in _INT_64:
        return exact
    return msgpack.ExtType(BIG_INT, exact.to_bytes(exact.bit_length() // 8 + 1, "big", signed=True))


def _set(code: int) -> Callable[[Any], msgpack.ExtType]:
    def encode(value: set[object] | frozenset[object]) -> msgpack.ExtType:
        packer = msgpack.Packer(autoreset=False)
        packer.pack_array_header(len(value))
        return msgpack.ExtType(code, packer.bytes() + b"".join(sorted(map(_pack, value))))

    return encode


def _moment(code: int, iso: Callable[[Any], str]) -> Callable[[Any], msgpack.ExtType]:
    def encode(value: Any) -> msgpack.ExtType:
        zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
        text = iso(value.replace(tzinfo=None) if zone else value)
        if value.fold or zone:
            text += f" {value.fold} {zone or ''}"
        return msgpack.ExtType(code, text.encode())

    return encode


_EXACT: Final[dict[type, Callable[[Any], Any]]] = {
    tuple: lambda value: msgpack.ExtType(TUPLE, _pack(list(value))),
    set: _set(SET),
    frozenset: _set(FROZENSET),
    datetime: _moment(DATETIME, datetime.isoformat),
    date: lambda value: msgpack.ExtType(DATE, date.isoformat(value).encode()),
    time: _moment(TIME, time.isoformat),
    timedelta: lambda value: msgpack.ExtType(TIMEDELTA, _pack([value.days, value.seconds, value.microseconds])),
    Decimal: lambda value: msgpack.ExtType(DECIMAL, Decimal.__str__(value).encode()),
    UUID: lambda value: msgpack.ExtType(UUID_, value.bytes),
    int: _int,  # only those beyond 64 bits come here
}
# In this order, because a datetime is a date and a named tuple a tuple.
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, _int),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (list, list),
    *_EXACT.items(),
)


# --- decoding --------------------------------------------------------------------------------------------------------


def _from_extension(code: int, data: memoryview) -> object:
    decode = _DECODERS.get(code)
    if decode is None:
        raise Corrupt(f"a value has the unknown extension type {code}; a later release may have written it")
    return decode(data)


_BELOW_A_SECOND: Final = ("+00:00:00.", "-00:00:00.")  # an offset that `fromisoformat` takes for none


def _moment_parts(data: memoryview) -> tuple[str, dict[str, Any]]:
    iso, *rest = str(data, "utf-8").split(" ")
    changes: dict[str, Any] = {}
    if iso[-16:-6] in _BELOW_A_SECOND:
        offset = timedelta(microseconds=int(iso[-6:]))
        iso, changes["tzinfo"] = iso[:-16], timezone(offset if iso[-16] == "+" else -offset)
    if rest:
        fold, zone = rest
        changes["fold"] = int(fold)
        if zone:
            changes["tzinfo"] = ZoneInfo(zone)
    return iso, changes


def _datetime(data: memoryview) -> datetime:
    iso, changes = _moment_parts(data)
    return datetime.fromisoformat(iso).replace(**changes) if changes else datetime.fromisoformat(iso)


def _time(data: memoryview) -> time:
    iso, changes = _moment_parts(data)
    return time.fromisoformat(iso).replace(**changes)


def _markup(data: memoryview) -> object:
    from markupsafe import Markup

    return Markup(str(data, "utf-8"))  # noqa: S704  (it was Markup when it was stored)


_decode = msgspec.msgpack.Decoder(ext_hook=_from_extension).decode
_array = msgspec.msgpack.Decoder(list[Any], ext_hook=_from_extension).decode

_DECODERS: Final[dict[int, Callable[[memoryview], object]]] = {
    TUPLE: lambda data: tuple(_array(data)),
    SET: lambda data: set(_array(data)),
    FROZENSET: lambda data: frozenset(_array(data)),
    DATETIME: _datetime,
    DATE: lambda data: date.fromisoformat(str(data, "ascii")),
    TIME: _time,
    TIMEDELTA: lambda data: timedelta(*_array(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
    UUID_: lambda data: UUID(bytes=bytes(data)),
    MARKUP: _markup,
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
}


# --- saying what is wrong, only when something is -------------------------------------------------------------------


def _refusal(value: object, name: str | None) -> ValueNotSupported:
    trail = ""
    for _ in range(_BLAME_STEPS):
        label, part = next(((label, part) for label, part in _labelled(value) if not _packs(part)), ("", None))
        if not label:
            return ValueNotSupported(f"{_place(name)}{trail} {_reason(value)}")
        trail, value = trail + label, part
    return ValueNotSupported(f"{_place(name)} contains itself or is nested too deeply; keep plain data in the session")


def _reason(value: object) -> str:
    if isinstance(value, str):
        return "is text with lone surrogates, which is not Unicode; store it as bytes"
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"is of type {kind}, which no session can hold; store what it is made of (str, int, list, dict) or only its id"


def _labelled(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return chain(((" (a key)", key) for key in value), ((f"[{key!r:.40}]", item) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ((f"[{at}]", item) for at, item in enumerate(value))
    return ((" (an element)", item) for item in (value if isinstance(value, set | frozenset) else ()))


def _packs(value: object) -> bool:
    try:
        _pack(value)
    except _REFUSED:
        return False
    return True


def _place(name: str | None) -> str:
    return "the value" if name is None else f"session[{name!r:.64}]"
