"""starsessions on Redis, against starsessions itself."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis
import redis.asyncio
import starsessions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starsessions.stores.redis import RedisStore

from clustersession.errors import SourceRefused, SourceUnavailable
from clustersession.sources import RedisShelf, Starsessions
from tests.sources.libraries import AsgiLibrary
from tests.sources.servers import down_redis
from tests.sources.values import json_items, typed

LIFETIME_S, GC_S = 3600, 30 * 86400
ITEMS = {"user": "ann", "cart": [1, 2.5, None, True]}


class Library(AsgiLibrary):
    """A client for each request, since each has an event loop of its own."""

    def __init__(self, port: int, lifetime_s: int, *, rolling: bool = False) -> None:
        super().__init__(self._wrapped)
        self._port, self._lifetime_s, self._rolling = port, lifetime_s, rolling

    def _wrapped(self, app: Any) -> Any:
        async def closing(scope: Any, receive: Any, send: Any) -> None:
            async with redis.asyncio.Redis(host="127.0.0.1", port=self._port) as client:
                auto = starsessions.SessionAutoloadMiddleware(app)
                store = RedisStore(connection=client)
                wrapped = starsessions.SessionMiddleware(auto, store=store, lifetime=self._lifetime_s, rolling=self._rolling)
                await wrapped(scope, receive, send)

        return closing


@pytest.fixture
def shelf(redis_client: redis.Redis) -> RedisShelf:
    return RedisShelf(redis_client, errors=(redis.RedisError,))


@pytest.mark.parametrize(("lifetime_s", "left_s"), [(LIFETIME_S, LIFETIME_S), (0, GC_S)])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=json_items, later=json_items)
def test_there_and_back(
    redis_port: int, shelf: RedisShelf, lifetime_s: int, left_s: int, items: dict[str, Any], later: dict[str, Any]
) -> None:
    """What starsessions wrote is read with its types, and what is written here is read by starsessions."""
    theirs, ours = Library(redis_port, lifetime_s), Starsessions(shelf, lifetime_s=lifetime_s)
    items, later, now = {**items, **ITEMS}, {**later, "user": "bob"}, time.time()
    cookie = theirs.save(None, items)
    assert cookie is not None
    legacy = ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(theirs.load(cookie)) == typed(items)
    assert legacy.id == f"starsessions.{cookie}".encode()
    assert legacy.persistent == (lifetime_s > 0)
    assert legacy.expires == pytest.approx(now + left_s, abs=1.1)
    assert legacy.created == pytest.approx(now, abs=1.1)
    assert legacy.stamped == pytest.approx(now, abs=1.1)
    assert ours.write(cookie, later, legacy.expires, now + 5) is None
    assert typed(theirs.load(cookie)) == typed(later)
    again = ours.read(cookie, now)
    assert again is not None
    assert again.created == legacy.created


@pytest.mark.parametrize(
    ("rolling", "lifetime_s", "left_s"), [(False, LIFETIME_S, LIFETIME_S - 600), (True, LIFETIME_S, LIFETIME_S), (False, 0, GC_S)]
)
def test_a_write_back_ends_when_starsessions_would_end_it(
    redis_port: int, shelf: RedisShelf, redis_client: redis.Redis, rolling: bool, lifetime_s: int, left_s: int
) -> None:
    """Ten minutes later, as in mode `mirror`, which knows no end. Only a rolling lifetime, or none, begins anew."""
    theirs, now = Library(redis_port, lifetime_s, rolling=rolling), time.time()
    ours = Starsessions(shelf, lifetime_s=lifetime_s, rolling=rolling)
    cookie = theirs.save(None, ITEMS)
    assert cookie is not None
    assert ours.write(cookie, {**ITEMS, "user": "bob"}, None, now + 600) is None
    assert redis_client.ttl(f"starsessions.{cookie}") == pytest.approx(left_s, abs=2)
    assert theirs.load(cookie) == {**ITEMS, "user": "bob"}
    legacy = ours.read(cookie, now + 600)
    assert legacy is not None
    fixed = lifetime_s > 0 and not rolling
    assert legacy.deadline == (pytest.approx(now + lifetime_s, abs=1.1) if fixed else None), "the end that no use puts off"


def test_writes_of_both_sides_in_turn_do_not_move_the_end(redis_port: int, shelf: RedisShelf, redis_client: redis.Redis) -> None:
    """Neither by the part of a second that a TTL lacks, nor by one that it has too much."""
    theirs, ours = Library(redis_port, LIFETIME_S), Starsessions(shelf, lifetime_s=LIFETIME_S)
    cookie, began = theirs.save(None, ITEMS), time.time()
    assert cookie is not None
    for number in range(30):
        assert ours.write(cookie, {**ITEMS, "ours": number}, None, time.time()) is None
        assert theirs.save(cookie, {**ITEMS, "theirs": number}) == cookie
    kept = json.loads(redis_client.get(f"starsessions.{cookie}") or b"")["__metadata__"]
    assert kept["lifetime"] == LIFETIME_S
    assert kept["created"] == pytest.approx(began, abs=1.1)
    assert redis_client.ttl(f"starsessions.{cookie}") == pytest.approx(LIFETIME_S - (time.time() - began), abs=2)


def test_a_session_of_ours_begins_one_there(redis_port: int, shelf: RedisShelf, redis_client: redis.Redis) -> None:
    """Under a key from here, whatever the browser brings: starsessions itself would take over the browser's."""
    theirs, ours, now = Library(redis_port, LIFETIME_S), Starsessions(shelf, lifetime_s=LIFETIME_S), time.time()
    for brought in (None, "a" * 32, "planted"):
        cookie = ours.write(brought, ITEMS, now + 600, now)
        assert cookie is not None
        assert cookie != brought
        assert theirs.load(cookie) == ITEMS
        assert redis_client.ttl(f"starsessions.{cookie}") == pytest.approx(600, abs=2)
    assert theirs.save("b" * 32, ITEMS) == "b" * 32


def test_what_is_ended_is_gone_there(redis_port: int, shelf: RedisShelf) -> None:
    """And a write that comes late begins another one."""
    theirs, ours, now = Library(redis_port, LIFETIME_S), Starsessions(shelf), time.time()
    cookie = theirs.save(None, ITEMS)
    assert cookie is not None
    ours.end(cookie)
    assert theirs.load(cookie) == {}
    assert ours.read(cookie, now) is None
    assert ours.write(cookie, ITEMS, None, now) not in (None, cookie)
    assert theirs.load(cookie) == {}


def test_what_is_emptied_there_is_nothing_here(redis_port: int, shelf: RedisShelf) -> None:
    """starsessions removes a session that is emptied."""
    theirs, ours = Library(redis_port, LIFETIME_S), Starsessions(shelf)
    cookie = theirs.save(None, ITEMS)
    assert cookie is not None
    theirs.save(cookie, {})
    assert ours.read(cookie, time.time()) is None


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cookie=st.text(max_size=60))
def test_any_text_is_read_as_nothing(shelf: RedisShelf, cookie: str) -> None:
    """No text of a browser raises."""
    assert Starsessions(shelf).read(cookie, time.time()) is None
    Starsessions(shelf).end(cookie)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=30)
    | st.sampled_from(["[]", "null", "{", '{"__metadata__":7}', '{"__metadata__":{"created":"x"}}', "[" * 9999]).map(str.encode)
)
def test_garbage_in_the_store_never_raises(shelf: RedisShelf, data: bytes) -> None:
    """It is nothing, or a session without the entries that say when it was created."""
    now, key = time.time(), "starsessions." + "c" * 32
    shelf.drop(key)
    assert shelf.put(key, data, now + 60, now, new=True)
    legacy = Starsessions(shelf).read("c" * 32, now)
    if legacy is not None:
        assert legacy.items.keys() == json.loads(data).keys() - {"__metadata__"}
        assert legacy.created is None


def test_what_json_cannot_hold_is_refused(shelf: RedisShelf) -> None:
    """As starsessions would fail with it."""
    with pytest.raises(SourceRefused, match="starsessions-redis cannot hold"):
        Starsessions(shelf).write(None, {"raw": b"x"}, None, time.time())


def test_a_store_that_does_not_answer_is_no_missing_session() -> None:
    """Reading, writing and ending."""
    ours = Starsessions(RedisShelf(down_redis(), errors=(redis.RedisError,)))
    for attempt in (lambda: ours.read("a" * 32, 0.0), lambda: ours.write(None, ITEMS, None, 0.0), lambda: ours.end("a" * 32)):
        with pytest.raises(SourceUnavailable, match="gives no answer"):
            attempt()
