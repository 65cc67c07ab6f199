"""How sessions are written as bytes by the libraries of before; the signatures around them are `signing`'s.

Each form keeps the library's own entries (Flask's `_permanent`, starsessions' `__metadata__`) out of the items and puts
them back when it writes.
"""

from __future__ import annotations

import json
import pickle
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from ..errors import SourceRefused
from . import tagged
from .pickles import restricted_unpickle
from .signing import Signer, packed, unpacked

PERMANENT: Final = "_permanent"
METADATA: Final = "__metadata__"
EXPIRY: Final = "_session_expiry"
SHORTEST_S: Final = 0.001  # of what is over
Serializer = Literal["msgpack", "json", "pickle"]


class Opened(NamedTuple):
    """A session as its bytes say. Times are Unix s. `own` is what the library itself keeps with it."""

    items: dict[str, Any]
    own: Any = None
    stamped: float | None = None
    created: float | None = None
    persistent: bool = False


class Form(Protocol):
    """How one library writes a session as bytes."""

    def decode(self, data: bytes) -> Opened:
        """Raises `ValueError` for what is no session, `SourceRefused` for one with values that are not taken over."""
        ...

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        """`before` is the session that this replaces, `expires` (Unix s) when it ends. Raises `TypeError` or `ValueError` for
        what the form cannot hold."""
        ...


class FlaskForm:
    """The session of Flask's own cookie. `permanent` is for sessions that do not say."""

    def __init__(self, *, permanent: bool) -> None:
        self._permanent = permanent

    def decode(self, data: bytes) -> Opened:
        return _of_flask(_object(tagged.loads(unpacked(data))))

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        return packed(tagged.dumps(_for_flask(items, before, self._permanent)))


class StarletteForm:
    """The session of Starlette's cookie: JSON in standard base64."""

    def __init__(self, *, persistent: bool) -> None:
        self._persistent = persistent

    def decode(self, data: bytes) -> Opened:
        return Opened(_object(_json(b64decode(data))), persistent=self._persistent)

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        return b64encode(json.dumps(dict(items)).encode("ascii"))


class FlaskSessionForm:
    """Flask-Session's MessagePack, JSON or pickle, tried in its order; one that is there is written back as it was."""

    def __init__(self, serializer: Serializer, *, permanent: bool) -> None:
        self._serializer, self._permanent = serializer, permanent

    def decode(self, data: bytes) -> Opened:
        serializer, value = _sniffed(data) if self._serializer != "pickle" else ("pickle", restricted_unpickle(data))
        return _of_flask(_object(value), serializer)

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        value = _for_flask(items, before, self._permanent)
        serializer = self._serializer if before is None else before.own
        if serializer == "pickle":
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        return msgspec.msgpack.encode(value) if serializer == "msgpack" else msgspec.json.encode(value)


class DjangoForm:
    """Django's signed text, of the database, the files and the cookie: compact JSON, deflated where that is shorter."""

    def __init__(self, signer: Signer | None, *, browser_close: bool) -> None:
        self._signer, self._browser_close = signer, browser_close

    def decode(self, data: bytes) -> Opened:
        if self._signer is None:
            return self._opened(data, None)
        stamped = self._signer.unstamp(data.decode("ascii"), float("inf"))  # Django takes no notice of this time
        if stamped is None:
            raise ValueError("its signature is none of ours")
        return self._opened(stamped.value, stamped.at)

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        body = packed(json.dumps(dict(items), separators=(",", ":")).encode("latin-1"))
        return body if self._signer is None else self._signer.stamp(body, int(now)).encode("ascii")

    def _opened(self, body: bytes, stamped: float | None) -> Opened:
        items = _object(_json(unpacked(body)))
        return Opened(items, stamped=stamped, persistent=is_persistent(items, self._browser_close))


class DjangoCacheForm:
    """Django's session in its cache: the pickled dict."""

    def __init__(self, *, browser_close: bool) -> None:
        self._browser_close = browser_close

    def decode(self, data: bytes) -> Opened:
        items = _object(restricted_unpickle(data))
        return Opened(items, persistent=is_persistent(items, self._browser_close))

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        return pickle.dumps(dict(items), pickle.HIGHEST_PROTOCOL)


class StarsessionsForm:
    """starsessions' JSON, in base64 for its cookie. `lifetime_s` 0: until the browser is closed."""

    def __init__(self, lifetime_s: int, *, in_cookie: bool) -> None:
        self._lifetime_s, self._in_cookie = lifetime_s, in_cookie

    def decode(self, data: bytes) -> Opened:
        items = _object(_json(b64decode(data) if self._in_cookie else data))
        own = items.pop(METADATA, None)
        own = own if isinstance(own, dict) else {}
        created, stamped = (_time(own.get(each)) for each in ("created", "last_access"))
        return Opened(items, own, stamped, created, self._lifetime_s > 0)

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        own = {"lifetime": self._lifetime_s, "created": now, **(before.own if before else {}), "last_access": now}
        created = _time(own["created"])
        if self._lifetime_s and expires is not None and created is not None:
            own["lifetime"] = max(1, round(expires - created))  # starsessions counts what is left anew at every request
        data = json.dumps({**items, METADATA: own}).encode("ascii")
        return b64encode(data) if self._in_cookie else data

    def end_of(self, opened: Opened) -> float | None:
        """By its creation, as starsessions counts; None if it says nothing of that."""
        lifetime = _time(opened.own.get("lifetime"))
        return None if opened.created is None or lifetime is None else opened.created + lifetime


def is_persistent(items: Mapping[str, Any], browser_close: bool) -> bool:
    """Whether Django's cookie outlives the browser (`SessionBase.get_expire_at_browser_close`)."""
    expiry = items.get(EXPIRY)
    return not browser_close if expiry is None else expiry != 0


def own_end(items: Mapping[str, Any], written: float, zone: tzinfo) -> float | None:
    """What `set_expiry` has set: seconds from when it was `written`, or a time; None: the age counts."""
    own = items.get(EXPIRY)
    if isinstance(own, int) and own:
        return written + own
    if not isinstance(own, str):
        return None
    try:
        end = datetime.fromisoformat(own)
    except ValueError:
        return None
    return (end.replace(tzinfo=zone) if end.tzinfo is None else end).timestamp()


def own_limits(items: Mapping[str, Any], now: float, zone: tzinfo = UTC) -> tuple[float | None, float | None]:
    """`Legacy.idle_s` and `Legacy.deadline` of what `set_expiry` has set: seconds count from each use, a time stays."""
    end = own_end(items, now, zone)
    if end is None:
        return None, None
    return max(end - now, SHORTEST_S), end if isinstance(items.get(EXPIRY), str) else None


def _of_flask(items: dict[str, Any], own: object = None) -> Opened:
    persistent = bool(items.pop(PERMANENT, False))
    return Opened(items, own, persistent=persistent)


def _for_flask(items: Mapping[str, Any], before: Opened | None, permanent: bool) -> dict[str, Any]:
    """The items' own word counts first, then that of the session they replace."""
    if before is not None:
        permanent = before.persistent
    return {**items} if PERMANENT in items or not permanent else {**items, PERMANENT: True}


def _sniffed(data: bytes) -> tuple[Serializer, object]:
    try:
        return "msgpack", msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return "json", msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "pickle", restricted_unpickle(data)


def _json(data: bytes) -> object:
    try:
        return json.loads(data.decode("latin-1") if data.isascii() else data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(value: object) -> dict[str, Any]:
    """A session is a dict; its keys are text here. Raises `ValueError` for another thing, `SourceRefused` for other keys."""
    if not isinstance(value, dict):
        raise ValueError("not a session")  # noqa: TRY004  - it is what bytes may hold, not how this is called
    for key in value:
        if not isinstance(key, str):
            raise SourceRefused(f"the session has a key that is no text but a {type(key).__name__}")
    return dict(value)


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else None
