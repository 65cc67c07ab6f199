"""The sources that the documentation shows, word for word, each between two marks; `test_examples` tries them."""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import pickle
import re
import secrets
import uuid
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from clustersession.errors import SourceRefused
from clustersession.sources import (
    DjangoFiles,
    Ids,
    Kept,
    KeyedSource,
    Legacy,
    Opened,
    Page,
    RedisShelf,
    Shelf,
    answers,
    restricted_unpickle,
)


# Beaker
class Beaker:
    """`ext:redis` with `secret`, `timeout` and the pickles that Beaker writes by default."""

    name, cookie_name, keyless = "beaker", "beaker.session.id", False

    def __init__(self, shelf: RedisShelf, secret: str, timeout_s: float) -> None:
        self._shelf, self._secret, self._timeout_s = shelf, secret.encode(), timeout_s

    def _cookie(self, sid: str) -> str:
        return hmac.new(self._secret, sid.encode(), "sha1").hexdigest() + sid

    def id_of(self, cookie: str) -> bytes | None:
        sid = cookie[40:]
        return sid.encode() if sid.isalnum() and hmac.compare_digest(cookie.encode(), self._cookie(sid).encode()) else None

    def read(self, cookie: str, now: float) -> Legacy | None:
        sid = self.id_of(cookie)
        kept = self._shelf.get(f"beaker_cache:{sid.decode()}:session", now) if sid else None
        try:
            items: Any = restricted_unpickle(b64decode(restricted_unpickle(kept.data))) if kept else {}  # type: ignore[arg-type]
            used, created, *_ = (items.pop(key, None) for key in ("_accessed_time", "_creation_time", "_domain", "_path"))
            ends = used + self._timeout_s
        except (ValueError, TypeError, AttributeError):
            return None
        return Legacy(items, sid, used, created, ends) if now <= ends else None

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        before = self.read(cookie, now) if cookie else None
        sid = before.id.decode() if before and before.id else uuid.uuid4().hex
        used = now if expires is None else min(now, expires - self._timeout_s)
        own = {"_accessed_time": used, "_creation_time": before.created if before else now}
        data = pickle.dumps(b64encode(pickle.dumps({**items, **own}, 2)).decode())
        end = used + self._timeout_s + 120
        if not self._shelf.put(f"beaker_cache:{sid}:session", data, end, now, new=before is None):
            return self.write(None, items, expires, now)
        return None if before else self._cookie(sid)

    def end(self, cookie: str) -> None:
        sid = self.id_of(cookie)
        if sid:
            self._shelf.drop(f"beaker_cache:{sid.decode()}:session")

    def pages(self, cursor: str = "") -> Iterator[Page]:
        for keys, following in self._shelf.keys("beaker_cache:", cursor):
            found = [key.split(":") for key in keys]
            yield Page(tuple(self._cookie(sid) for _, sid, last in found if last == "session"), following)


# Litestar
class LitestarForm:
    """What Litestar's server-side sessions are in any of its stores: JSON."""

    def decode(self, data: bytes) -> Opened:
        items = json.loads(data)
        if not isinstance(items, dict) or not items:
            raise ValueError("not a session: Litestar stores an empty one under whatever ID a browser sends")
        return Opened(items)

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        return json.dumps(dict(items)).encode()


def litestar(shelf: Shelf, *, prefix: str = "LITESTAR_sessions:", max_age_s: float = 14 * 86400) -> KeyedSource:
    """`prefix` is the namespace of its `RedisStore` and a colon."""
    ids = Ids(re.compile("[0-9a-f]{32,}"), lambda: secrets.token_hex(32))
    return KeyedSource("litestar", "session", shelf, LitestarForm(), ids, prefix=prefix, lifetime_s=max_age_s)


# fastapi-redis-sdk
class RedisFastapi:
    """A hash with one field: the key's time to live is the absolute limit, the field's is the idle one."""

    name, cookie_name, keyless = "fastapi-redis-sdk", "session", False

    def __init__(self, client: Redis, idle_s: int, absolute_s: int, *, prefix: str = "redis:fastapi") -> None:
        self._client, self._idle_s, self._absolute_s, self._prefix = client, idle_s, absolute_s, f"{prefix}:session:"

    def id_of(self, cookie: str) -> bytes | None:
        return cookie.encode() if re.fullmatch("[A-Za-z0-9_-]{22,200}", cookie) else None

    def read(self, cookie: str, now: float) -> Legacy | None:
        key = self._prefix + cookie
        with answers("redis", (RedisError,)), self._client.pipeline() as pipe:
            pipe.hget(key, "d")
            pipe.pttl(key)
            pipe.hpttl(key, "d")
            data, key_ms, field_ms = pipe.execute()
        if data is None or key_ms < 0 or not self.id_of(cookie):
            return None
        found, left_ms = json.loads(data), min(key_ms, *(each for each in field_ms if each >= 0))
        used, created, ends = found["m"]["last_access"], found["m"]["created"], now + left_ms / 1000
        return Legacy(found["d"], cookie.encode(), used, created, ends, deadline=now + key_ms / 1000)

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        before = self.read(cookie, now) if cookie else None
        sid = cookie if before and cookie else secrets.token_urlsafe(32)
        data = {"m": {"created": before.created if before else now, "last_access": now}, "d": dict(items)}
        idle_ms = self._idle_s * 1000 if expires is None else max(1, round((expires - now) * 1000))
        with answers("redis", (RedisError,)), self._client.pipeline() as pipe:
            pipe.hset(self._prefix + sid, "d", json.dumps(data))
            pipe.hpexpire(self._prefix + sid, idle_ms, "d")
            if not before:
                pipe.expire(self._prefix + sid, self._absolute_s)
            pipe.execute()  # a key that has gone meanwhile has no time to live now, and the library takes it for over
        return None if before else sid

    def end(self, cookie: str) -> None:
        with answers("redis", (RedisError,)):
            self._client.delete(self._prefix + cookie)

    def pages(self, cursor: str = "") -> Iterator[Page]:
        for keys, following in RedisShelf(self._client, errors=(RedisError,)).keys(self._prefix, cursor):
            yield Page(tuple(key.removeprefix(self._prefix) for key in keys), following)


# PHP's values
def php_value(data: bytes, at: int = 0, depth: int = 0) -> tuple[Any, int]:
    """What `unserialize` makes of `data` from `at` on, and where it ends. Raises `ValueError`; `SourceRefused` for objects."""
    kind, place = data[at : at + 2], at + 2
    if kind == b"N;":
        return None, place
    if kind in (b"O:", b"C:", b"E:", b"r:", b"R:"):
        raise SourceRefused("the session holds an object of PHP, or a reference")
    if kind not in (b"b:", b"i:", b"d:", b"s:", b"a:") or depth > 50:
        raise ValueError("not serialized")
    end = data.index(b":" if kind in (b"s:", b"a:") else b";", place)
    number, place = data[place:end], end + 2
    if kind == b"d:":
        return float(number), end + 1
    if kind in (b"b:", b"i:"):
        return (int(number) if kind == b"i:" else number == b"1"), end + 1
    if kind == b"s:":
        after = place + int(number)
        if data[after : after + 2] != b'";':
            raise ValueError("cut")
        return _text(data[place:after]), after + 2
    items: dict[Any, Any] = {}
    for _ in range(int(number)):
        key, place = php_value(data, place, depth + 1)
        items[key if isinstance(key, int) else str(key)], place = php_value(data, place, depth + 1)
    if data[place : place + 1] != b"}":
        raise ValueError("cut")
    return (list(items.values()) if list(items) == list(range(len(items))) else items), place + 1


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def php_bytes(value: Any) -> bytes:
    """`serialize`. Raises `TypeError` for what PHP has no such value for."""
    match value:
        case None:
            return b"N;"
        case bool():
            return b"b:%d;" % value
        case int():
            return b"i:%d;" % value
        case float():
            return b"d:%s;" % repr(value).upper().encode()
        case str() | bytes():
            data = value.encode() if isinstance(value, str) else value
            return b's:%d:"%s";' % (len(data), data)
        case list() | tuple() | dict():
            pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
            return b"a:%d:{%s}" % (len(pairs), b"".join(php_bytes(key) + php_bytes(each) for key, each in pairs))
    raise TypeError(f"PHP has no {type(value).__name__}")


# PHP's files
class PhpForm:
    """`handler` is `session.serialize_handler`: `php` (name|value, again and again) or `php_serialize`."""

    def __init__(self, handler: str) -> None:
        self._whole = handler == "php_serialize"

    def decode(self, data: bytes) -> Opened:
        items: Any = {}
        if self._whole:
            items = php_value(data)[0] or {}
        else:
            at = 0
            while at < len(data):
                bar = data.index(b"|", at)
                items[data[at:bar].decode()], at = php_value(data, bar + 1)
        if not isinstance(items, dict):
            raise ValueError("not a session")  # noqa: TRY004
        return Opened({str(key): value for key, value in items.items()})

    def encode(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float | None) -> bytes:
        if self._whole:
            return php_bytes(dict(items))
        return b"".join(b"%s|%s" % (key.encode(), php_bytes(value)) for key, value in items.items())


class PhpFiles(DjangoFiles):
    """`sess_<id>` in one directory. PHP locks a file while a request lasts, and writes into it."""

    def __init__(self, save_path: str | Path, lifetime_s: float) -> None:
        super().__init__(save_path, cookie_name="sess_", age_s=lifetime_s)
        self._save_path, self._lifetime_s = Path(save_path), lifetime_s

    @contextmanager
    def _locked(self, key: str, how: int) -> Iterator[int | None]:
        """The file, or None if there is none."""
        with answers(self.kind, ()):
            try:
                file = os.open(self._save_path / f"sess_{key}", os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                yield None
                return
            try:
                fcntl.flock(file, how)
                yield file
            finally:
                os.close(file)

    def get(self, key: str, now: float) -> Kept | None:
        with self._locked(key, fcntl.LOCK_SH):
            return super().get(key, now)

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        with self._locked(key, fcntl.LOCK_EX) as file:
            if new or file is None:
                return super().put(key, data, expires, now, new=new)
            os.pwrite(file, data, 0)
            os.ftruncate(file, len(data))
            modified = min(now, expires - self._lifetime_s)
            os.utime(file, (modified, modified))
            return True


def php(save_path: str | Path, *, handler: str = "php", lifetime_s: float = 1440) -> KeyedSource:
    """`session.save_path`, `session.serialize_handler` and `session.gc_maxlifetime`."""
    ids = Ids(re.compile("[A-Za-z0-9,-]{22,256}"), lambda: secrets.token_hex(16))
    return KeyedSource("php", "PHPSESSID", PhpFiles(save_path, lifetime_s), PhpForm(handler), ids, lifetime_s=lifetime_s)


# The end
