"""Pickles of old sessions, of plain values only: a type off the list is refused before anything of it runs.

Whoever can write to the old store could otherwise have any code run here. The list holds values that a session of ours can
hold too; nothing on it does more than make a value.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, Final

from ..errors import SourceRefused

ALLOWED: Final = {
    "builtins": {"bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"},
    "collections": {"OrderedDict"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "markupsafe": {"Markup"},
    "uuid": {"SafeUUID", "UUID"},
}
"""Module -> the types of it that a session may hold."""
_RENAMED: Final = {"__builtin__": "builtins"}  # protocol 2 has the names of Python 2
_PLACES: Final = {"LONG_BINPUT", "PUT"}  # the C unpickler makes room for the place that is named, however far off
_OUTSIDE: Final = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
_BROKEN: Final = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, ImportError,
    RecursionError, MemoryError,
)  # fmt: skip
_UNFOLDED_MAX: Final = 16  # times the pickle: what it holds at several places is written at each of them later
_DEPTH_MAX: Final = 100
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)


def restricted_unpickle(data: bytes) -> object:
    """The plain value in `data`. Raises `SourceRefused` for a type off the list, and for what would become very much larger than
    `data`; `ValueError` for what is no pickle."""
    try:
        _check(data)
        value: object = _Unpickler(io.BytesIO(data)).load()
    except _BROKEN as error:
        raise ValueError(f"not a pickle: {type(error).__name__}") from None
    if _unfolded(value, {}, 0) > _UNFOLDED_MAX * len(data):
        raise SourceRefused(
            "the pickled session holds one value at so many places that it would be much larger when it is written"
        )
    return value


def _unfolded(value: object, known: dict[int, int], depth: int) -> int:
    """About the bytes of `value`, with what it holds at several places counted at each of them."""
    if isinstance(value, str | bytes):
        return 1 + len(value)
    if not isinstance(value, _CONTAINERS):
        return 1
    if depth > _DEPTH_MAX:
        raise SourceRefused(f"the pickled session contains itself, or is nested in more than {_DEPTH_MAX} levels")
    if id(value) not in known:
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_unfolded(each, known, depth + 1) for each in parts)
    return known[id(value)]


def _check(data: bytes) -> None:
    """Walks through without running anything."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _OUTSIDE:
            raise SourceRefused(f"the pickled session refers to something outside of it ({opcode.name})")
        if opcode.name in _PLACES and not 0 <= int(argument or 0) <= len(data):
            raise ValueError("a place that is not there")


def _latin(text: str, encoding: str) -> bytes:
    """How protocol 2 holds bytes; nothing but that is encoded here."""
    if encoding not in ("latin1", "latin-1"):
        raise SourceRefused(f"the pickled session would be encoded with {encoding!r}")
    return text.encode("latin-1")


def _made_of(make: Callable[..., Any], name: str, *kinds: type) -> type:
    """`make` for arguments of these types only: of a number it would make so many zeros, of a list text of any length."""

    def checked(_: type, *arguments: Any) -> Any:
        for each in arguments:
            if type(each) not in kinds:
                raise SourceRefused(f"the pickled session would make {name} of a value of type {type(each).__name__}")
        return make(*arguments)

    return type(name, (), {"__new__": checked})  # pickles want a class


_CHECKED: Final = {
    "bytes": _made_of(bytes, "bytes", bytes, list, tuple),
    "int": _made_of(int, "int", int, bool, float, str, bytes),
    "str": _made_of(str, "str", str, bytes),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = _RENAMED.get(module, module)
        if (module, name) == ("_codecs", "encode"):
            codec: Callable[[str, str], bytes] = _latin
            return codec
        if name not in ALLOWED.get(module, ()):
            raise SourceRefused(
                f"the pickled session holds a {module}.{name}, which is not on the list of types that are taken over"
            )
        found = super().find_class(module, name)
        if module == "builtins":
            return _CHECKED.get(name, found)
        return found if module != "markupsafe" else _made_of(found, name, str)
