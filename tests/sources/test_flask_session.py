"""Flask-Session on all the stores that are read here, against Flask-Session itself."""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import flask
import pymemcache
import pytest
import redis
from cachelib.file import FileSystemCache
from flask_session.cachelib import CacheLibSessionInterface
from flask_session.memcached import MemcachedSessionInterface
from flask_session.redis import RedisSessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from clustersession.errors import ConfigError, SourceRefused, SourceUnavailable
from clustersession.sources import CachelibFiles, FlaskSession, MemcachedShelf, RedisShelf, Shelf, SqlShelf, flask_session_table
from tests.sources.libraries import FlaskLibrary
from tests.sources.servers import down_redis
from tests.sources.test_pickles import Touching
from tests.sources.values import flipped, json_items, typed

KEY = "the key of the old system"
LIFETIME_S = 40 * 86400  # above memcached's limit of relative times
STORES = ["redis", "memcached", "sql", "files", "files-md5"]
ITEMS = {"user": "ann", "cart": [1, 2.5, None, True], "raw": b"\x00\xff"}


class Pair(NamedTuple):
    """Flask-Session on a store, and our reader of the same one."""

    theirs: FlaskLibrary
    ours: FlaskSession
    shelf: Shelf


def app() -> flask.Flask:
    made = flask.Flask("shop")
    made.secret_key = KEY
    made.permanent_session_lifetime = timedelta(seconds=LIFETIME_S)
    return made


def on_redis(client: redis.Redis, *, signed: bool = False, serializer: Any = "msgpack") -> Pair:
    shop, shelf = app(), RedisShelf(client, errors=(redis.RedisError,))
    with warnings.catch_warnings(action="ignore"):
        shop.session_interface = RedisSessionInterface(shop, client, use_signer=signed, serialization_format=serializer)
    ours = FlaskSession(shelf, lifetime_s=LIFETIME_S, signed_with=KEY if signed else None, serializer=serializer)
    return Pair(FlaskLibrary(shop), ours, shelf)


def on_memcached(client: pymemcache.Client) -> Pair:
    shop, shelf = app(), MemcachedShelf(client, errors=(pymemcache.MemcacheError,), lifetime_s=LIFETIME_S)
    shop.session_interface = MemcachedSessionInterface(shop, client)
    return Pair(FlaskLibrary(shop), FlaskSession(shelf, lifetime_s=LIFETIME_S), shelf)


def on_sql(path: Path) -> Pair:
    shop = app()
    shop.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{path}"
    with warnings.catch_warnings(action="ignore"):
        shop.session_interface = SqlAlchemySessionInterface(shop, SQLAlchemy(shop))
    shelf = SqlShelf(lambda: sqlite3.connect(path), flask_session_table(), errors=(sqlite3.Error,), mark="?", dates="text")
    return Pair(FlaskLibrary(shop), FlaskSession(shelf, lifetime_s=LIFETIME_S), shelf)


def on_files(path: Path, hash_method: Any = hashlib.sha256) -> Pair:
    other = "md5" if hash_method is hashlib.sha256 else "sha256"
    shop, shelf = app(), CachelibFiles(path, hash_names=(hash_method().name, other))
    shop.session_interface = CacheLibSessionInterface(shop, FileSystemCache(str(path), threshold=0, hash_method=hash_method))
    return Pair(FlaskLibrary(shop), FlaskSession(shelf, lifetime_s=LIFETIME_S), shelf)


@pytest.fixture(params=STORES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    kind = request.param
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # datetime.utcnow, in Flask-Session
        if kind == "redis":
            yield on_redis(request.getfixturevalue("redis_client"))
        elif kind == "memcached":
            yield on_memcached(request.getfixturevalue("memcached_client"))
        elif kind == "sql":
            yield on_sql(tmp_path / "sessions.sqlite")
        else:
            yield on_files(tmp_path / "files", hashlib.md5 if kind == "files-md5" else hashlib.sha256)


def made(pair: Pair, items: dict[str, Any]) -> str:
    cookie = pair.theirs.save(None, items)
    assert cookie is not None
    return cookie


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=json_items, later=json_items)
def test_there_and_back(pair: Pair, items: dict[str, Any], later: dict[str, Any]) -> None:
    """What Flask-Session wrote is read with its types, and what is written here is read by Flask-Session."""
    items, later = {**items, **ITEMS}, {**later, "user": "bob"}
    cookie, now = made(pair, items), time.time()
    legacy = pair.ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(pair.theirs.load(cookie)) == typed(items)
    assert legacy.id == f"session:{cookie}".encode()
    assert legacy.persistent
    assert legacy.expires == pytest.approx(now + LIFETIME_S, abs=1.1)
    assert pair.ours.write(cookie, later, legacy.expires, now) is None
    assert typed(pair.theirs.load(cookie)) == typed(later)
    again = pair.ours.read(cookie, now)
    assert again is not None
    assert again.expires == pytest.approx(legacy.expires, abs=1.1)
    assert again.persistent


def test_a_session_of_ours_begins_one_there(pair: Pair) -> None:
    """Under a key from here, also if the browser brings one that the store does not know."""
    now = time.time()
    for brought in (None, "x" * 43, "not a key!"):
        cookie = pair.ours.write(brought, ITEMS, now + 3600, now)
        assert cookie is not None
        assert cookie != brought
        assert typed(pair.theirs.load(cookie)) == typed(ITEMS)
        legacy = pair.ours.read(cookie, now)
        assert legacy is not None
        assert legacy.expires == pytest.approx(now + 3600, abs=1.1)


def test_what_is_ended_is_gone_there(pair: Pair) -> None:
    """And a write that comes late does not bring it back."""
    cookie, now = made(pair, ITEMS), time.time()
    pair.ours.end(cookie)
    assert pair.theirs.load(cookie) == {}
    assert pair.ours.read(cookie, now) is None
    assert not pair.shelf.put(f"session:{cookie}", b"late", now + 60, now, new=False)
    assert pair.ours.write(cookie, ITEMS, None, now) not in (None, cookie)
    assert pair.theirs.load(cookie) == {}
    pair.ours.end(cookie)
    pair.ours.end("garbage!")


def test_what_is_logged_out_there_is_nothing_here(pair: Pair) -> None:
    """Flask-Session removes a session that is emptied."""
    cookie = made(pair, ITEMS)
    assert pair.ours.read(cookie, time.time()) is not None
    with pair.theirs.app.test_request_context(headers={"Cookie": f"session={cookie}"}):
        flask.session.clear()
        pair.theirs.app.process_response(flask.Response())
    assert pair.ours.read(cookie, time.time()) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cookie=st.text(max_size=80) | st.text("ab/.:%* \n", min_size=16, max_size=60))
def test_any_text_is_read_as_nothing(pair: Pair, cookie: str) -> None:
    """No text of a browser raises or reaches the store as another key."""
    assert pair.ours.read(cookie, time.time()) is None
    pair.ours.end(cookie)


def test_garbage_in_the_store_is_nothing(pair: Pair) -> None:
    """Bytes that no library wrote, and values that are no session."""
    now = time.time()
    for number, data in enumerate((b"", b"\x81", b"{", b"\xff" * 9, b"7", b"null", b"\x93\x01\x02\x03", pickle.dumps([1]))):
        pair.shelf.put(f"session:garbage-{number:08}", data, now + 60, now, new=True)
        assert pair.ours.read(f"garbage-{number:08}", now) is None


def test_a_pickle_with_code_is_refused_and_stays(pair: Pair, tmp_path: Path) -> None:
    """Neither read nor overwritten."""
    data, now = pickle.dumps({"user": "ann", "x": Touching(tmp_path / "ran")}), time.time()
    assert pair.shelf.put("session:aaaabbbbccccdddd", data, now + 60, now, new=True)
    with pytest.raises(SourceRefused):
        pair.ours.read("aaaabbbbccccdddd", now)
    with pytest.raises(SourceRefused):
        pair.ours.write("aaaabbbbccccdddd", ITEMS, None, now)
    kept = pair.shelf.get("session:aaaabbbbccccdddd", now)
    assert kept is not None
    assert kept.data == data
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["sql", "files"])
def test_the_end_counts_as_it_does_there(kind: str, tmp_path: Path, at: Callable[[float], None]) -> None:
    """Of stores that keep what has expired."""
    pair = on_sql(tmp_path / "sessions.sqlite") if kind == "sql" else on_files(tmp_path / "files")
    now = time.time()
    cookie = pair.ours.write(None, ITEMS, now - 1, now)
    assert cookie is not None
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        assert pair.ours.read(cookie, now) is None
        assert pair.theirs.load(cookie) == {}
        assert pair.ours.write(cookie, ITEMS, None, now) is not None


def test_a_signed_id_counts_only_with_its_signature(redis_client: redis.Redis) -> None:
    """SESSION_USE_SIGNER; the ID alone is nothing."""
    pair = on_redis(redis_client, signed=True)
    cookie, now = made(pair, ITEMS), time.time()
    sid, _, _ = cookie.partition(".")
    assert pair.ours.read(cookie, now) is not None
    for forged in (sid, cookie[:-1], flipped(cookie, -1), flipped(cookie, 0)):
        assert pair.ours.read(forged, now) is None
        pair.ours.end(forged)
    new = pair.ours.write(None, ITEMS, None, now)
    assert new is not None
    assert typed(pair.theirs.load(new)) == typed(ITEMS)
    pair.ours.end(cookie)
    assert pair.theirs.load(cookie) == {}


def test_json_is_read_and_stays_json(redis_client: redis.Redis) -> None:
    """Whatever new sessions are written as."""
    pair = on_redis(redis_client, serializer="json")
    cookie, now = made(pair, {"user": "ann"}), time.time()
    assert pair.ours.write(cookie, {"user": "bob"}, None, now) is None
    assert redis_client.get(f"session:{cookie}") == b'{"user":"bob","_permanent":true}'
    assert FlaskSession(pair.shelf).write(cookie, {"user": "cat"}, None, now) is None
    assert pair.theirs.load(cookie) == {"user": "cat"}


def test_pickles_of_before_0_7_are_read_and_stay_pickles(redis_client: redis.Redis) -> None:
    """That version reads nothing else; its IDs are UUIDs with dashes."""
    pair, now = on_redis(redis_client), time.time()
    cookie = "0e37df36-f698-11e6-8dd4-cb9ced3df976"
    items = {**ITEMS, "at": datetime(2026, 1, 2, tzinfo=UTC), "name": Markup("<b>"), "pair": (1, 2)}
    redis_client.set(f"session:{cookie}", pickle.dumps({**items, "_permanent": True}), ex=3600)
    legacy = pair.ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(items)
    assert pair.ours.write(cookie, {**items, "user": "bob"}, legacy.expires, now) is None
    written = redis_client.get(f"session:{cookie}")
    assert isinstance(written, bytes)
    assert pickle.loads(written) == {**items, "user": "bob", "_permanent": True}
    assert pair.theirs.load(cookie) == {**items, "user": "bob"}
    assert redis_client.ttl(f"session:{cookie}") == pytest.approx(3600, abs=2)


def test_md5_and_sha256_names_are_both_found_and_ended(tmp_path: Path) -> None:
    """cachelib changed the hash in 0.16; a session stays under the name that it has."""
    old, new = on_files(tmp_path, hashlib.md5), on_files(tmp_path, hashlib.sha256)
    cookie, now = made(old, ITEMS), time.time()
    assert new.ours.write(cookie, {"user": "bob"}, None, now) is None
    assert old.theirs.load(cookie) == {"user": "bob"}
    new.ours.end(cookie)
    assert old.theirs.load(cookie) == {}


def test_a_store_that_does_not_answer_is_no_missing_session(tmp_path: Path) -> None:
    """Each kind of store, on reading, writing and ending."""
    shelves: list[Shelf] = [
        RedisShelf(down_redis(), errors=(redis.RedisError,)),
        MemcachedShelf(pymemcache.Client(("127.0.0.1", 1), default_noreply=False), errors=(pymemcache.MemcacheError,)),
        SqlShelf(lambda: sqlite3.connect(tmp_path / "no" / "file"), flask_session_table(), errors=(sqlite3.Error,), mark="?"),
        SqlShelf(lambda: sqlite3.connect(tmp_path / "empty"), flask_session_table(), errors=(sqlite3.Error,), mark="?"),
        CachelibFiles(tmp_path / "nothing"),
    ]
    for shelf in shelves:
        ours = FlaskSession(shelf)
        with pytest.raises(SourceUnavailable, match=r"gives no answer|is not there"):
            ours.read("a" * 43, time.time())
        with pytest.raises(SourceUnavailable, match=r"gives no answer|is not there"):
            ours.write(None, ITEMS, None, time.time())
        with pytest.raises(SourceUnavailable, match=r"gives no answer|is not there"):
            ours.end("a" * 43)


@pytest.mark.parametrize("option", ["ignore_exc", "default_noreply"])
def test_a_memcached_client_that_hides_failures_is_refused(option: str) -> None:
    """With it a server that is down looks like one without the session."""
    options = {"default_noreply": False, option: True}
    address = ("127.0.0.1", 1)
    for client in (
        pymemcache.Client(address, **options),
        pymemcache.PooledClient(address, **options),
        pymemcache.HashClient([], **options),
    ):
        with pytest.raises(ConfigError, match=option):
            MemcachedShelf(client, errors=())


def test_names_of_tables_are_checked() -> None:
    """They go into statements as they are."""
    with pytest.raises(ConfigError, match="no name of a table"):
        SqlShelf(lambda: None, flask_session_table("sessions; DROP TABLE users"), errors=())
