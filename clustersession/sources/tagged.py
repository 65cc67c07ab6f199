"""Flask's tagged JSON: objects of one key stand for types that JSON lacks, `{" t": [1, 2]}` for a tuple.

Flask has six tags. An app's own ones are unknown here and stay the objects that they are, which Flask reads back as before.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final
from uuid import UUID

_PLAIN: Final = " di"  # an object that only looks like a tag: its key ends in two underscores more


def dumps(value: object) -> bytes:
    """Compact JSON. Raises `TypeError` for what Flask cannot hold either."""
    return json.dumps(_tagged(value), separators=(",", ":"), sort_keys=True, default=_as_text).encode("ascii")


def loads(data: bytes) -> Any:
    """What `dumps` was given. Raises `ValueError` for anything else."""
    try:
        return json.loads(data, object_hook=_untagged)
    except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"not tagged JSON: {type(error).__name__}") from None


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return _tagged_dict(value)
    if isinstance(value, tuple):
        return {" t": [_tagged(each) for each in value]}
    if isinstance(value, list):
        return [_tagged(each) for each in value]
    if isinstance(value, bytes):
        return {" b": b64encode(value).decode("ascii")}
    if callable(html := getattr(value, "__html__", None)):
        return {" m": str(html())}
    if isinstance(value, UUID):
        return {" u": value.hex}
    if isinstance(value, datetime):
        return {" d": _http_date(value)}
    return value


def _tagged_dict(value: Mapping[Any, Any]) -> dict[Any, Any]:
    items = {key: _tagged(each) for key, each in value.items()}
    only = next(iter(items)) if len(items) == 1 else None
    return {_PLAIN: {f"{only}__": items[only]}} if only in _TYPES else items


def _untagged(value: dict[str, Any]) -> Any:
    """Called for each object, the inner ones first."""
    if len(value) != 1:
        return value
    ((key, each),) = value.items()
    make = _TYPES.get(key)
    return value if make is None else make(each)


def _as_text(value: Any) -> Any:
    """What Flask's JSON makes of further types; they come back as text."""
    if isinstance(value, date):
        return _http_date(datetime.combine(value, time(), UTC))
    if isinstance(value, Decimal):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _http_date(value: datetime) -> str:
    return format_datetime(value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC), usegmt=True)


def _date(text: str) -> datetime | None:
    try:
        value = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _markup(text: str) -> str:
    try:
        from markupsafe import Markup
    except ImportError:
        return text
    return Markup(text)  # noqa: S704  - it was Markup when the app set it, and is signed


def _object(value: dict[str, Any]) -> dict[str, Any]:
    ((key, each),) = value.items()
    return {key[:-2]: each}


_TYPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    _PLAIN: _object,
    " t": tuple,
    " b": b64decode,
    " m": _markup,
    " u": UUID,
    " d": _date,
}
