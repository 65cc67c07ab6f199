"""Flask apps whose users are logged in elsewhere: with Flask's own cookies, and with Flask-Session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import msgspec
import pytest
from cachelib import FileSystemCache
from flask import Flask
from flask_session import Session as FlaskSessionExtension
from werkzeug.test import Client, TestResponse

from clustersession.core.keyring import KeyRing
from clustersession.core.operations import Unavailable
from clustersession.core.replica.ends import TOMBSTONE_KEPT_S
from clustersession.core.switch import Switch, signed
from clustersession.errors import LoginTooOld, SourceRefused, SourceUnavailable
from clustersession.integrations.flask import ClusterSession, session
from clustersession.integrations.flask_adoption import InterfaceSource
from clustersession.runtime.adoption import Adoption, Found
from clustersession.runtime.board import write_board
from clustersession.runtime.remembered import DEVICES_MAX
from clustersession.runtime.switching import ModeSwitch
from clustersession.settings import new_key
from clustersession.testing.in_process import SECRET, InProcessCluster

OLD = "session"
VALUES = {"_user_id": "7", "cart": ["apple", "pear"], "paid": (1, 2), "seen": 3}


def of_cookies(app: Flask, tmp_path: Path) -> None:
    """Flask's own sessions."""


def of_files(app: Flask, tmp_path: Path) -> None:
    """Flask-Session, in files."""
    app.config["SESSION_TYPE"] = "cachelib"
    app.config["SESSION_CACHELIB"] = FileSystemCache(str(tmp_path / "sessions"))
    app.config["SESSION_SERIALIZATION_FORMAT"] = "msgpack"
    FlaskSessionExtension(app)


KINDS: dict[str, Callable[[Flask, Path], None]] = {"cookies": of_cookies, "files": of_files}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Site:
    """One app on three hosts, as it was and as it is now."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self._directory = kind, directory
        self.clock = 1e6
        self.cluster = InProcessCluster(clock=lambda: self.clock)
        self.before = self._app()
        self.now = {name: self._enabled(name) for name in "abc"}

    def _app(self) -> Flask:
        app = Flask("shop")
        app.secret_key = "not the cluster's"
        app.permanent_session_lifetime = timedelta(days=3)
        KINDS[self.kind](app, self._directory)

        @app.get("/")
        def look() -> Any:
            return {key: value for key, value in flask.session.items() if not key.startswith("_p")}

        @app.get("/login/<user>")
        def login(user: str) -> str:
            flask.session.update({**VALUES, "_user_id": user})
            return "in"

        @app.get("/set/<key>/<value>")
        def change(key: str, value: str) -> str:
            flask.session[key] = value
            return "ok"

        @app.get("/fresh")
        def fresh() -> str:
            try:
                session.require_fresh(3600.0)
            except LoginTooOld:
                return "ask"
            return "fresh"

        @app.get("/renew")
        def renew() -> str:
            session.rotate()
            return "ok"

        @app.get("/logout")
        def logout() -> str:
            session.end()
            return "bye"

        return app

    def _enabled(self, name: str) -> Flask:
        app = self._app()
        ClusterSession(app, self.cluster[name].engine, adopt=True)
        return app

    def old_login(self, user: str = "7") -> str:
        """The cookie of a user who has logged in before."""
        client = self.before.test_client()
        client.get(f"/login/{user}")
        cookie = client.get_cookie(OLD)
        assert cookie is not None
        return cookie.value

    def change_keys(self, ring: KeyRing) -> None:
        """On all hosts; and their nodes have looked through all that is stored, as they do once a minute."""
        self.cluster.ring = ring
        for node in self.cluster:
            node.host.survey(None, 10_000)

    def browser(self, host: str, **cookies: str) -> Client:
        client = self.now[host].test_client()
        for name, value in cookies.items():
            client.set_cookie(name, value)
        return client


@pytest.fixture
def site(kind: str, tmp_path: Path) -> Site:
    return Site(kind, tmp_path)


def ours(answer: TestResponse) -> str:
    """The value of our cookie in an answer; empty if there is none."""
    found = [text for text in answer.headers.getlist("Set-Cookie") if text.startswith("cs=")]
    return found[0].partition(";")[0].partition("=")[2] if found else ""


def test_who_was_logged_in_stays_logged_in(site: Site) -> None:
    """With all values, under an ID of ours from then on; the old cookie is left alone."""
    old = site.old_login()
    first = site.browser("a", session=old).get("/")
    assert first.json == {**VALUES, "paid": [1, 2]}
    assert not any(text.startswith(f"{OLD}=") for text in first.headers.getlist("Set-Cookie"))
    new = ours(first)
    assert new
    assert site.browser("b", cs=new).get("/").json == first.json


def test_a_new_visitor_gets_a_session_of_ours(site: Site) -> None:
    """Nothing of before, or nothing valid: as without adoption."""
    for cookies in ({}, {"session": "garbage"}, {"session": site.old_login()[:-3] + "xyz"}):
        client = site.browser("a", **cookies)
        assert client.get("/").json == {}
        client.get("/set/theme/dark")
        assert client.get("/").json == {"theme": "dark"}


def test_ours_decides_if_both_cookies_come(site: Site) -> None:
    """Also if ours is not valid: what has our name and fails is no reason to look for another."""
    old = site.old_login()
    new = ours(site.browser("a", session=old).get("/"))
    site.browser("b", session=old, cs=new).get("/set/_user_id/8")
    assert site.browser("c", session=old, cs=new[:-4] + "aaaa").get("/").json == {}


def test_after_a_logout_the_old_cookie_is_dead_on_every_host(site: Site) -> None:
    """Whoever replays it; and the browser is told to drop it too."""
    old = site.old_login()
    client = site.browser("a", session=old)
    client.get("/")
    bye = client.get("/logout")
    assert {text.partition("=")[0] for text in bye.headers.getlist("Set-Cookie") if "Max-Age=0" in text} == {"cs", OLD}
    assert [site.browser(host, session=old).get("/").json for host in "abc"] == [{}] * 3


def test_an_old_id_that_was_planted_is_dead_after_the_login(tmp_path: Path) -> None:
    """An attacker knows the old ID; the victim logs in with it. (An old cookie with values in it gives its own session.)"""
    site = Site("files", tmp_path)
    client = site.before.test_client()
    client.get("/set/theme/dark")
    planted = client.get_cookie(OLD)
    assert planted is not None
    victim = site.browser("a", session=planted.value)
    victim.get("/login/7")
    assert (victim.get("/").json or {})["_user_id"] == "7"
    for host in "abc":
        assert "_user_id" not in (site.browser(host, session=planted.value).get("/").json or {})


def test_parallel_first_requests_give_one_session(tmp_path: Path) -> None:
    """On all hosts at once, where the old cookie is a key."""
    site = Site("files", tmp_path)
    for number in range(10):
        old, barrier = site.old_login(str(number)), threading.Barrier(6)

        def first(host: str, old: str = old, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return ours(site.browser(host, session=old).get("/"))

        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(first, "abcabc"))
        assert all(found)
        site.browser("a", cs=found[0]).get("/set/theme/dark")
        assert {(site.browser("b", cs=each).get("/").json or {}).get("theme") for each in found} == {"dark"}


def test_equal_signed_cookies_stay_two_sessions(tmp_path: Path) -> None:
    """Two browsers may have been given the same one; they must never become one session."""
    site = Site("cookies", tmp_path)
    old = site.old_login()
    one, two = (ours(site.browser(host, session=old).get("/")) for host in "ab")
    site.browser("a", cs=one).get("/set/theme/dark")
    assert "theme" not in (site.browser("b", cs=two).get("/").json or {})


def test_another_device_s_old_cookie_survives_a_logout(tmp_path: Path) -> None:
    """Flask-Login marks the device; a logout is one there only."""
    site = Site("cookies", tmp_path)

    def login(device: str) -> str:
        client = site.before.test_client()
        client.get("/login/7")
        client.get(f"/set/_id/{device}")
        cookie = client.get_cookie(OLD)
        assert cookie is not None
        return cookie.value

    phone, desk = login("phone"), login("desk")
    client = site.browser("a", session=phone)
    client.get("/")
    client.get("/logout")
    assert site.browser("b", session=phone).get("/").json == {}
    assert (site.browser("b", session=desk).get("/").json or {})["_user_id"] == "7"


def test_an_old_cookie_stays_dead_when_the_tombstone_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day after a logout during which the old store was down: it still has the session, and a guard remembers."""
    site = Site("files", tmp_path)
    old = site.old_login()
    client = site.browser("a", session=old)
    client.get("/")

    def down(*_: object) -> None:
        raise SourceUnavailable("the old store gives no answer")

    with monkeypatch.context() as patched:
        patched.setattr(InterfaceSource, "end", down)
        client.get("/logout")
    site.clock += TOMBSTONE_KEPT_S + 60.0
    for node in site.cluster:
        while node.host.sweep(1000)[0] == 1000:
            pass
    assert site.before.test_client().get("/").status_code == 200
    assert InterfaceSource(site.before, site.before.session_interface).read(old, 0.0) is not None
    assert [site.browser(host, session=old).get("/").json for host in "abc"] == [{}] * 3


def test_a_full_store_does_not_drop_what_keeps_old_cookies_dead(site: Site) -> None:
    """Guards, and the time of a logout: only sessions of nobody are dropped."""
    client = site.browser("a", session=site.old_login())
    client.get("/")
    client.get("/logout")
    for node in site.cluster:
        after = None
        while batch := node.host.survey(after, 100):
            assert all(record is None or record.ended or record.principal is not None for _, record in batch)
            after = batch[-1][0]


def test_after_the_end_of_the_adoption_nothing_is_adopted(site: Site) -> None:
    """CLUSTERSESSION_ADOPT_UNTIL."""
    old = site.old_login()
    adoption = site.cluster["a"].engine.adoption
    assert adoption is not None
    adoption.until = 1.0
    assert site.browser("a", session=old).get("/").json == {}


def test_an_old_store_that_gives_no_answer_is_not_an_empty_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and no cookie: the user would seem to be logged out. Who has an ID of ours does not notice."""
    site = Site("files", tmp_path)
    old, new = site.old_login(), ours(site.browser("a", session=site.old_login("8")).get("/"))

    def silent(*_: object) -> None:
        raise SourceUnavailable("the old store gives no answer")

    monkeypatch.setattr(InterfaceSource, "_opened", silent)
    answer = site.browser("a", session=old).get("/")
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (503, [])
    assert (site.browser("a", cs=new).get("/").json or {})["_user_id"] == "8"


def test_a_logout_ends_the_old_session_in_its_store(tmp_path: Path) -> None:
    """So that it is one after a step back too."""
    site = Site("files", tmp_path)
    old = site.old_login()
    client = site.browser("a", session=old)
    client.get("/")
    client.get("/logout")
    before = site.before.test_client()
    before.set_cookie(OLD, old)
    assert before.get("/").json == {}


def test_a_permanent_session_stays_one(site: Site) -> None:
    """Its cookie of ours outlives the browser too."""
    client = site.before.test_client()
    client.get("/login/7")
    with client.session_transaction() as kept:
        kept.permanent = True
    old = client.get_cookie(OLD)
    assert old is not None
    answer = site.browser("a", session=old.value).get("/")
    assert "Max-Age=259200" in next(text for text in answer.headers.getlist("Set-Cookie") if text.startswith("cs="))


def mirroring(site: Site) -> None:
    for node in site.cluster:
        node.engine.config = replace(node.engine.config, mode="mirror")


def test_an_old_session_that_is_not_taken_over_logs_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is not enabled has put something in it that is refused: the cluster goes on with what it has."""
    site = Site("files", tmp_path)
    mirroring(site)
    client = site.browser("a", session=site.old_login())
    assert (client.get("/").json or {})["_user_id"] == "7"

    def refused(*_: object) -> None:
        raise SourceRefused("a pickle of a type off the list")

    monkeypatch.setattr(InterfaceSource, "read", refused)
    assert (client.get("/").json or {})["_user_id"] == "7"
    monkeypatch.undo()
    assert (client.get("/").json or {})["_user_id"] == "7"


@pytest.mark.parametrize("first", ["mirror", "on"])
@pytest.mark.parametrize("error", [SourceRefused, SourceUnavailable])
def test_another_old_session_that_cannot_be_read_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], first: str
) -> None:
    """The user has logged in there as somebody else, perhaps: a save of what the cluster has neither ends nor changes it."""
    site = Site("files", tmp_path)
    if first == "mirror":
        mirroring(site)
    client = site.browser("a", session=site.old_login())
    client.get("/")
    mirroring(site)
    other = site.old_login("8")
    client.set_cookie(OLD, other)

    def unread(*_: object) -> None:
        raise error("for now")

    with monkeypatch.context() as patched:
        patched.setattr(InterfaceSource, "read", unread)
        saved = client.get("/set/theme/dark")
    assert (saved.status_code, saved.headers.getlist("Set-Cookie")) == (200, [])
    before = site.before.test_client()
    before.set_cookie(OLD, other)
    assert before.get("/").json == {**VALUES, "_user_id": "8", "paid": [1, 2]}
    assert (client.get("/").json or {})["_user_id"] == ("8" if first == "mirror" else "7")


def test_what_cannot_be_told_of_a_new_login_elsewhere_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser brings another old cookie than the last one: what was loaded of ours is not shown in its place."""
    site = Site("files", tmp_path)
    mirroring(site)
    client = site.browser("a", session=site.old_login())
    client.get("/")
    client.set_cookie(OLD, site.old_login("8"))

    def unknown(*_: object) -> Any:
        return Found(Unavailable("nobody can tell"))
        yield

    with monkeypatch.context() as patched:
        patched.setattr(Adoption, "_stored", unknown)
        answer = client.get("/")
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (503, [])
    assert (client.get("/").json or {})["_user_id"] == "8"


def test_a_browser_is_always_in_the_same_part_of_the_sessions(site: Site) -> None:
    """If half of them was switched: also one with two old cookies, and when adoption is over."""
    statement = signed(Switch(1, 0.0, "mirror", 50, "a"), site.cluster.ring.signing, "default")
    for node in site.cluster:
        node.engine.config = replace(node.engine.config, mode="off", mode_switch=True)
        assert ModeSwitch(node.store, lambda: site.cluster.ring, "default").take(statement)

    def seen(number: int) -> set[str]:
        fields = (f"{OLD}=cookie {number}; {OLD}=tossed",)
        return {node.engine.mode_of(fields) for node in site.cluster for _ in range(5)}

    before = [seen(number) for number in range(20)]
    for node in site.cluster:
        assert node.engine.adoption is not None
        node.engine.adoption.until = 1.0
    assert [seen(number) for number in range(20)] == before
    assert {len(each) for each in before} == {1}
    assert {*map(tuple, before)} == {("off",), ("mirror",)}


def test_hosts_in_the_middle_of_a_key_change_adopt_one_session(tmp_path: Path) -> None:
    """One has the new key already, and no host signs with it before all have."""
    site = Site("files", tmp_path)
    both = KeyRing.parse(f"{new_key(2)},{SECRET}")
    ahead = site.cluster["a"]
    ahead.engine.ring = ahead.engine.cookies.ring = lambda: both
    write_board(ahead.store, msgspec.structs.replace(ahead.host.board, signing_kid=1))
    old = site.old_login()
    site.browser("a", session=old).get("/set/theme/dark")
    assert (site.browser("b", session=old).get("/").json or {}).get("theme") == "dark"


def silent(*_: object) -> None:
    raise SourceUnavailable("the old store gives no answer")


def test_a_logout_that_cannot_be_made_sure_of_is_503_and_can_be_repeated(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an old cookie only, while its store or the other hosts are silent: the cookie stays, and the next try ends it."""
    old = site.old_login()
    client = site.browser("a", session=old)
    with monkeypatch.context() as patched:
        if site.kind == "files":
            patched.setattr(InterfaceSource, "_opened", silent)
        else:
            site.cluster.paused("b", "c")
        bye = client.get("/logout")
    assert (bye.status_code, bye.headers.getlist("Set-Cookie")) == (503, [])
    site.cluster.back("b", "c")
    assert client.get("/logout").status_code == 200
    assert [site.browser(host, session=old).get("/").json for host in "abc"] == [{}] * 3


def test_a_logout_that_only_removes_our_cookie_leaves_the_old_one_to_try_again(site: Site) -> None:
    """Nobody takes the end of ours, nor the word that the old cookie is over: 503, and the next try ends both."""
    old = site.old_login()
    client = site.browser("a", session=old)
    client.get("/")
    site.cluster.paused("b", "c")
    bye = client.get("/logout")
    assert bye.status_code == 503
    assert [text.partition("=")[0] for text in bye.headers.getlist("Set-Cookie")] == ["cs"]
    site.cluster.back("b", "c")
    client.get("/logout")
    assert [site.browser(host, session=old).get("/").json for host in "abc"] == [{}] * 3


def test_a_late_write_with_the_old_cookie_is_409(tmp_path: Path) -> None:
    """A parallel request has logged in, or the session was given a new ID: neither a write nor a logout is lost in silence."""
    site = Site("files", tmp_path)
    before = site.before.test_client()
    before.get("/set/theme/dark")
    cookie = before.get_cookie(OLD)
    assert cookie is not None
    site.browser("a", session=cookie.value).get("/login/7")
    for path in ("/set/cart/x", "/logout"):
        assert site.browser("b", session=cookie.value).get(path).status_code == 409
    again = site.old_login("9")
    site.browser("a", session=again).get("/renew")
    assert site.browser("b", session=again).get("/set/cart/x").status_code == 409
    assert site.cluster.counted("late_write") == 3


def test_a_login_of_before_is_no_fresh_one(site: Site) -> None:
    """Nobody knows when it was; one that is made here is."""
    client = site.browser("a", session=site.old_login())
    client.get("/")
    assert client.get("/fresh").text == "ask"
    client.get("/login/8")
    assert client.get("/fresh").text == "fresh"


def test_no_change_of_keys_brings_an_old_cookie_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new key is announced on some hosts, then signs, and the old one is dropped: who has logged out stays so, and what was
    taken over is opened by no old cookie alone."""
    out, taken = site.old_login("out"), site.old_login("7")
    client = site.browser("a", session=out)
    client.get("/")
    client.get("/logout")
    site.browser("b", session=taken).get("/")
    key = new_key(2)
    announced, signing, alone = (KeyRing.parse(text) for text in (f"{SECRET},{key}", f"{key},{SECRET}", key))
    ahead = site.cluster["a"].engine
    with monkeypatch.context() as patched:
        patched.setattr(ahead, "ring", lambda: announced)
        patched.setattr(ahead.cookies, "ring", lambda: announced)
        assert [site.browser(host, session=out).get("/").json for host in "abc"] == [{}] * 3
    for ring in (signing, alone):
        site.change_keys(ring)
        for host in "abc":
            answer = site.browser(host, session=out).get("/")
            assert (answer.status_code, answer.json) == (200, {})
    if site.kind == "files":
        assert site.browser("c", session=taken).get("/").json == {}


def test_logouts_of_one_user_on_many_devices_are_all_remembered(tmp_path: Path) -> None:
    """What is kept of them does not grow without end: past a number of devices a logout is one on all."""
    site = Site("cookies", tmp_path)
    old = site.old_login("demo")
    for number in range(DEVICES_MAX + 20):
        client = site.browser("abc"[number % 3])
        client.get("/login/demo")
        client.get(f"/set/_id/{number:0128x}")
        assert client.get("/logout").status_code == 200, number
    assert site.browser("a", session=old).get("/").json == {}, "a device that has not logged out, after too many that have"


def test_a_logout_ends_the_cookie_that_was_adopted_also_from_another_address(tmp_path: Path) -> None:
    """Flask-Login's mark of the device changes with a login from elsewhere; the cookie from before has the former one."""
    site = Site("cookies", tmp_path)
    before = site.before.test_client()
    before.get("/login/7")
    before.get("/set/_id/home")
    old = before.get_cookie(OLD)
    assert old is not None
    client = site.browser("a", session=old.value)
    assert "_id" in (client.get("/").json or {})
    client.get("/set/_id/train")
    client.get("/logout")
    assert [site.browser(host, session=old.value).get("/").json for host in "abc"] == [{}] * 3
