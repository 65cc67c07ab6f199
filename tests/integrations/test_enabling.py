"""A site is switched over host by host while its users go on, and back again: nobody is logged out, nothing is lost."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
from cachelib import FileSystemCache
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from flask import Flask
from flask_session import Session as FlaskSessionExtension
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarletteMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clustersession.config import CookieConfig, Lifetimes
from clustersession.core.switch import Switch, signed
from clustersession.integrations.django import source
from clustersession.integrations.flask import ClusterSession
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.runtime.engine import Engine
from clustersession.runtime.shadowing import DIFFERS, EQUAL, NEW, REFUSED, UNAVAILABLE
from clustersession.runtime.switching import ModeSwitch
from clustersession.sources import StarletteCookie
from clustersession.testing.in_process import InProcessCluster
from tests.integrations import apps
from tests.integrations.jar import Jar
from tests.integrations.one_clock import Clock, everywhere
from tests.middleware.calling import call_asgi, call_wsgi

MODES = ("off", "shadow", "mirror", "on")
OLD = ("off", "shadow")
WORDS = (EQUAL, DIFFERS, NEW, REFUSED, UNAVAILABLE, "shadow_failed")
CLICKS = 1800
LIFE_S = 300  # a click takes a second: signed cookies know no shorter time, and one of the second of a logout is refused
ENGINES = ("db", "cached_db", "signed_cookies")

App = Callable[[str, str], Any]
"""What a host answers to a path and a Cookie header."""
MakeApp = Callable[[Engine, Path], App]


def _clicked(session: Any, path: str) -> Any:
    if path == "/logout":
        session.clear()
        return {}
    if path.startswith("/login/"):
        session["_permanent"] = True  # Flask's
    return {key: value for key, value in apps.act(session, path).items() if key != "_permanent"}


def _flask(extend: Callable[[Flask, Path], None]) -> MakeApp:
    def make(engine: Engine, directory: Path) -> App:
        app = Flask("shop")
        app.secret_key = "not the cluster's"
        app.permanent_session_lifetime = timedelta(seconds=LIFE_S)
        extend(app, directory)
        ClusterSession(app, engine, adopt=True)

        @app.get("/")
        @app.get("/<path:path>")
        def anything(path: str = "") -> Any:
            return _clicked(flask.session, f"/{path}")

        return lambda path, cookie: call_wsgi(app, path, cookie)

    return make


def _with_files(app: Flask, directory: Path) -> None:
    app.config["SESSION_TYPE"] = "cachelib"
    app.config["SESSION_CACHELIB"] = FileSystemCache(str(directory / "sessions"))
    FlaskSessionExtension(app)


def _django(engine: Engine, directory: Path) -> App:
    return apps.django(engine)


def _starlette(engine: Engine, directory: Path) -> App:
    async def anything(request: Request) -> JSONResponse:
        return JSONResponse(_clicked(request.session, request.url.path))

    secret = "not the cluster's"
    ours = Middleware(
        SessionMiddleware,
        config=engine,
        adopt=StarletteCookie(secret, max_age_s=LIFE_S),
        before=lambda app: StarletteMiddleware(app, secret, max_age=LIFE_S),
    )
    app = Starlette(routes=[Route("/{path:path}", anything)], middleware=[ours])
    return lambda path, cookie: call_asgi(app, path, cookie)


KINDS: dict[str, tuple[str, MakeApp]] = {
    "Flask's cookies": ("session", _flask(lambda app, directory: None)),
    "Flask-Session": ("session", _flask(_with_files)),
    "Starlette's cookies": ("session", _starlette),
    **{f"Django's {name}": ("sessionid", _django) for name in ENGINES},
}


class Site:
    """Three hosts, each in a mode of its own."""

    def __init__(self, kind: str, directory: Path, clock: Clock) -> None:
        self.cluster = InProcessCluster(
            clock=clock,
            lifetimes=Lifetimes(idle_s=LIFE_S, absolute_s=None),
            cookie=CookieConfig(names=("cs",), secure=False, max_age_s=LIFE_S),
        )
        self.kind, (self.old_cookie, self._make) = kind, KINDS[kind]
        self._directory = directory
        self.modes: dict[str, str] = {}
        self.apps: dict[str, App] = {}
        self.percents = dict.fromkeys("abc", 100)  # of the sessions that are in this mode there
        for name in "abc":
            self.switch(name, "off")

    def switch(self, name: str, mode: str) -> None:
        """The host is started again, in this mode."""
        engine = self.cluster[name].engine
        engine.config = replace(engine.config, mode=mode)
        self.apps[name], self.modes[name] = self.made(name), mode

    def made(self, name: str) -> App:
        """The app on that host, as its settings are now."""
        return self._make(self.cluster[name].engine, self._directory)


class User:
    """A browser that knows what it must see."""

    def __init__(self, site: Site, number: int, clock: Clock) -> None:
        self.site, self.number, self.clock = site, number, clock
        self.jar = Jar(clock)
        self.holds: dict[str, Any] = {}
        self.stolen: list[dict[str, str]] = []  # before a logout on a host that is enabled

    def get(self, host: str, path: str, jar: dict[str, str] | None = None) -> Any:
        cookies = self.jar.values if jar is None else jar
        answer = self.site.apps[host](path, "; ".join(f"{name}={value}" for name, value in cookies.items()))
        assert answer.status == 200, answer
        if jar is None:
            self.jar.take(answer.cookies)
        return json.loads(answer.body)

    def click(self, chance: random.Random, counts: Counter[str]) -> None:
        site, host, what = self.site, chance.choice("abc"), chance.random()
        self.clock.now += 1.0
        if "_user_id" not in self.holds and what < 0.3:
            self.holds["_user_id"] = f"user{self.number}"
            self.get(host, f"/login/user{self.number}")
            counts["logins"] += 1
        elif "_user_id" in self.holds and what < 0.06:
            is_ours = site.modes[host] not in OLD and ("cs" in self.jar.values or site.percents[host] == 100)
            self.stolen = [self.jar.values, *self.stolen][:4] if is_ours else self.stolen
            self.get(host, "/logout")
            self.holds = {}
            counts["logouts"] += 1
        elif what < 0.55:
            item = f"{self.number}-{counts['items']}"
            counts["items"] += 1
            self.holds["cart"] = [*self.holds.get("cart", []), item]
            self.get(host, f"/add/cart/{item}")
        elif what < 0.65 and self.stolen and site.modes[host] not in OLD and site.percents[host] == 100:
            seen = self.get(host, "/", chance.choice(self.stolen))
            assert "_user_id" not in seen, f"logged in again at {host}: {site.modes}"
            counts["replays"] += 1
            return
        self.look(host)
        counts[f"reads in {site.modes[host]}"] += 1

    def look(self, host: str) -> None:
        assert self.get(host, "/") == self.holds, f"at {host}: {self.site.modes}"


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Site]:
    kind = str(request.param)
    if not kind.startswith("Django"):
        yield Site(kind, tmp_path, clock)
        return
    engine = f"django.contrib.sessions.backends.{kind.partition(' ')[2]}"
    installed = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.messages", "django.contrib.admin"]
    with override_settings(
        CLUSTERSESSION_ADOPT_ENGINE=engine,
        INSTALLED_APPS=[*installed, "django.contrib.sessions"],
        SESSION_COOKIE_AGE=LIFE_S,
        SESSION_SAVE_EVERY_REQUEST=True,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=False,
    ):
        call_command("migrate", "sessions", verbosity=0)
        yield Site(kind, tmp_path, clock)
    source._current = None
    connection.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    everywhere(clock, monkeypatch)
    return clock


@pytest.mark.parametrize("seed", range(2))
def test_a_site_is_switched_over_and_back(site: Site, clock: Clock, seed: int) -> None:
    """Every host goes from `off` over `shadow` and `mirror` to `on` and back, one after the other, while users click on any of
    them."""
    chance, counts = random.Random(seed), Counter[str]()
    users = [User(site, number, clock) for number in range(12)]
    steps = [(name, mode) for mode in ("shadow", "mirror", "on", "mirror", "shadow", "off") for name in "abc"]
    for name, mode in [("a", "off"), *steps]:
        if (name, mode) == steps[-6]:  # as the guide says: what was done in `on` is written back with the next request
            for user in users:
                user.look(chance.choice("abc"))
        site.switch(name, mode)
        for _ in range(CLICKS // len(steps)):
            chance.choice(users).click(chance, counts)
    assert min(counts[f"reads in {mode}"] for mode in MODES) > 20, counts
    assert min(counts[what] for what in ("logins", "logouts", "replays")) > 5, counts


def test_the_cluster_is_switched_as_a_whole(site: Site, clock: Clock) -> None:
    """By the cluster-wide switch, without a restart of anything, a part of the sessions first; each host hears of it when it
    hears of it."""
    chance, counts = random.Random(3), Counter[str]()
    for node in site.cluster:
        node.engine.config = replace(node.engine.config, mode="off", mode_switch=True)
        site.apps[node.name] = site.made(node.name)
    users = [User(site, number, clock) for number in range(12)]
    steps = [("shadow", 50), ("shadow", 100), ("mirror", 30), ("mirror", 100), ("on", 100), ("mirror", 100), ("off", 100)]
    for serial, (mode, percent) in enumerate(steps, 1):
        if (mode, percent) == steps[-1]:
            for user in users:
                user.look(chance.choice("abc"))
        statement = signed(Switch(serial, 0.0, mode, percent, "a"), site.cluster.ring.signing, "default")
        for node in chance.sample(list(site.cluster), 3):
            assert ModeSwitch(node.store, lambda: site.cluster.ring, "default").take(statement)
            site.modes[node.name], site.percents[node.name] = mode, percent
            for _ in range(40):
                chance.choice(users).click(chance, counts)
    assert min(counts[f"reads in {mode}"] for mode in MODES) > 20, counts
    assert min(counts[what] for what in ("logins", "logouts", "replays")) > 5, counts


def test_shadow_counts_what_it_sees(site: Site, clock: Clock) -> None:
    """Copies are equal as long as all hosts take part, new where a session was begun before, and differ where a host that does
    not take part has changed one; no cookie of ours goes out, and a logout ends the copy too."""
    for name in "abc":
        site.switch(name, "shadow")
    user = User(site, 1, clock)

    def seen(host: str, path: str) -> dict[str, int]:
        before = Counter({word: site.cluster.counted(word) for word in WORDS})
        clock.now += 1.0
        user.get(host, path)
        after = Counter({word: site.cluster.counted(word) for word in WORDS})
        return dict(after - before)

    assert seen("a", "/login/7") == {}
    assert seen("b", "/add/cart/apple") == {EQUAL: 1}
    assert seen("c", "/") == {EQUAL: 1}
    assert "cs" not in user.jar.values
    site.switch("b", "off")
    assert seen("b", "/add/cart/pear") == {}
    assert seen("a", "/") in ({DIFFERS: 1}, {NEW: 1})
    assert seen("c", "/") == {EQUAL: 1}
    jar = user.jar.values
    assert seen("a", "/logout") == {EQUAL: 1}
    user.jar.take(
        f"{name}={value}" for name, value in jar.items()
    )  # a cookie that is the session itself still opens it in the old system, which decides
    assert seen("c", "/") == ({DIFFERS: 1} if "cookies" in site.kind else {})


def test_shadow_never_gets_in_the_way(site: Site, clock: Clock) -> None:
    """With no other host in reach, and a copy that cannot be read, the old session is as it was."""
    for name in "abc":
        site.switch(name, "shadow")
    user = User(site, 1, clock)
    for path in ("/login/7", "/add/cart/apple"):
        clock.now += 1.0
        user.get("a", path)
    site.cluster.paused("a", "b", "c")
    for item in ("pear", "plum"):
        clock.now += 1.0
        user.get("b", f"/add/cart/{item}")
    assert user.get("c", "/") == {"_user_id": "7", "cart": ["apple", "pear", "plum"]}
    assert site.cluster.counted(UNAVAILABLE) > 0
