"""Users of a site in mode `mirror`, some of whose hosts may still be `off`: nobody is logged out but by a logout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from starsessions import CookieStore, SessionAutoloadMiddleware
from starsessions import SessionMiddleware as StarsessionsMiddleware

from clustersession.config import CookieConfig, Lifetimes
from clustersession.integrations.django import source
from clustersession.integrations.flask import ClusterSession
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.middleware import asgi
from clustersession.runtime.engine import Engine
from clustersession.sources import StarletteCookie, StarsessionsCookie
from clustersession.testing.in_process import InProcessCluster
from tests.integrations import apps
from tests.integrations.jar import Jar
from tests.integrations.one_clock import Clock, everywhere
from tests.middleware.calling import Answer, call_asgi, call_wsgi

LIFE_S = 600
SECRET = "not the cluster's"
ENGINES = ("db", "cached_db", "cache", "signed_cookies")
App = Callable[[str, str], Answer]
"""What a host answers to a path and a Cookie header."""
MakeApp = Callable[[Engine, Path], App]


def _acted(session: Any, path: str) -> Any:
    if path == "/quiet":
        return {}
    if path == "/logout":
        session.clear()
        return {}
    if path.startswith("/login/"):
        session["_permanent"] = True  # Flask's
    shown = apps.act(session, path)
    return {key: value for key, value in shown.items() if key != "_permanent"}


def _flask(extend: Callable[[Flask, Path], None]) -> MakeApp:
    def make(engine: Engine, directory: Path) -> App:
        app = Flask("shop")
        app.secret_key = SECRET
        app.permanent_session_lifetime = timedelta(seconds=LIFE_S)
        extend(app, directory)
        ClusterSession(app, engine, adopt=True)

        @app.get("/")
        @app.get("/<path:path>")
        def anything(path: str = "") -> Any:
            return _acted(flask.session, f"/{path}")

        return lambda path, cookie: call_wsgi(app, path, cookie)

    return make


def _with_files(app: Flask, directory: Path) -> None:
    app.config["SESSION_TYPE"] = "cachelib"
    app.config["SESSION_PERMANENT"] = False
    app.config["SESSION_CACHELIB"] = FileSystemCache(str(directory / "sessions"))
    FlaskSessionExtension(app)


def _django(engine: Engine, directory: Path) -> App:
    return apps.django(engine)


async def _anything(request: Request) -> JSONResponse:
    return JSONResponse(_acted(None if request.url.path == "/quiet" else request.session, request.url.path))


def _starlette(engine: Engine, directory: Path) -> App:
    ours = Middleware(
        SessionMiddleware,
        config=engine,
        adopt=StarletteCookie(SECRET, max_age_s=LIFE_S),
        before=lambda app: StarletteMiddleware(app, SECRET, max_age=LIFE_S),
    )
    app = Starlette(routes=[Route("/{path:path}", _anything)], middleware=[ours])
    return lambda path, cookie: call_asgi(app, path, cookie)


def _starsessions(engine: Engine, directory: Path) -> App:
    def before(app: Any) -> Any:
        return StarsessionsMiddleware(SessionAutoloadMiddleware(app), CookieStore(SECRET), lifetime=LIFE_S, rolling=True)

    adopt = StarsessionsCookie(SECRET, lifetime_s=LIFE_S, rolling=True)
    app = asgi.SessionMiddleware(Starlette(routes=[Route("/{path:path}", _anything)]), engine, adopt=adopt, before=before)
    return lambda path, cookie: call_asgi(app, path, cookie)


KINDS: dict[str, MakeApp] = {
    "Flask's cookies": _flask(lambda app, directory: None),
    "Flask-Session": _flask(_with_files),
    "Starlette's cookies": _starlette,
    "starsessions' cookies": _starsessions,
    **{f"Django's {name}": _django for name in ENGINES},
}
KEYED = [kind for kind in KINDS if "cookies" not in kind]


class Site:
    """Three hosts, each in a mode of its own, and one browser."""

    def __init__(self, kind: str, directory: Path, clock: Clock) -> None:
        self.kind, self.clock, self._directory = kind, clock, directory
        self.old_name = "sessionid" if kind.startswith("Django") else "session"
        self.cluster = InProcessCluster(
            clock=clock,
            lifetimes=Lifetimes(idle_s=LIFE_S, absolute_s=None),
            cookie=CookieConfig(names=("cs",), secure=False, max_age_s=LIFE_S),
        )
        self.jar = Jar(clock)
        self.apps: dict[str, App] = {}

    @property
    def keyless(self) -> bool:
        return self.kind not in KEYED

    def switch(self, modes: str) -> None:
        """Of the hosts a, b and c, in words."""
        for node, mode in zip(self.cluster, modes.split(), strict=True):
            node.engine.config = replace(node.engine.config, mode=mode)
            self.apps[node.name] = KINDS[self.kind](node.engine, self._directory)

    def get(self, host: str, path: str, field: str | None = None) -> Any:
        answer = self.answer(host, path, field)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def answer(self, host: str, path: str, field: str | None = None) -> Answer:
        answer = self.apps[host](path, self.jar.field if field is None else field)
        if field is None:
            self.jar.take(answer.cookies)
        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    everywhere(clock, monkeypatch)
    return clock


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Site]:
    kind = str(request.param)
    if not kind.startswith("Django"):
        yield Site(kind, tmp_path, clock)
        return
    installed = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.messages", "django.contrib.admin"]
    with override_settings(
        CLUSTERSESSION_ADOPT_ENGINE=f"django.contrib.sessions.backends.{kind.partition(' ')[2]}",
        INSTALLED_APPS=[*installed, "django.contrib.sessions"],
        SESSION_COOKIE_AGE=LIFE_S,
        SESSION_SAVE_EVERY_REQUEST=True,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=False,
    ):
        call_command("migrate", "sessions", verbosity=0)
        yield Site(kind, tmp_path, clock)
    source._current = None
    connection.close()


@pytest.mark.parametrize(("modes", "every"), [("mirror mirror mirror", 0.6), ("mirror off mirror", 0.3), ("off mirror off", 0.3)])
def test_who_only_reads_stays_logged_in(site: Site, modes: str, every: float) -> None:
    """On hosts of both kinds, for as long as the clicks are closer together than the session's life."""
    site.switch(modes)
    site.get("b", "/login/7")
    for number in range(15):
        site.clock.now += every * LIFE_S
        assert site.get("abc"[number % 3], "/") == {"_user_id": "7"}, number


@pytest.mark.parametrize("pauses_s", [(1,), (65,), (70, 40), (140, 50, 50), (590,), (61, 59, 59, 59), (300, 100)])
def test_who_was_on_enabled_hosts_only_is_logged_in_on_the_others_too(site: Site, pauses_s: tuple[int, ...]) -> None:
    """The old session and its cookie live as long as ours, however long the pauses between clicks are."""
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    for pause_s in pauses_s:
        site.clock.now += pause_s
        assert site.get("b", "/") == {"_user_id": "7"}
    site.clock.now += 0.88 * LIFE_S
    assert site.get("c", "/") == {"_user_id": "7"}


def test_what_has_run_out_there_is_no_logout(site: Site) -> None:
    """Where ours may be idle for longer. What is missing there before its time is one."""
    for node in site.cluster:
        lifetimes, cookie = Lifetimes(idle_s=10 * LIFE_S, absolute_s=None), replace(node.engine.config.cookie, max_age_s=None)
        node.engine.config = replace(node.engine.config, lifetimes=lifetimes, cookie=cookie)
    with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=True):
        site.switch("mirror mirror off")
        site.get("a", "/set/_user_id/7")
        for pause in (0.3, 1.5, 0.3, 4.0):
            site.clock.now += pause * LIFE_S
            assert site.get("b", "/") == {"_user_id": "7"}, pause
        site.clock.now += 0.8 * LIFE_S
        assert site.get("c", "/") == {"_user_id": "7"}
        site.get("c", "/logout")
        site.clock.now += 0.1 * LIFE_S
        assert site.get("b", "/") == {}


@pytest.mark.parametrize("site", ["Starlette's cookies", "starsessions' cookies"], indirect=True)
@pytest.mark.parametrize(("after_s", "stays"), [(190, False), (210, True)])
def test_an_old_cookie_ends_by_its_max_age_too(site: Site, after_s: int, stays: bool) -> None:
    """The browser has dropped it and has a newer one of ours, as an owner had moved; before that time it was deleted."""
    for node in site.cluster:
        node.engine.config = replace(node.engine.config, cookie=replace(node.engine.config.cookie, max_age_s=200))
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    ours = f"cs={site.jar.values['cs']}"
    site.clock.now += after_s
    assert ("_user_id" in site.get("b", "/", ours)) is stays


def test_after_the_end_of_the_adoption_who_is_logged_in_stays_so(site: Site) -> None:
    """CLUSTERSESSION_ADOPT_UNTIL: nothing is taken over any more, every save still goes to the old session."""
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    planted = site.jar.field
    for host in "abc":
        assert site.get(host, "/") == {"_user_id": "7"}
    for node in site.cluster:
        assert node.engine.adoption is not None, node.name
        node.engine.adoption.until = site.clock.now + 1.0
    site.clock.now += 2.0
    for item in ("apple", "pear"):
        assert site.get("b", "/")["_user_id"] == "7"
        site.get("a", f"/set/cart/{item}")
        assert site.get("c", "/") == {"_user_id": "7", "cart": item}
    assert site.cluster.counted("mirror_ended") == 0
    site.get("c", "/set/theme/dark")
    assert "theme" not in site.get("b", "/")
    site.get("a", "/logout")
    assert [site.get(host, "/") for host in "abc"] == [{}] * 3
    if not site.keyless:
        assert site.get("c", "/", planted) == {}


def test_of_several_old_cookies_none_is_a_logout(site: Site) -> None:
    """A subdomain has set one of the same name. The one that we have sent is known; if none is, ours decides."""
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    mine, tossed = site.jar.field, f"{site.old_name}=tossed"
    assert site.get("b", "/", f"{mine}; {tossed}") == {"_user_id": "7"}
    ours = f"cs={site.jar.values['cs']}"
    assert site.get("b", "/", f"{ours}; {tossed}; {site.old_name}=another") == {"_user_id": "7"}
    assert site.get("b", "/", mine) == {"_user_id": "7"}
    assert site.cluster.counted("mirror_ended") == 0
    site.get("b", "/logout", f"{mine}; {tossed}")
    assert site.get("a", "/", mine) == {}
    assert site.keyless or site.get("c", "/", mine) == {}


def test_a_logout_with_several_old_cookies_removes_them(site: Site) -> None:
    """Whichever it was: from the old store, and from the browser."""
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    mine = site.jar.field
    site.clock.now += 1.0
    site.jar.take([f"{site.old_name}=one"])  # so that it is not known which of the two is the user's
    bye = site.answer("b", "/logout", f"cs={site.jar.values['cs']}; {site.old_name}=one; {site.old_name}=two")
    assert any(text.strip().startswith(f"{site.old_name}=") and "Max-Age=0" in text for text in bye.cookies)
    assert site.get("a", "/", mine) == {}


def test_what_was_done_in_on_is_written_back(site: Site) -> None:
    """With the next request that looks at the session; one that does not changes nothing, and gets no cookie."""
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    site.clock.now += 2.0
    site.switch("on on off")
    site.get("a", "/set/cart/apple")
    site.clock.now += 2.0
    site.switch("mirror mirror off")
    with override_settings(SESSION_SAVE_EVERY_REQUEST=False):
        assert apps.session_cookies(site.answer("b", "/quiet")) == []
    for _ in range(2):
        assert site.get("b", "/") == {"_user_id": "7", "cart": "apple"}
    assert site.get("c", "/") == {"_user_id": "7", "cart": "apple"}


def test_an_old_session_of_somebody_else_is_not_written_to(site: Site) -> None:
    """It was planted while the hosts were in mode `on`; whoever has its cookie must not be logged in as the user."""
    site.switch("off off off")
    site.get("a", "/set/theme/dark")
    planted = site.jar.values
    site.switch("on on off")
    site.jar = attacked = Jar(site.clock)
    site.get("a", "/login/7")
    attacked.take(f"{name}={value}" for name, value in planted.items())
    site.switch("mirror mirror off")
    assert site.get("b", "/") == {"_user_id": "7"}
    assert site.get("b", "/set/cart/apple") is not None
    assert site.get("c", "/") == {"_user_id": "7", "cart": "apple"}
    for host in "abc":
        assert "_user_id" not in site.get(host, "/", f"{site.old_name}={planted[site.old_name]}")


def test_a_read_that_renews_does_not_fail_when_the_user_logs_out_meanwhile(site: Site) -> None:
    """Nor does it leave an old session, or an old cookie, to a user who is logged out."""
    site.switch("mirror mirror off")
    site.get("a", "/login/7")
    site.clock.now += 0.5 * LIFE_S
    before = site.jar.field

    def elsewhere() -> None:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(site.get, "a", "/logout", before).result() == {}

    apps.meanwhile.append(elsewhere)
    answer = site.answer("b", "/interrupted_look", before)
    assert (answer.status, apps.meanwhile) == (200, [])
    assert not [text for text in apps.session_cookies(answer) if text.startswith(f"{site.old_name}=")]
    for host in "ab" if site.keyless else "abc":
        assert site.get(host, "/", before) == {}


def test_a_session_that_is_emptied_is_so_on_the_other_hosts_too(site: Site) -> None:
    """Also where an empty session does not end by that."""
    site.switch("mirror mirror off")
    site.get("a", "/set/cart/apple")
    site.clock.now += 1.0
    site.get("b", "/clear")
    for host in "cabc":
        assert site.get(host, "/") == {}
    site.get("a", "/set/cart/pear")
    assert [site.get(host, "/") for host in "abc"] == [{"cart": "pear"}] * 3


@pytest.mark.parametrize("site", KEYED, indirect=True)
def test_an_old_cookie_that_was_overtaken_is_no_logout(site: Site) -> None:
    """The answer that brought the new one was lost on its way: the next save sends another."""
    site.switch("mirror mirror off")
    site.get("a", "/set/theme/dark")
    late = site.jar.values[site.old_name]
    site.get("a", "/login/7")
    assert site.jar.values[site.old_name] != late
    site.jar.take([f"{site.old_name}={late}"])
    seen = {"_user_id": "7", "theme": "dark"}
    assert site.get("b", "/") == seen
    site.get("a", "/set/cart/apple")
    assert [site.get(host, "/") for host in "abc"] == [{**seen, "cart": "apple"}] * 3
