"""Every store that can be listed: the sessions of the library of before are imported while some of their users click.

By default with 100 users for each; `CLUSTERSESSION_USERS=1000` in the environment takes another number.
"""

from __future__ import annotations

import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pymemcache
import pytest
import redis
from django.conf import settings
from django.contrib.sessions.backends import file as file_engine
from django.test import override_settings

from clustersession.config import Lifetimes
from clustersession.core.record import expires_at
from clustersession.errors import ConfigError
from clustersession.integrations.django.adoption import DjangoEngineSource
from clustersession.integrations.flask_adoption import InterfaceSource
from clustersession.runtime.adoption import Adoption
from clustersession.runtime.importing import Fate, Importer
from clustersession.sources import CachelibFiles, FlaskSession, ListedSource, MemcachedShelf, RedisShelf, Source
from clustersession.sources.shelf import PAGE
from tests.sources import test_django, test_flask_session
from tests.sources.switching import HOSTS, OURS, Case, Site, packed, same
from tests.sources.test_django import KEY, database, redis_cache
from tests.sources.test_sql import django_on_postgres, postgres_port
from tests.sources.test_switched_over import (
    USERS,
    Make,
    django_live,
    django_parser,
    django_postgres,
    flask_session,
    starsessions_redis,
)
from tests.sources.values import flipped

__all__ = ["database", "django_on_postgres", "postgres_port", "redis_cache"]

SEVERAL_PAGES = 2 * PAGE + 20
pytestmark = pytest.mark.timeout(60 + USERS)


def flask_signed(request: pytest.FixtureRequest, *, live: bool) -> Case:
    """Flask-Session with signed IDs."""
    pair = test_flask_session.on_redis(request.getfixturevalue("redis_client"), signed=True)
    app = pair.theirs.app
    source: Source = InterfaceSource(app, app.session_interface) if live else pair.ours
    return Case(pair.theirs, source, packed, test_flask_session.LIFETIME_S, _ends(pair.ours))


def _ends(source: Source) -> Callable[[str], float]:
    def expires(cookie: str) -> float:
        legacy = source.read(cookie, time.time())
        assert legacy is not None
        assert legacy.expires is not None
        return legacy.expires

    return expires


CASES: dict[str, Make] = {
    "flask-session-redis": partial(flask_session, "redis"),
    "flask-session-redis, signed": partial(flask_signed, live=False),
    "flask-session-sql": partial(flask_session, "sql"),
    "starsessions-redis": starsessions_redis,
    "django-db": partial(django_parser, test_django.on_db),
    "django-cached_db": partial(django_parser, test_django.on_cached_db),
    "django-cache": partial(django_parser, test_django.on_cache),
    "django-file": partial(django_parser, test_django.on_files),
    "django-postgresql": django_postgres,
    "live flask-session-redis": partial(flask_session, "redis", live=True),
    "live flask-session-redis, signed": partial(flask_signed, live=True),
    "live flask-session-sql": partial(flask_session, "sql", live=True),
    **{f"live django-{each}": partial(django_live, each) for each in ("db", "cached_db", "file")},
}


@pytest.fixture
def _project(tmp_path: Path) -> Iterator[None]:
    installed = [*settings.INSTALLED_APPS, "django.contrib.sessions"]
    keys = {"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": [], "SESSION_FILE_PATH": str(tmp_path), "INSTALLED_APPS": installed}
    _forget_directory()
    with override_settings(**keys, SESSION_EXPIRE_AT_BROWSER_CLOSE=False):
        yield
    _forget_directory()


def _forget_directory() -> None:
    """Django keeps SESSION_FILE_PATH as it was first, for good."""
    if "_storage_path" in vars(file_engine.SessionStore):
        del file_engine.SessionStore._storage_path  # type: ignore[attr-defined]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, _project: None) -> Iterator[Case]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # datetime.utcnow, in Flask-Session
        yield CASES[request.param](request)


def listing_of(source: Any) -> ListedSource:
    found = source.listing() if hasattr(source, "listing") else source
    assert isinstance(found, ListedSource)
    return found


class Importing:
    """An import, one cookie after the other, and what was told of each."""

    def __init__(self, site: Site) -> None:
        self.importer = Importer(site.cluster["a"].engine, listing_of(site.case.source))
        self.told: dict[str, Fate] = {}
        self.cursors: list[str] = []

    def steps(self, cursor: str = "") -> Iterator[str]:
        for page in self.importer.pages(cursor):
            for cookie in page.cookies:
                if cookie not in self.told:  # SCAN may give one twice
                    self.told[cookie] = self.importer.take(cookie).fate
                yield cookie
            self.cursors.append(page.cursor)

    @property
    def counts(self) -> Counter[Fate]:
        return Counter(self.told.values())


def _site(case: Case, users: int) -> Site:
    """With limits of the app that end no session before the old system would, and time for a machine that stalls."""
    site, lifetimes = Site(case, users), Lifetimes(idle_s=400 * 86400.0, absolute_s=None)
    for node in site.cluster:
        timeouts = replace(node.engine.config.timeouts, budget_s=30.0)
        node.engine.config = replace(node.engine.config, lifetimes=lifetimes, timeouts=timeouts)
    return site


def look(site: Site, host: str, cookie: str) -> dict[str, Any]:
    """What a browser sees that has the old cookie only."""
    site.jars.append({site.old_name: cookie})
    try:
        return site.request(host, len(site.jars) - 1)
    finally:
        site.jars.pop()


def log_out(site: Site, host: str, number: int) -> None:
    engine, jar = site.cluster[host].engine, site.jars[number]
    visit = engine.visit(("; ".join(f"{name}={value}" for name, value in jar.items()),), blocking=True)
    visit.session.get("_user_id")
    visit.session.end()
    engine.blocking.run(visit.save(), visit.budget)
    visit.close()


def test_all_are_taken_over_while_some_are_used(case: Case) -> None:
    """Users click, change their carts and log out between the steps. In the end every old cookie opens its session on every
    host with equal values and types, as its user has left it, without the old store; those that logged out stay dead; and no
    session lives longer than in the old store if its user does not come."""
    site, users, chance = _site(case, USERS), range(USERS), random.Random(5)
    old = [site.old_cookie(number) for number in users]
    ends = [case.expires(cookie) for cookie in old]
    carts: dict[int, list[Any]] = {}
    out: set[int] = set()
    importing = Importing(site)
    for _ in importing.steps():
        number, what = chance.randrange(USERS), chance.random()
        if number in out or what < 0.6:
            continue
        host = chance.choice(HOSTS)
        if what < 0.7:
            log_out(site, host, number)
            out.add(number)
        else:
            carts[number] = [*site.held[number]["cart"], what]
            site.request(host, number, cart=carts[number])
    used, counts = out | carts.keys(), importing.counts
    assert used
    assert set(counts) <= {Fate.TAKEN, Fate.HERE, Fate.ENDED, Fate.NOT_ACCEPTED}
    assert all(importing.told[old[number]] is Fate.TAKEN for number in users if number not in used)
    assert counts[Fate.TAKEN] >= USERS - len(used)

    again = Importing(site)
    for _ in again.steps():
        pass
    assert Fate.TAKEN not in again.counts
    assert again.counts[Fate.HERE] == USERS - len(out)

    for node in site.cluster:
        node.engine.adoption = Adoption(case.source, imported=True)
    _the_old_store_is_gone(site)
    for number in users:
        expected = {} if number in out else {**site.held[number], "cart": carts.get(number, site.held[number]["cart"])}
        if number not in used:
            assert _end_here(site, number) == pytest.approx(ends[number], abs=2.0), number
        for host in HOSTS:
            assert same(look(site, host, old[number]), expected), (number, host)


def _end_here(site: Site, number: int) -> float:
    """When the session of a user who has not come ends, in Unix s."""
    engine = site.cluster["a"].engine
    jar = {site.old_name: site.old_cookie(number)}
    adoption = engine.adoption
    assert adoption is not None
    assert OURS not in jar
    name = adoption._id_of(jar[site.old_name])
    assert name is not None
    _, claims = adoption.claims(engine, name)
    found = [record for node in site.cluster if (record := node.host.record(claims[0].session)) is not None]
    assert len(found) >= 1
    return expires_at(found[0]) - engine.now() + time.time()


def _the_old_store_is_gone(site: Site) -> None:
    """Nobody asks it any more: whatever would be read there is an error from here on."""
    source: Any = site.case.source

    def gone(*_: object) -> Any:
        raise AssertionError("the old store was asked")

    source.read = source.end = source.write = gone


def test_an_import_goes_on_where_it_was_stopped(case: Case) -> None:
    """From a cursor in the middle the rest is listed, and all are there in the end."""
    site = _site(case, SEVERAL_PAGES)
    stopped, rest = Importing(site), Importing(site)
    for _ in stopped.steps():
        if stopped.cursors and stopped.cursors[-1] and len(stopped.told) > PAGE + 5:
            break
    cursor = stopped.cursors[-1]
    assert cursor
    assert not any(cookie[:9] in cursor for cookie in stopped.told), "the cursor tells a cookie"
    for _ in rest.steps(cursor):
        pass
    assert {site.old_cookie(number) for number in range(SEVERAL_PAGES)} == stopped.told.keys() | rest.told.keys()
    assert stopped.counts.keys() == {Fate.TAKEN}
    assert rest.counts.keys() <= {Fate.TAKEN, Fate.HERE}  # the cursor stands a little before the last one
    assert stopped.counts[Fate.TAKEN] + rest.counts[Fate.TAKEN] == SEVERAL_PAGES
    assert len(rest.told) < SEVERAL_PAGES


@pytest.mark.parametrize("store", ["memcached", "files"])
def test_stores_without_a_list_say_so(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """With the reason, and what to do instead; at once, before anything is taken over."""
    if store == "memcached":
        source = FlaskSession(MemcachedShelf(request.getfixturevalue("memcached_client"), errors=(OSError,)))
    else:
        source = FlaskSession(CachelibFiles(tmp_path))
    with pytest.raises(ConfigError, match="cannot be listed, as .*keep the old store until the last of them has expired"):
        source.pages()


def test_interfaces_without_a_list_say_so(memcached_client: pymemcache.Client, tmp_path: Path) -> None:
    """Flask-Session on memcached and on files, and Flask's own cookies."""
    for pair in (test_flask_session.on_memcached(memcached_client), test_flask_session.on_files(tmp_path)):
        app = pair.theirs.app
        with pytest.raises(ConfigError, match="cannot be listed"):
            InterfaceSource(app, app.session_interface).listing()


@pytest.mark.usefixtures("_project")
def test_a_cache_of_django_is_listed_by_a_source_of_its_own() -> None:
    """The engine `cache` asks Django's cache, which has no list; the message names the way."""
    with pytest.raises(ConfigError, match="let --from name a DjangoCache"):
        DjangoEngineSource("django.contrib.sessions.backends.cache").listing()


def test_a_cursor_of_another_server_begins_anew(redis_client: redis.Redis) -> None:
    """After a restart or a failover a cursor means nothing, and to go on from it could leave sessions out."""
    shelf = RedisShelf(redis_client, errors=(redis.RedisError,))
    keys = {f"session:{number}" for number in range(3 * PAGE)}
    redis_client.mset(dict.fromkeys(keys, b"x"))
    _, cursor = next(shelf.keys("session:", ""))
    run, _, place = cursor.rpartition(":")
    assert len({key for found, _ in shelf.keys("session:", cursor) for key in found}) < len(keys)
    assert run
    for other in (f"{'0' * 40}:{place}", f":{place}", "nonsense"):
        assert {key for found, _ in shelf.keys("session:", other) for key in found} == keys


def test_a_prefix_is_no_pattern(redis_client: redis.Redis) -> None:
    """Only what begins with it is listed, whatever characters it has."""
    shelf = RedisShelf(redis_client, errors=(redis.RedisError,))
    odd = "s*[ab]?\\:"
    redis_client.mset({odd + "one": b"x", odd + "two": b"x", "sxxa1\\:three": b"x", "other": b"x"})
    assert sorted(key for found, _ in shelf.keys(odd, "") for key in found) == [odd + "one", odd + "two"]


@pytest.mark.parametrize("live", [True, False])
def test_a_forged_signature_names_nothing(live: bool, request: pytest.FixtureRequest) -> None:
    """Also where the store is not asked any more."""
    case = flask_signed(request, live=live)
    cookie = case.theirs.save(None, packed(1))
    assert cookie is not None
    source: Any = case.source
    legacy = source.read(cookie, time.time())
    assert source.id_of(cookie) == legacy.id
    places = range(0, len(cookie) - 1, 7)  # of the last letter two bits say nothing
    assert [source.id_of(flipped(cookie, place)) for place in places] == [None] * len(places)
    assert source.id_of(cookie.partition(".")[0]) is None
