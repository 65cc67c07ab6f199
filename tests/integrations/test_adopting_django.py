"""Django projects whose users are logged in elsewhere: with every engine that Django has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import override_settings

from clustersession.config import Lifetimes
from clustersession.integrations.django import source
from clustersession.integrations.django.adoption import DjangoEngineSource, old_sessions
from clustersession.testing.in_process import InProcessCluster
from tests.integrations.apps import Site, session_cookies
from tests.middleware.calling import Answer

BACKENDS = "django.contrib.sessions.backends"
VALUES = {"_auth_user_id": "7", "_auth_user_backend": "x", "_auth_user_hash": "y", "cart": ["apple"]}


@pytest.fixture(params=["db", "cached_db", "cache", "file", "signed_cookies"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    name = f"{BACKENDS}.{request.param}"
    with override_settings(
        CLUSTERSESSION_ADOPT_ENGINE=name,
        SESSION_FILE_PATH=str(tmp_path),
        INSTALLED_APPS=[*apps_without_sessions(), "django.contrib.sessions"],
    ):
        call_command("migrate", "sessions", verbosity=0)
        yield name
    if "_storage_path" in FileStore.__dict__:
        delattr(FileStore, "_storage_path")  # Django keeps the directory that it has seen first
    source._current = None
    connection.close()


def apps_without_sessions() -> list[str]:
    from django.conf import settings

    return [each for each in settings.INSTALLED_APPS if each != "django.contrib.sessions"]


def old_login(engine: str, **values: Any) -> str:
    """The cookie of a user who has logged in before."""
    store = import_module(engine).SessionStore()
    store.update({**VALUES, **values})
    store.save()
    return str(store.session_key)


@pytest.fixture(params=["django", "django_async"])
def site(request: pytest.FixtureRequest, engine: str) -> Site:
    return Site(request.param, InProcessCluster())


def ours(answer: Answer) -> str:
    """`cs=...` in the answer."""
    (cookie,) = [text for text in session_cookies(answer) if text.startswith("cs=")]
    return cookie.partition(";")[0]


def before(key: str) -> str:
    return f"sessionid={key}"


def test_who_was_logged_in_stays_logged_in(site: Site, engine: str) -> None:
    """With all values, under an ID of ours from then on; the old cookie is left alone."""
    first = site.get("a", "/", before(old_login(engine)))
    assert json.loads(first.body) == VALUES
    assert not [text for text in first.cookies if text.strip().startswith("sessionid=")]
    for host in "abc":
        assert site.values(host, ours(first)) == VALUES


def test_what_the_engine_does_not_accept_is_no_session(site: Site, engine: str) -> None:
    """Unknown, forged or garbage: as without adoption."""
    key = old_login(engine)
    for wrong in ("x" * 32, key[:-3] + "zzz", "a", "../../etc/passwd", "%00"):
        assert site.values("a", before(wrong)) == {}


def test_after_a_logout_the_old_cookie_is_dead_on_every_host(site: Site, engine: str) -> None:
    """Here, and in the engine's own store where it has one."""
    key = old_login(engine)
    cookie = ours(site.get("a", "/", before(key)))
    bye = site.get("b", "/logout", f"{cookie}; {before(key)}")
    assert {text.strip().partition("=")[0] for text in session_cookies(bye) if "Max-Age=0" in text} == {"cs", "sessionid"}
    assert [site.values(host, before(key)) for host in "abc"] == [{}] * 3
    if not engine.endswith("signed_cookies"):
        assert import_module(engine).SessionStore(key).load() == {}


def test_a_user_logs_out_here_and_the_old_cookie_comes_alone(site: Site, engine: str) -> None:
    """From another browser to which it was copied: dead too."""
    key = old_login(engine)
    site.get("b", "/logout", ours(site.get("a", "/", before(key))))
    assert [site.values(host, before(key)) for host in "abc"] == [{}] * 3


def test_requests_at_the_same_time_get_one_session(site: Site, engine: str) -> None:
    """Where the old cookie is a key; two equal signed cookies stay two sessions."""
    key = before(old_login(engine))
    one, two = (ours(site.get(host, "/", key)) for host in "ab")
    site.get("c", "/set/theme/dark", one)
    shared = not engine.endswith("signed_cookies")
    assert ("theme" in site.values("c", two)) is shared


def test_an_engine_that_gives_no_answer_is_not_an_empty_session(site: Site, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and no cookie: the user would seem to be logged out."""
    key = old_login(engine)

    def broken(_: Any) -> None:
        raise DatabaseError("server closed the connection")

    monkeypatch.setattr(import_module(engine).SessionStore, "load", broken)
    answer = site.get("a", "/", before(key))
    assert (answer.status, session_cookies(answer)) == (503, [])
    assert answer.one("Retry-After")


@pytest.mark.parametrize("at", [False, True], ids=["seconds", "a time"])
def test_an_end_that_the_app_has_set_stays(engine: str, at: bool) -> None:
    """`set_expiry(300)` ends it five minutes after the last use, a time at that time, though the age of sessions is two weeks."""
    clock = 1e6
    cluster = InProcessCluster(clock=lambda: clock, lifetimes=Lifetimes(idle_s=14 * 86400.0, absolute_s=None))
    site = Site("django", cluster)
    store = import_module(engine).SessionStore()
    store.update(VALUES)
    store.set_expiry(datetime.now(UTC) + timedelta(seconds=300) if at else 300)
    store.save()
    cookie = ours(site.get("a", "/", before(str(store.session_key))))
    clock += 200.0
    assert site.values("b", cookie)["_auth_user_id"] == "7"
    clock += 200.0 if at else 330.0
    assert site.values("c", cookie) == {}


def test_what_is_written_back_is_read_by_the_engine(engine: str) -> None:
    """Under the same key where there is one; a session that is gone gets another key."""
    old = DjangoEngineSource(engine)
    key = old_login(engine)
    changed = old.write(key, {**VALUES, "cart": ["apple", "pear"]}, None, 0.0)
    assert (changed is None) is not old.keyless
    assert import_module(engine).SessionStore(changed or key).load() == {**VALUES, "cart": ["apple", "pear"]}
    old.end(changed or key)
    again = old.write(changed or key, VALUES, None, 0.0)
    assert again is not None
    assert import_module(engine).SessionStore(again).load() == VALUES


@pytest.mark.parametrize("wrong", ["no.such.module", "json", "clustersession.integrations.django"])
def test_a_wrong_engine_is_said_when_the_project_starts(wrong: str) -> None:
    """Which setting, and what to name there."""
    with override_settings(CLUSTERSESSION_ADOPT_ENGINE=wrong), pytest.raises(ImproperlyConfigured, match="ADOPT_ENGINE"):
        old_sessions()
