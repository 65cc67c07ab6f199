"""Every source: users whom the library of before has logged in stay so when it is switched over, and when it is switched back.

By default with 100 users for each; `CLUSTERSESSION_USERS=1000` in the environment takes another number.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
import redis
from django.conf import settings
from django.test import override_settings

from clustersession.integrations.django.adoption import DjangoEngineSource
from clustersession.integrations.flask_adoption import InterfaceSource
from clustersession.sources import (
    DjangoCache,
    DjangoCookie,
    DjangoFileSession,
    DjangoSession,
    RedisShelf,
    Source,
    SqlShelf,
    Starsessions,
    django_table,
)
from tests.sources import test_cookies, test_django, test_flask_session, test_sql, test_starsessions
from tests.sources.libraries import DjangoLibrary, FlaskLibrary
from tests.sources.switching import HOSTS, OURS, WHOLE_S, Case, Site, expires_of, packed, pickled, plain, same, tagged
from tests.sources.test_django import AGE_S, KEY, database, redis_cache
from tests.sources.test_sql import django_on_postgres, postgres_port

__all__ = ["database", "django_on_postgres", "postgres_port", "redis_cache"]

USERS = int(os.environ.get("CLUSTERSESSION_USERS", "100"))
BACKENDS = "django.contrib.sessions.backends"
Make = Callable[[pytest.FixtureRequest], Case]
pytestmark = pytest.mark.timeout(60 + USERS)


def of_cookie(place: int, request: pytest.FixtureRequest) -> Case:
    pair = test_cookies.PAIRS[place]
    return Case(pair.theirs, pair.ours, tagged if place == 0 else plain, pair.age_s, expires_of(pair.ours))


def flask_session(store: str, request: pytest.FixtureRequest, *, live: bool = False) -> Case:
    path: Path = request.getfixturevalue("tmp_path")
    if store == "redis":
        pair = test_flask_session.on_redis(request.getfixturevalue("redis_client"))
    elif store == "memcached":
        pair = test_flask_session.on_memcached(request.getfixturevalue("memcached_client"))
    elif store == "sql":
        pair = test_flask_session.on_sql(path / "sessions.sqlite")
    else:
        pair = test_flask_session.on_files(path / "files", getattr(hashlib, store))
    app = pair.theirs.app
    source: Source = InterfaceSource(app, app.session_interface) if live else pair.ours
    items = pickled if store in ("md5", "sha256") else packed
    return Case(pair.theirs, source, items, test_flask_session.LIFETIME_S, expires_of(pair.ours))


def starsessions_redis(request: pytest.FixtureRequest) -> Case:
    shelf = RedisShelf(request.getfixturevalue("redis_client"), errors=(redis.RedisError,))
    ours = Starsessions(shelf, lifetime_s=test_starsessions.LIFETIME_S)
    theirs = test_starsessions.Library(request.getfixturevalue("redis_port"), test_starsessions.LIFETIME_S)
    return Case(theirs, ours, plain, test_starsessions.LIFETIME_S, expires_of(ours))


def django_parser(make: Callable[[pytest.FixtureRequest], test_django.Pair], request: pytest.FixtureRequest) -> Case:
    pair = make(request)
    return Case(pair.theirs, pair.ours, pickled if isinstance(pair.ours, DjangoCache) else plain, AGE_S, expires_of(pair.ours))


def django_postgres(request: pytest.FixtureRequest) -> Case:
    theirs, port = request.getfixturevalue("django_on_postgres"), request.getfixturevalue("postgres_port")
    shelf = SqlShelf(lambda: test_sql.connect(port), django_table(), errors=(psycopg.Error,), dates="aware")
    ours = DjangoSession(shelf, KEY)
    return Case(theirs, ours, plain, AGE_S, expires_of(ours))


def flask_cookie_live(request: pytest.FixtureRequest) -> Case:
    app = test_cookies.flask_app()
    source = InterfaceSource(app, app.session_interface)
    return Case(FlaskLibrary(app, permanent=True), source, tagged, test_cookies.FLASK_AGE_S, expires_of(source))


def django_live(name: str, request: pytest.FixtureRequest) -> Case:
    theirs, fixture = DjangoLibrary(import_module(f"{BACKENDS}.{name}").SessionStore), request.getfixturevalue
    cache = fixture("redis_cache") if "cache" in name else None
    reader: Source
    if name.endswith("db"):
        reader = DjangoSession(test_django.sqlite_shelf(fixture("database")), KEY, cache=cache)
    elif name == "cache":
        reader = DjangoCache(fixture("redis_cache"))
    else:
        reader = DjangoFileSession(fixture("tmp_path"), KEY) if name == "file" else DjangoCookie(KEY)
    source = DjangoEngineSource(f"{BACKENDS}.{name}")
    return Case(theirs, source, pickled if name == "cache" else plain, AGE_S, expires_of(reader))


CASES: dict[str, Make] = {
    **{pair.ours.name: partial(of_cookie, place) for place, pair in enumerate(test_cookies.PAIRS)},
    **{f"flask-session-{store}": partial(flask_session, store) for store in ("redis", "memcached", "sql", "sha256", "md5")},
    "starsessions-redis": starsessions_redis,
    "django-db": partial(django_parser, test_django.on_db),
    "django-cached_db": partial(django_parser, test_django.on_cached_db),
    "django-cache": partial(django_parser, test_django.on_cache),
    "django-file": partial(django_parser, test_django.on_files),
    "django-postgresql": django_postgres,
    "live flask-cookie": flask_cookie_live,
    **{f"live flask-session-{store}": partial(flask_session, store, live=True) for store in ("redis", "memcached", "sha256")},
    **{f"live django-{each}": partial(django_live, each) for each in ("db", "cached_db", "cache", "file", "signed_cookies")},
}


@pytest.fixture
def _project(tmp_path: Path) -> Iterator[None]:
    """A fixture of its own: what overrides settings within has to be undone before."""
    installed = [*settings.INSTALLED_APPS, "django.contrib.sessions"]
    keys = {"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": [], "SESSION_FILE_PATH": str(tmp_path), "INSTALLED_APPS": installed}
    with override_settings(**keys, SESSION_EXPIRE_AT_BROWSER_CLOSE=False):
        yield


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, _project: None) -> Iterator[Case]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # datetime.utcnow, in Flask-Session
        yield CASES[request.param](request)


def test_nobody_is_logged_out(case: Case, request: pytest.FixtureRequest) -> None:
    """On: all of them still logged in on every host, with equal values and types. Back over `mirror`: the library has them all,
    with what each did meanwhile, and ends none earlier than before nor later than its lifetime allows."""
    site, users = Site(case, USERS), range(USERS)
    assert [each["_user_id"] for each in site.held] == [f"u{number}" for number in users]
    ends = [case.expires(site.old_cookie(number)) for number in users]
    for number in users:
        first, second = (HOSTS[(number + step) % len(HOSTS)] for step in (0, 1))
        assert same(site.request(first, number), site.held[number]), number
        assert OURS in site.jars[number]
        assert same(site.request(second, number), site.held[number]), number
    assert site.cluster.counted("session_adopted") == USERS

    site.switch("mirror")
    carts = [[*site.held[number]["cart"], f"plum {number}"] for number in users]
    for number in users:
        assert same(site.request(HOSTS[(number + 2) % len(HOSTS)], number, cart=carts[number]), site.held[number]), number
    assert site.cluster.counted("mirror_failed") == 0

    for number in users:
        cookie = site.old_cookie(number)
        coarse = WHOLE_S + (1.0 if "memcached" in request.node.name else 0.0)  # its own clock goes on once a second
        assert ends[number] - coarse <= case.expires(cookie) <= time.time() + case.lifetime_s + coarse, number
        assert same(case.theirs.load(cookie), {**site.held[number], "cart": carts[number]}), number
