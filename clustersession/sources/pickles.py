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
    RecursionError,
)  # fmt: skip


def restricted_unpickle(data: bytes) -> object:
    """The plain value in `data`. Raises `SourceRefused` for a type off the list, `ValueError` for what is no pickle."""
    try:
        _check(data)
        return _Unpickler(io.BytesIO(data)).load()
    except _BROKEN as error:
        raise ValueError(f"not a pickle: {type(error).__name__}") from None


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
        return super().find_class(module, name)
