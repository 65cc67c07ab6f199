"""The sources of the documentation, against the real Beaker, Litestar and fastapi-redis-sdk, and on files as PHP writes them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from beaker.session import Session
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore
from litestar.testing import TestClient
from redis.asyncio import Redis as AsyncRedis
from redis_fastapi.session_backend import RedisSessionStore

from clustersession.errors import SourceRefused, SourceUnavailable
from clustersession.runtime.adoption import Adoption
from clustersession.runtime.importing import Fate, Importer
from clustersession.sources import ListedSource, NamedSource, RedisShelf, Source
from clustersession.testing.in_process import InProcessCluster
from tests.sources import servers
from tests.sources.examples import Beaker, RedisFastapi, litestar, php, php_bytes, php_value
from tests.sources.libraries import Library, cookie_value
from tests.sources.values import flipped, json_items, typed

SECRET = "the key of the old system"
LIFE_S = 1800
BEAKERS_OWN = {"_accessed_time", "_creation_time", "_domain", "_path"}
ITEMS = {"_user_id": "ann", "cart": ["apple", 2, 2.5, None, True], "sizes": {"big": 2**40}, "name": "Zoë"}
PAGE_LINES_MAX = 55


class BeakerLibrary:
    """Beaker's session, as its middleware uses it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def _session(self, cookie: str | None) -> tuple[Any, dict[str, Any]]:
        request = {} if cookie is None else {"cookie": f"beaker.session.id={cookie}"}
        how = {"type": "ext:redis", "url": self._client, "secret": SECRET, "timeout": LIFE_S}
        return Session(request, **how), request

    def load(self, cookie: str | None) -> dict[str, Any]:
        session, _ = self._session(cookie)
        return {key: value for key, value in session.items() if key not in BEAKERS_OWN}

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        session, request = self._session(cookie)
        for key in session.keys() - BEAKERS_OWN:
            del session[key]
        session.update(items)
        session.save()
        found = cookie_value(request["cookie_out"]) if session.is_new else None
        return None if found == cookie else found


class LitestarLibrary:
    """An app with server-side sessions in Redis."""

    def __init__(self, port: int) -> None:
        self._port = port

    def load(self, cookie: str | None) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        self._request(cookie, lambda request: seen.update(request.session))
        return seen

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        return self._request(cookie, lambda request: request.set_session(dict(items)))

    def _request(self, cookie: str | None, use: Callable[[Any], None]) -> str | None:
        @get("/")
        async def page(request: Request[Any, Any, Any]) -> None:
            use(request)

        store = RedisStore.with_client(f"redis://127.0.0.1:{self._port}", namespace="LITESTAR").with_namespace("sessions")
        config = ServerSideSessionConfig(max_age=LIFE_S)
        app = Litestar([page], middleware=[config.middleware], stores={"sessions": store})
        with TestClient(app, cookies={} if cookie is None else {"session": cookie}) as client:
            answer = client.get("/")
            assert answer.status_code == 200, answer.text
            found = answer.cookies.get("session")
            return None if found == cookie else found


class FastapiLibrary:
    """The store behind fastapi-redis-sdk's middleware, used as that does."""

    def __init__(self, port: int) -> None:
        self._port = port

    def load(self, cookie: str | None) -> dict[str, Any]:
        async def use(store: RedisSessionStore) -> dict[str, Any]:
            state = await store.load(cookie) if cookie is not None else None
            return {} if state is None else dict(state.record.data)

        found: dict[str, Any] = self._with_store(use)
        return found

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        async def use(store: RedisSessionStore) -> str | None:
            if cookie is not None and await store.load(cookie) is not None:
                await store.save(cookie, store.new_record(dict(items)))
                return None
            sid = store.new_id()
            await store.create(sid, store.new_record(dict(items)))
            return sid

        sid: str | None = self._with_store(use)
        return sid

    def _with_store(self, use: Callable[[RedisSessionStore], Any]) -> Any:
        async def run() -> Any:
            async with AsyncRedis(host="127.0.0.1", port=self._port) as client:
                return await use(RedisSessionStore(client, idle_ttl=LIFE_S, absolute_ttl=4 * LIFE_S))

        return asyncio.run(run())


class PhpLibrary:
    """PHP's `files`, as PHP 8 writes them: under a lock, in place. Nothing of PHP runs here; texts of it are compared below."""

    def __init__(self, directory: Path, handler: str) -> None:
        self._directory, self._handler = directory, handler

    def load(self, cookie: str | None) -> dict[str, Any]:
        path = self._directory / f"sess_{cookie}"
        with suppress(FileNotFoundError):
            if path.stat().st_mtime + LIFE_S > time.time():
                return _php_items(path.read_bytes(), self._handler)
        return {}

    def save(self, cookie: str | None, items: Mapping[str, Any]) -> str | None:
        sid = cookie or os.urandom(16).hex()
        with (self._directory / f"sess_{sid}").open("wb" if cookie is None else "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            whole = php_bytes(dict(items))
            parts = (f"{key}|".encode() + php_bytes(value) for key, value in items.items())
            file.write(whole if self._handler == "php_serialize" else b"".join(parts))
            file.truncate()
        return None if cookie else sid


def _php_items(data: bytes, handler: str) -> dict[str, Any]:
    if handler == "php_serialize":
        return php_value(data)[0] or {}
    items, at = {}, 0
    while at < len(data):
        name, _, _ = data[at:].partition(b"|")
        items[name.decode()], at = php_value(data, at + len(name) + 1)
    return items


class Pair(NamedTuple):
    """A library, and the example that reads its sessions. `server_down` is the same example without its server."""

    theirs: Library
    ours: Any
    server_down: Source | None


@pytest.fixture(scope="module")
def valkey_port() -> Iterator[int]:
    with servers.redis_server(servers.valkey_program()) as port:
        yield port


@pytest.fixture(params=["beaker", "litestar", "fastapi-redis-sdk", "php", "php_serialize"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    kind, fixture = request.param, request.getfixturevalue
    down = servers.down_redis()
    dead = RedisShelf(down, errors=(redis.RedisError,))
    if kind.startswith("php"):
        yield Pair(PhpLibrary(tmp_path, kind), php(tmp_path, handler=kind, lifetime_s=LIFE_S), php(tmp_path / "no"))
    elif kind == "fastapi-redis-sdk":
        with redis.Redis("127.0.0.1", fixture("valkey_port")) as client:
            client.flushall()
            ours = RedisFastapi(client, LIFE_S, 4 * LIFE_S)
            yield Pair(FastapiLibrary(fixture("valkey_port")), ours, RedisFastapi(down, LIFE_S, 4 * LIFE_S))
    else:
        client, port = fixture("redis_client"), fixture("redis_port")
        shelf = RedisShelf(client, errors=(redis.RedisError,))
        if kind == "beaker":
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # it calls setex
                yield Pair(BeakerLibrary(client), Beaker(shelf, SECRET, LIFE_S), Beaker(dead, SECRET, LIFE_S))
        else:
            yield Pair(LitestarLibrary(port), litestar(shelf, max_age_s=LIFE_S), litestar(dead))


def made(pair: Pair, items: Mapping[str, Any] = ITEMS) -> str:
    cookie = pair.theirs.save(None, items)
    assert cookie is not None
    return cookie


def test_there_and_back(pair: Pair) -> None:
    """What the library wrote is read with its types and its end, and what is written here is read by the library."""
    cookie, now = made(pair), time.time()
    legacy = pair.ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(pair.theirs.load(cookie)) == typed(ITEMS)
    assert legacy.expires == pytest.approx(now + LIFE_S, abs=2.5)
    assert legacy.id == pair.ours.id_of(cookie)
    later = {**ITEMS, "cart": ["plum"], "more": "x" * 300}
    assert pair.ours.write(cookie, later, legacy.expires, now) is None
    assert typed(pair.theirs.load(cookie)) == typed(later)
    assert pair.ours.write(cookie, {"_user_id": "bob"}, None, now) is None
    assert typed(pair.theirs.load(cookie)) == typed({"_user_id": "bob"})
    assert pair.ours.read(cookie, now).expires == pytest.approx(now + LIFE_S, abs=2.5)


def test_a_new_session_is_one_of_the_library(pair: Pair) -> None:
    """Under an ID from here; one that was ended stays so, and a write to it begins another one."""
    now = time.time()
    cookie = pair.ours.write(None, ITEMS, now + 600, now)
    assert cookie is not None
    assert pair.ours.read(cookie, now).expires == pytest.approx(now + 600, abs=2.5)
    assert typed(pair.theirs.load(cookie)) == typed(ITEMS)
    pair.ours.end(cookie)
    assert pair.theirs.load(cookie) == {}
    assert pair.ours.read(cookie, now) is None
    other = pair.ours.write(cookie, ITEMS, None, now)
    assert other not in (None, cookie)
    assert pair.theirs.load(cookie) == {}


def test_what_is_over_or_made_up_is_nothing(pair: Pair) -> None:
    """Cookies of nobody, and a session later than its end."""
    cookie, now = made(pair), time.time()
    assert pair.ours.read(flipped(cookie, 3), now) is None
    assert pair.ours.read(cookie[:-1], now) is None
    assert pair.ours.read("", now) is None
    over = pair.ours.read(cookie, now + LIFE_S + 200)
    assert over is None or over.expires > now + LIFE_S  # a server counts by its own clock


@given(st.text(max_size=60))
def test_any_text_names_nothing(cookie: str) -> None:
    """No text of a browser raises; none is signed by chance, and where nothing is signed only what has the form of an ID names
    one: for no other a store is asked."""
    shelf = RedisShelf(servers.down_redis(), errors=())
    assert Beaker(shelf, SECRET, 1).id_of(cookie) is None
    for source in (litestar(shelf), php("/")):
        if source.id_of(cookie) is None:
            assert source.read(cookie, 0.0) is None
        else:
            assert cookie.isascii()
            assert len(cookie) >= 22


def test_a_store_that_gives_no_answer_is_no_empty_session(pair: Pair) -> None:
    """Read, written, ended and listed: each says so."""
    down, cookie = pair.server_down, made(pair)
    assert isinstance(down, ListedSource)
    for use in (
        lambda: down.read(cookie, 0.0),
        lambda: down.write(None, ITEMS, None, 0.0),
        lambda: down.end(cookie),
        lambda: list(down.pages("")),
    ):
        with pytest.raises(SourceUnavailable):
            use()


def test_all_of_them_are_imported(pair: Pair) -> None:
    """Listed, taken over, and opened on every host with the old cookie alone when the old store is gone."""
    assert isinstance(pair.ours, ListedSource)
    assert isinstance(pair.ours, NamedSource)
    cookies = [made(pair, {**ITEMS, "_user_id": f"u{number}"}) for number in range(120)]
    cluster = InProcessCluster()
    for node in cluster:
        node.engine.adoption = Adoption(pair.ours)
    importer = Importer(cluster["a"].engine, pair.ours)
    listed = {cookie for page in importer.pages("") for cookie in page.cookies}
    assert listed == set(cookies)
    assert {importer.take(cookie).fate for cookie in cookies} == {Fate.TAKEN}
    for node in cluster:
        node.engine.adoption = Adoption(pair.server_down or pair.ours, imported=True)
    for number, cookie in enumerate(cookies):
        engine = cluster["abc"[number % 3]].engine
        visit = engine.visit((f"{pair.ours.cookie_name}={cookie}",), blocking=True)
        assert typed(dict(visit.session)) == typed({**ITEMS, "_user_id": f"u{number}"})
        visit.close()


# --- PHP's own texts ---------------------------------------------------------------------------------------------------------

PHP_TEXT = (
    b'user|s:3:"ann";cart|a:2:{i:0;s:5:"apple";i:1;a:2:{s:2:"id";i:7;s:5:"price";d:2.5;}}ok|b:1;none|N;name|s:4:"Zo\xc3\xab";'
    b'raw|s:2:"\xff\x00";empty|a:0:{}5|i:-3;big|d:1.0E+25;'
)
PHP_ITEMS: dict[str, Any] = {
    "user": "ann",
    "cart": ["apple", {"id": 7, "price": 2.5}],
    "ok": True,
    "none": None,
    "name": "Zoë",
    "raw": b"\xff\x00",
    "empty": [],
    "5": -3,
    "big": 1e25,
}
SID = "0123456789abcdefghijklmnop"


def test_what_php_writes_is_read(tmp_path: Path) -> None:
    """`session_encode` of PHP 8 with the handler `php`, and the whole as one value with `php_serialize`."""
    (tmp_path / f"sess_{SID}").write_bytes(PHP_TEXT)
    legacy = php(tmp_path).read(SID, time.time())
    assert legacy is not None
    assert typed(legacy.items) == typed(PHP_ITEMS)
    (tmp_path / f"sess_{SID}").write_bytes(b'a:1:{s:4:"user";s:3:"ann";}')
    legacy = php(tmp_path, handler="php_serialize").read(SID, time.time())
    assert legacy is not None
    assert legacy.items == {"user": "ann"}


@pytest.mark.parametrize("data", [b'cart|O:4:"Cart":0:{}', b"cart|a:1:{i:0;R:1;}", b'cart|E:7:"Suit:Up";'])
def test_objects_of_php_are_refused(data: bytes, tmp_path: Path) -> None:
    """They stay with PHP; so do references."""
    (tmp_path / f"sess_{SID}").write_bytes(data)
    with pytest.raises(SourceRefused, match="an object of PHP, or a reference"):
        php(tmp_path).read(SID, time.time())


@given(json_items)
def test_php_values_there_and_back(items: dict[str, Any]) -> None:
    """A list that is not empty stays a list, and an empty dict comes back as the empty array that it is in PHP."""
    assert php_value(php_bytes(items))[0] == _as_php(items)


def _as_php(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_php(each) for key, each in value.items()} or []
    return [_as_php(each) for each in value] if isinstance(value, list) else value


@given(st.binary(max_size=40) | st.text('abids:;{}|"0123N', max_size=30).map(str.encode))
def test_no_bytes_are_taken_for_php_that_are_none(data: bytes) -> None:
    """They are a value, or no session; nothing else happens."""
    with suppress(ValueError, SourceRefused):
        php_value(data)


def test_a_cut_value_is_none(tmp_path: Path) -> None:
    """At every place within its first entries."""
    whole = b'a:1:{s:4:"user";a:1:{i:0;d:2.5;}}'
    for end in range(len(whole)):
        with pytest.raises(ValueError):
            php_value(whole[:end])


def test_a_file_that_php_is_at_is_waited_for(tmp_path: Path) -> None:
    """While a request of PHP has it, half written, nobody reads it; what is read is what that request leaves."""
    path, seen = tmp_path / f"sess_{SID}", []
    path.write_bytes(b'user|s:3:"ann";')
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(7)
        file.flush()
        reader = threading.Thread(target=lambda: seen.append(php(tmp_path).read(SID, time.time())))
        reader.start()
        _await_waiting(path)
        assert seen == []
        os.pwrite(file.fileno(), b'user|s:3:"bob";', 0)
    reader.join(10.0)
    assert [legacy and legacy.items for legacy in seen] == [{"user": "bob"}]


def _await_waiting(path: Path) -> None:
    """Until the kernel says that somebody waits for the lock."""
    inode, deadline = f":{path.stat().st_ino} ", time.monotonic() + 10.0
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


# --- the page ----------------------------------------------------------------------------------------------------------------


def examples() -> dict[str, str]:
    text = (Path(__file__).parent / "examples.py").read_text(encoding="utf-8")
    parts = re.split(r"^# (Beaker|Litestar|fastapi-redis-sdk|PHP's values|PHP's files|The end)$", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True) if body.strip()}


@pytest.mark.parametrize("name", examples())
def test_the_documentation_shows_these_sources(name: str) -> None:
    """Word for word, each short."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "sources.md"
    assert examples()[name] in page.read_text(encoding="utf-8")
    assert len([line for line in examples()[name].splitlines() if line.strip()]) <= PAGE_LINES_MAX
