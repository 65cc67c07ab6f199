"""Django's session engines that have a store, against Django itself."""

from __future__ import annotations

import pickle
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from django.contrib.sessions.backends import cache as cache_engine
from django.contrib.sessions.backends import cached_db as cached_db_engine
from django.contrib.sessions.backends import db as db_engine
from django.contrib.sessions.backends import file as file_engine
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.cache import caches
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clustersession.errors import SourceRefused, SourceUnavailable
from clustersession.sources import (
    DjangoCache,
    DjangoFiles,
    DjangoFileSession,
    DjangoSession,
    KeyedSource,
    RedisShelf,
    Shelf,
    SqlShelf,
    django_table,
)
from tests.sources.libraries import DjangoLibrary
from tests.sources.servers import down_redis
from tests.sources.test_pickles import Touching
from tests.sources.values import json_items, pickled_items, typed

KEY = "the key of the old system"
AGE_S = 14 * 86400
ITEMS = {"_auth_user_id": "7", "_auth_user_hash": "abc", "cart": [1, 2.5, None, True], "long": "x" * 200}
ENGINES = ["db", "cached_db", "cache", "file"]


class Session(AbstractBaseSession):
    """Django's own table."""

    class Meta:
        app_label = "sources"
        db_table = "django_session"


class Pair(NamedTuple):
    """One engine, and our reader of the same store."""

    theirs: DjangoLibrary
    ours: KeyedSource
    shelf: Shelf
    prefix: str
    items: st.SearchStrategy[dict[str, Any]]


def engine(base: type[Any], **more: Any) -> type[SessionBase]:
    """A new class by the engine's name, on our table."""
    return type(
        "SessionStore", (base,), {"get_model_class": classmethod(lambda cls: Session), "__qualname__": "SessionStore", **more}
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    path, before = tmp_path / "sessions.sqlite", connections["default"]
    own = DatabaseWrapper({**before.settings_dict, "NAME": str(path)}, "default")
    connections["default"] = own
    with own.schema_editor() as editor:
        editor.create_model(Session)
    yield path
    own.close()
    connections["default"] = before


@pytest.fixture
def redis_cache(redis_client: redis.Redis, redis_port: int) -> Iterator[RedisShelf]:
    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://127.0.0.1:{redis_port}"}
    with override_settings(CACHES={"default": backend}):
        yield RedisShelf(redis_client, errors=(redis.RedisError,))
        backend_object: Any = caches["default"]
        backend_object._cache.get_client(None, write=True).connection_pool.disconnect()


@pytest.fixture
def _project(tmp_path: Path) -> Iterator[None]:
    """A fixture of its own: `redis_cache` overrides settings within, and has to be undone before."""
    keys = {"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": ["older"]}
    with override_settings(**keys, SESSION_EXPIRE_AT_BROWSER_CLOSE=False, SESSION_FILE_PATH=str(tmp_path)):
        yield


@pytest.fixture(params=ENGINES)
def pair(request: pytest.FixtureRequest, _project: None) -> Pair:
    return {"db": on_db, "cached_db": on_cached_db, "cache": on_cache, "file": on_files}[request.param](request)


def on_db(request: pytest.FixtureRequest) -> Pair:
    path = request.getfixturevalue("database")
    shelf = sqlite_shelf(path)
    return Pair(
        DjangoLibrary(engine(db_engine.SessionStore)), DjangoSession(shelf, KEY, fallbacks=["older"]), shelf, "", json_items
    )


def on_cached_db(request: pytest.FixtureRequest) -> Pair:
    shelf, cache = sqlite_shelf(request.getfixturevalue("database")), request.getfixturevalue("redis_cache")
    ours = DjangoSession(shelf, KEY, fallbacks=["older"], cache=cache)
    return Pair(DjangoLibrary(engine(cached_db_engine.SessionStore)), ours, shelf, "", json_items)


def on_cache(request: pytest.FixtureRequest) -> Pair:
    shelf = request.getfixturevalue("redis_cache")
    prefix = ":1:django.contrib.sessions.cache"
    return Pair(DjangoLibrary(cache_engine.SessionStore), DjangoCache(shelf), shelf, prefix, pickled_items)


def on_files(request: pytest.FixtureRequest) -> Pair:
    path = request.getfixturevalue("tmp_path")
    ours = DjangoFileSession(path, KEY, fallbacks=["older"])
    return Pair(DjangoLibrary(engine(file_engine.SessionStore)), ours, DjangoFiles(path), "", json_items)


def sqlite_shelf(path: Path) -> SqlShelf:
    return SqlShelf(lambda: sqlite3.connect(path), django_table(), errors=(sqlite3.Error,), mark="?", dates="text")


def made(pair: Pair, items: dict[str, Any]) -> str:
    cookie = pair.theirs.save(None, items)
    assert cookie is not None
    return cookie


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_there_and_back(pair: Pair, data: st.DataObject) -> None:
    """What Django wrote is read with its types, and what is written here is read by Django."""
    items, later = {**data.draw(pair.items), **ITEMS}, {**data.draw(pair.items), "_auth_user_id": "8"}
    cookie, now = made(pair, items), time.time()
    legacy = pair.ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(pair.theirs.load(cookie)) == typed(items)
    assert legacy.id == f"{pair.prefix}{cookie}".encode()
    assert legacy.persistent
    assert legacy.expires == pytest.approx(now + AGE_S, abs=1.1)
    assert pair.ours.write(cookie, later, legacy.expires, now) is None
    assert typed(pair.theirs.load(cookie)) == typed(later)
    again = pair.ours.read(cookie, now)
    assert again is not None
    assert again.expires == pytest.approx(legacy.expires, abs=1.1)


def test_a_session_of_ours_begins_one_there(pair: Pair) -> None:
    """Under a key from here, also if the browser brings one that the store does not know."""
    now = time.time()
    for brought in (None, "x" * 32, "not a key!"):
        cookie = pair.ours.write(brought, ITEMS, None, now)
        assert cookie is not None
        assert cookie != brought
        assert typed(pair.theirs.load(cookie)) == typed(ITEMS)


def test_what_is_ended_is_gone_there(pair: Pair) -> None:
    """And a write that comes late does not bring it back, nor does Django's own."""
    cookie, now = made(pair, ITEMS), time.time()
    late = pair.theirs.engine(cookie)
    assert late["_auth_user_id"] == "7"
    pair.ours.end(cookie)
    assert pair.theirs.load(cookie) == {}
    assert pair.ours.read(cookie, now) is None
    assert pair.ours.write(cookie, ITEMS, None, now) not in (None, cookie)
    assert pair.ours.read(cookie, now) is None
    pair.ours.end(cookie)
    pair.ours.end("../../etc/passwd")


def test_what_is_logged_out_there_is_nothing_here(pair: Pair) -> None:
    """Django's `flush`, as its `logout` does."""
    cookie = made(pair, ITEMS)
    assert pair.ours.read(cookie, time.time()) is not None
    pair.theirs.engine(cookie).flush()
    assert pair.ours.read(cookie, time.time()) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cookie=st.text(max_size=80) | st.text("ab/.:%* \n", min_size=8, max_size=40))
def test_any_text_is_read_as_nothing(pair: Pair, cookie: str) -> None:
    """No text of a browser raises or leaves the directory."""
    assert pair.ours.read(cookie, time.time()) is None
    pair.ours.end(cookie)


def test_garbage_in_the_store_is_nothing(pair: Pair) -> None:
    """Also what another key has signed."""
    cookie, now = made(pair, ITEMS), time.time()
    kept = pair.shelf.get(pair.prefix + cookie, now)
    assert kept is not None
    for data in (b"", b"x", b"a:b:c", kept.data[:-1], b"A" + kept.data[1:]):
        assert pair.shelf.put(pair.prefix + cookie, data, now + 60, now, new=False)
        assert pair.ours.read(cookie, now) is None
        assert pair.ours.write(cookie, ITEMS, None, now) not in (None, cookie)


@pytest.mark.parametrize(
    ("expiry", "left_s", "persistent"),
    [(None, AGE_S, True), (600, 600, True), (0, AGE_S, False), (timedelta(seconds=600), 600, True)],
)
def test_an_expiry_of_its_own_is_kept(pair: Pair, expiry: Any, left_s: int, persistent: bool) -> None:
    """`set_expiry` of Django, with all that it takes."""
    session, now = pair.theirs.engine(None), time.time()
    session["user"] = "ann"
    session.set_expiry(expiry)
    session.save()
    assert session.session_key is not None
    legacy = pair.ours.read(session.session_key, now)
    assert legacy is not None
    assert legacy.expires == pytest.approx(now + left_s, abs=1.1)
    assert legacy.persistent == persistent
    for expires in (None, legacy.expires):
        assert pair.ours.write(session.session_key, {**legacy.items, "user": "bob"}, expires, now) is None
        again = pair.theirs.engine(session.session_key)
        assert again["user"] == "bob"
        assert again.get_expire_at_browser_close() != persistent
        kept = pair.ours.read(session.session_key, now)
        assert kept is not None
        assert kept.expires == pytest.approx(now + left_s, abs=1.1)


@pytest.mark.parametrize("kind", ["db", "file"])
def test_the_end_counts_as_it_does_there(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, at: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a session that was written with an end of its own: two seconds before it, and two after."""
    with override_settings(SECRET_KEY=KEY, SESSION_FILE_PATH=str(tmp_path)):
        pair = {"db": on_db, "file": on_files}[kind](request)
        now = time.time()
        cookie = pair.ours.write(None, ITEMS, now + 100, now)
        assert cookie is not None
        for moment, taken in ((now + 98, True), (now + 102, False)):
            monkeypatch.setattr("django.utils.timezone.now", lambda moment=moment: datetime.fromtimestamp(moment, UTC))
            assert (pair.ours.read(cookie, moment) is not None) == taken
            assert (pair.theirs.load(cookie) != {}) == taken


def test_an_empty_file_is_a_session_to_come(tmp_path: Path) -> None:
    """Django takes the name with one before it writes."""
    (tmp_path / ("sessionid" + "a" * 32)).touch()
    assert DjangoFileSession(tmp_path, KEY).read("a" * 32, time.time()) is None


def test_files_of_a_custom_time_without_a_zone(tmp_path: Path) -> None:
    """USE_TZ off; and a time that is none counts as no end of its own."""
    ours, now = DjangoFileSession(tmp_path, KEY), time.time()
    for text, left_s in ((datetime.fromtimestamp(now + 600, UTC).replace(tzinfo=None).isoformat(), 600), ("tomorrow", AGE_S)):
        cookie = ours.write(None, {"_session_expiry": text}, None, now)
        assert cookie is not None
        legacy = ours.read(cookie, now)
        assert legacy is not None
        assert legacy.expires == pytest.approx(now + left_s, abs=1.1)


def test_a_retired_key_is_accepted_and_no_longer_signs(database: Path) -> None:
    """SECRET_KEY_FALLBACKS."""
    now, shelf = time.time(), sqlite_shelf(database)
    with override_settings(SECRET_KEY="older"):
        cookie = DjangoLibrary(engine(db_engine.SessionStore)).save(None, ITEMS)
    assert cookie is not None
    assert DjangoSession(shelf, KEY).read(cookie, now) is None
    assert DjangoSession(shelf, KEY, fallbacks=["older"]).write(cookie, ITEMS, None, now) is None
    assert DjangoSession(shelf, "older").read(cookie, now) is None
    assert DjangoSession(shelf, KEY).read(cookie, now) is not None


def test_a_cached_session_is_not_read_from_the_cache_after_a_write(
    request: pytest.FixtureRequest, redis_cache: RedisShelf
) -> None:
    """The entry is dropped, and Django fills it from the database again, with the same end."""
    client = request.getfixturevalue("redis_client")
    with override_settings(SECRET_KEY=KEY):
        pair = on_cached_db(request)
        cookie, now = made(pair, ITEMS), time.time()
        entry = f":1:django.contrib.sessions.cached_db{cookie}"
        assert client.exists(entry)
        assert pair.ours.write(cookie, {"user": "bob"}, now + 600, now) is None
        assert not client.exists(entry)
        assert pair.theirs.load(cookie) == {"user": "bob"}
        assert client.ttl(entry) == pytest.approx(600, abs=2)


def test_a_cached_pickle_with_code_is_refused_and_stays(redis_cache: RedisShelf, tmp_path: Path) -> None:
    """Neither read nor overwritten."""
    cookie = DjangoLibrary(cache_engine.SessionStore).save(None, ITEMS)
    assert cookie is not None
    key, now = f":1:django.contrib.sessions.cache{cookie}", time.time()
    data = pickle.dumps({"user": "ann", "x": Touching(tmp_path / "ran")})
    assert redis_cache.put(key, data, now + 60, now, new=False)
    for attempt in (
        lambda: DjangoCache(redis_cache).read(cookie, now),
        lambda: DjangoCache(redis_cache).write(cookie, ITEMS, None, now),
    ):
        with pytest.raises(SourceRefused):
            attempt()
    kept = redis_cache.get(key, now)
    assert kept is not None
    assert kept.data == data
    assert not (tmp_path / "ran").exists()


def test_keys_that_are_no_text_are_refused(redis_cache: RedisShelf) -> None:
    """A pickled session may have them, and ours cannot."""
    cookie = DjangoLibrary(cache_engine.SessionStore).save(None, {7: "x"})  # type: ignore[dict-item]
    assert cookie is not None
    with pytest.raises(SourceRefused, match="key that is no text"):
        DjangoCache(redis_cache).read(cookie, time.time())


def test_a_store_that_does_not_answer_is_no_missing_session(tmp_path: Path) -> None:
    """A database without the table, a directory that is not mounted, a cache that is down while the database is not."""
    down = RedisShelf(down_redis(), errors=(redis.RedisError,))
    now = time.time()
    for ours in (DjangoSession(sqlite_shelf(tmp_path / "x"), KEY), DjangoFileSession(tmp_path / "none", KEY), DjangoCache(down)):
        with pytest.raises(SourceUnavailable):
            ours.read("a" * 32, now)
        with pytest.raises(SourceUnavailable):
            ours.end("a" * 32)
    with pytest.raises(SourceUnavailable):
        DjangoFileSession(tmp_path / "none", KEY).write(None, ITEMS, None, now)


def test_an_end_while_the_cache_is_down_is_not_taken_for_done(database: Path) -> None:
    """Django would read the session from the cache once that is back."""
    down = RedisShelf(down_redis(), errors=(redis.RedisError,))
    with override_settings(SECRET_KEY=KEY):
        cookie = DjangoLibrary(engine(db_engine.SessionStore)).save(None, ITEMS)
    assert cookie is not None
    with pytest.raises(SourceUnavailable):
        DjangoSession(sqlite_shelf(database), KEY, cache=down).end(cookie)


def test_no_error_tells_the_key_of_a_session(tmp_path: Path) -> None:
    """It would stand in a log, and whoever reads that could bring it as a cookie."""
    ours = DjangoFileSession(tmp_path, "the key of the old system")
    key = ours.write(None, {"user": "ann"}, None, time.time())
    assert key is not None
    (tmp_path / f"sessionid{key}").unlink()
    (tmp_path / f"sessionid{key}").mkdir()  # stands for a disk that fails
    for attempt in (lambda: ours.read(key, time.time()), lambda: ours.write(key, {}, None, time.time()), lambda: ours.end(key)):
        with pytest.raises(SourceUnavailable, match="directory|permitted") as raised:
            attempt()
        assert key not in str(raised.value)
