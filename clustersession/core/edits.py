"""Operations on single values, which the master of a session carries out on what it holds then, so that parallel requests on
any host count exactly. A whole value would overwrite what another request has added meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final

import msgspec

from ..errors import ConflictingWrite, Corrupt, ValueNotSupported, ValueTypeMismatch
from .values import decode_value, encode_value

INCR: Final = "incr"
APPEND: Final = "append"
ADD: Final = "add"
DISCARD: Final = "discard"

UNKNOWN_TYPE: Final = "unknown to this release"
_TYPES: Final[dict[str, tuple[type, ...]]] = {INCR: (int, float), APPEND: (list,), ADD: (set,), DISCARD: (set,)}
_STARTS: Final[dict[str, Callable[[], object]]] = {INCR: int, APPEND: list, ADD: set, DISCARD: set}
_ABSENT: Final = object()


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """`operation` on the value of `key`, with its encoded `operand`."""

    operation: str
    key: str
    operand: bytes


class Intent:
    """What a request asks for beyond whole values: `edits` in their order, what each edited key holds by them here
    (`results`, encoded), and what must be stored under a key when they are saved (`expected`; None: nothing)."""

    __slots__ = ("edits", "expected", "results")

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self.results: dict[str, bytes] = {}
        self.expected: dict[str, bytes | None] = {}

    def edit(self, edit: Edit, result: bytes) -> None:
        self.edits.append(edit)
        self.results[edit.key] = result

    def drop(self, key: str) -> None:
        """The key gets a whole value, which has the edits so far in it."""
        if self.results.pop(key, None) is not None:
            self.edits = [edit for edit in self.edits if edit.key != key]

    def drop_all(self) -> None:
        self.edits, self.results = [], {}

    def edits_within(self, changes: Mapping[str, bytes | None]) -> tuple[Edit, ...]:
        """Those that still make the key's value in `changes`. Any other value was changed in place as well and goes whole."""
        return tuple(edit for edit in self.edits if changes.get(edit.key) == self.results[edit.key])


class Operations:
    """The operations that an app can call. Like a changed value they are saved at the end of the request.

    The session shows their result at once, as far as this request knows: what parallel requests add meanwhile it does not
    see, and it is not told what the master made of it. A missing key starts at 0, as an empty list or as an empty set.
    In the order of a request: a value assigned before takes part, a value assigned later wins. Where the value (or what
    was appended to it) is also changed in place in this request, the key is saved as a whole value that has the operation
    in it, and overwrites what others have added. Raises `ValueTypeMismatch` where a value of another type is stored; the
    master refuses all of the request's changes then.
    """

    __slots__ = ()

    def incr(self, key: str, by: float = 1) -> int | float:
        """Add `by`, an int or a float, also below 0. Returns what the session shows now."""
        result: int | float = self._edit(INCR, key, by)
        return result

    def append(self, key: str, value: object) -> None:
        """Put `value` at the end of a list."""
        self._edit(APPEND, key, value)

    def add(self, key: str, value: Hashable) -> None:
        """Put `value` into a set."""
        self._edit(ADD, key, value)

    def discard(self, key: str, value: Hashable) -> None:
        """Take `value` out of a set, if it is there when this is saved."""
        self._edit(DISCARD, key, value)

    def expect(self, key: str, value: object = _ABSENT) -> None:
        """Save what this request changes only if `value` is stored under `key` then (without `value`: if nothing is), else
        nothing of it and raise `ConflictingWrite`. Values are compared as they are stored: 1, 1.0 and True differ, and so do
        dicts in another order. A request that changes nothing is not checked."""
        self._expect(key, None if value is _ABSENT else encode_value(value, key))

    def _edit(self, operation: str, key: str, operand: object) -> Any:
        raise AttributeError(operation)

    def _expect(self, key: str, data: bytes | None) -> None:
        raise AttributeError("expect")


def edit_of(operation: str, key: str, operand: object) -> Edit:
    """Raises `ValueNotSupported` for an operand that no session can hold, or that does not fit the operation."""
    data = encode_value(operand, key)
    meant = decode_value(data)
    if operation == INCR and type(meant) not in _TYPES[INCR]:
        kind = type(operand).__qualname__
        raise ValueNotSupported(f"session.incr({key!r:.64}) adds an int or a float, not a value of type {kind}")
    if operation in (ADD, DISCARD) and not _is_hashable(meant):
        kind = type(operand).__qualname__
        raise ValueNotSupported(f"session.{operation}({key!r:.64}): no set can hold a value of type {kind}; use a tuple or text")
    return Edit(operation, key, data)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def start_of(operation: str) -> Any:
    """What a missing key starts as."""
    return _STARTS[operation]()


def check_type(operation: str, key: str, value: object) -> None:
    """Raises `ValueTypeMismatch`."""
    if type(value) not in _TYPES.get(operation, ()):
        raise ValueTypeMismatch(operation, key, type(value).__qualname__)


def applied(operation: str, key: str, value: Any, operand: Any) -> Any:
    """`value` after the operation: a list or set itself, changed. Raises `ValueTypeMismatch`."""
    check_type(operation, key, value)
    if operation == INCR:
        try:
            return value + operand
        except OverflowError:  # an int beyond the range of floats, and a float
            raise ValueTypeMismatch(operation, key, "int of more than 1023 bits") from None
    if operation == APPEND:
        value.append(operand)
    elif operation == ADD:
        value.add(operand)
    else:
        value.discard(operand)
    return value


def results_of(edits: Iterable[Edit], held: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """The encoded values that `edits` make of the encoded ones `held`. Raises `ValueTypeMismatch`."""
    values: dict[str, Any] = {}
    for edit in edits:
        operation, key = edit.operation, edit.key
        if operation not in _TYPES:
            raise ValueTypeMismatch(operation, key, UNKNOWN_TYPE)
        try:
            if key not in values:
                data = held(key)
                values[key] = start_of(operation) if data is None else decode_value(data)
            values[key] = applied(operation, key, values[key], decode_value(edit.operand))
        except (Corrupt, TypeError):  # written by a later release, whose types this one does not know
            raise ValueTypeMismatch(operation, key, UNKNOWN_TYPE) from None
    return {key: encode_value(value, key) for key, value in values.items()}


def check_expected(expected: Mapping[str, bytes | None], held: Callable[[str], bytes | None]) -> None:
    """Raises `ConflictingWrite`."""
    for key, data in expected.items():
        if held(key) != data:
            raise ConflictingWrite(key)
