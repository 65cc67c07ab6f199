"""Django's own ways: its test client, auth, admin, messages, `SessionStore` in and outside of requests, system checks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils import timezone

from clustersession.errors import ConfigError, SessionUnavailable
from clustersession.integrations.django import SessionMiddleware, SessionStore, source
from clustersession.integrations.django.store import DjangoSession
from clustersession.runtime.engine import Engine
from clustersession.testing.in_process import InProcessCluster
from tests.integrations.apps import Caller, pair
from tests.integrations.apps import django as wsgi
from tests.integrations.apps import django_async as asgi


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    yield InProcessCluster()
    source._current = None


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    from django.db import connection

    connection.ensure_connection()
    call_command("migrate", verbosity=0)
    yield
    connection.close()


@pytest.fixture
def user() -> Iterator[User]:
    made = User.objects.create_superuser("ann", "ann@example.org", "a password")
    yield made
    made.delete()


def client_of(cluster: InProcessCluster, host: str = "a", *, like: Client | None = None) -> Client:
    """Django's test client for the project on that host, with the cookies of another client."""
    source.use(cluster[host].engine)
    client = Client()
    client.handler.load_middleware()
    if like is not None:
        client.cookies = like.cookies
    return client


def third_host(cluster: InProcessCluster) -> str:
    """Both owners of the session that host a has begun go down; the host that is left."""
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down("a", backup)
    return next(name for name in "bc" if name != backup)


# --- requests --------------------------------------------------------------------------------------------------------------


def test_the_test_client_keeps_the_session(cluster: InProcessCluster) -> None:
    """Login, reading on another host and logout with cookies as Django's test client keeps them."""
    client = client_of(cluster)
    answer = client.get("/login/7")
    assert answer.cookies["cs"]["httponly"] is True
    assert answer.cookies["cs"]["samesite"] == "Lax"
    assert client_of(cluster, "b", like=client).get("/").json() == {"_user_id": "7"}
    gone = client_of(cluster, "c", like=client).get("/logout")
    assert gone.cookies["cs"]["max-age"] == "0"
    assert client_of(cluster, "b", like=client).get("/").json() == {}


def test_a_session_that_cannot_be_reached_is_a_503_in_the_test_client(
    cluster: InProcessCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for writes without a read; the error names no host, and is no "bad request" in Django's log."""
    client = client_of(cluster)
    client.get("/set/k/v")
    third = client_of(cluster, third_host(cluster), like=client)
    for path in ("/", "/set/k/w", "/rotate"):
        answer = third.get(path)
        assert (answer.status_code, answer["Retry-After"], list(answer.cookies)) == (503, "1", [])
        assert b"refused" not in answer.content
    assert all("refused" not in each.getMessage() for each in caplog.records if each.name == "django.request")
    cluster.back("a", "b", "c")
    assert third.get("/").json() == {"k": "v"}


def test_a_middleware_that_looks_at_the_session_is_answered_too(cluster: InProcessCluster) -> None:
    """An exception in a middleware between ours and the view would be a 500 in Django."""
    client = client_of(cluster)
    client.get("/set/k/v")
    looking = [*settings.MIDDLEWARE, "tests.integrations.django_project.Looking"]
    with override_settings(MIDDLEWARE=looking):
        third = client_of(cluster, third_host(cluster), like=client)
        answer = third.get("/quiet")
    assert (answer.status_code, answer["Retry-After"], list(answer.cookies)) == (503, "1", [])


def test_a_middleware_outside_of_ours_may_look_first(cluster: InProcessCluster) -> None:
    """Loggers of requests come first in MIDDLEWARE and look last; pages that have not looked at the session are pages too."""
    client = client_of(cluster)
    client.get("/set/k/v")
    with override_settings(MIDDLEWARE=["tests.integrations.django_project.Telling", *settings.MIDDLEWARE]):
        third = client_of(cluster, "c", like=client)
        assert [third.get(path)["X-Seen"] for path in ("/quiet", "/")] == ["v AnonymousUser"] * 2
        assert client_of(cluster).get("/quiet")["X-Seen"] == "None AnonymousUser"


def test_after_an_error_of_the_server_changes_are_dropped(cluster: InProcessCluster) -> None:
    """As Django does it; but an end counts."""
    client = client_of(cluster)
    client.raise_request_exception = False
    client.get("/set/k/v")
    assert client.get("/boom").status_code == 500
    assert client.get("/").json() == {"k": "v"}


@pytest.mark.parametrize("application", [wsgi, asgi])
def test_a_stream_that_is_an_error_changes_nothing(cluster: InProcessCluster, application: Callable[[Engine], Caller]) -> None:
    """As with any other answer of 5xx: its body is sent to the end, and what it has changed is dropped."""
    call = application(cluster["b"].engine)
    cookie = pair(call("/set/k/v", None))
    for sent, stored in (("k=v", None), (cookie, {"k": "v"})):
        answer = call("/stream/503", sent)
        assert (answer.status, answer.body) == (503, b"one two")
        assert stored is None or json.loads(call("/", sent).body) == stored
    assert call("/stream/404", cookie).status == 404
    assert json.loads(call("/", cookie).body) == {"k": "v", "streamed": "yes"}


def test_the_async_client_runs_without_threads(cluster: InProcessCluster) -> None:
    """Load and save await the peers themselves."""
    source.use(cluster["b"].engine)

    async def visit() -> list[Any]:
        client = AsyncClient()
        first = await client.get("/async/login/7")
        second = await client.get("/async/set/k/v")
        return [first.status_code, (await client.get("/async/")).json(), list(second.cookies)]

    assert asyncio.run(visit()) == [200, {"_user_id": "7", "k": "v"}, ["theme"]]


# --- auth and what else Django brings ------------------------------------------------------------------------------------


def test_djangos_login_and_logout(cluster: InProcessCluster, user: User) -> None:
    """A login gets a new ID once, with its grace for parallel requests; a logout ends it on every host."""
    client = client_of(cluster)
    anonymous = client.get("/set/theme/dark").cookies["cs"].value
    page = client.get("/admin/login/")
    assert page.status_code == 200
    entered = client.post("/admin/login/", {"username": "ann", "password": "a password", "next": "/admin/"})
    assert entered.status_code == 302
    assert entered.cookies["cs"].value != anonymous
    assert cluster.counted("session_rotated") == 1
    assert client_of(cluster, "b", like=client).get("/admin/").status_code == 200
    session = client_of(cluster, "c", like=client).get("/").json()
    assert (session["_auth_user_id"], session["theme"]) == (str(user.pk), "dark")
    kept = client.cookies["cs"].value
    client_of(cluster, "c", like=client).post("/admin/logout/")
    replayed = client_of(cluster, "b")
    replayed.cookies["cs"] = kept
    assert replayed.get("/admin/").status_code == 302
    assert replayed.get("/").json() == {}


def test_a_login_tells_its_new_key_at_once(cluster: InProcessCluster, user: User) -> None:
    """Apps note `session_key` in `user_logged_in`: it is the key under which the session is then found."""
    from django.contrib.auth.signals import user_logged_in

    noted: list[str | None] = []

    def note(request: Any, **_: Any) -> None:
        noted.append(request.session.session_key)

    client = client_of(cluster)
    client.get("/set/theme/dark")
    user_logged_in.connect(note)
    try:
        client.post("/admin/login/", {"username": "ann", "password": "a password", "next": "/admin/"})
    finally:
        user_logged_in.disconnect(note)
    (key,) = noted
    assert SessionStore(key).load()["_auth_user_id"] == str(user.pk)


@pytest.mark.parametrize("end", ["flush", "delete"])
def test_a_key_that_was_promised_is_none_after_the_end(cluster: InProcessCluster, end: str) -> None:
    """`cycle_key()` tells its new key at once; when the session is ended then, no session will ever have it."""
    client = client_of(cluster)
    client.get("/set/k/v")
    engine = cluster["a"].engine
    visit = engine.visit((f"cs={client.cookies['cs'].value}",), blocking=True, session_type=DjangoSession)
    store = SessionStore.of_request(engine, visit)
    store.cycle_key()
    promised = store.session_key
    getattr(store, end)()
    assert (store.session_key, store.is_empty()) == (None, True)
    store.cycle_key()
    assert store.session_key not in (None, promised)
    store["k"] = "w"
    store.save()
    assert SessionStore(store.session_key)["k"] == "w"


def test_a_new_session_that_was_to_exist_does_not_after_the_end(cluster: InProcessCluster) -> None:
    """`cycle_key()` of a visitor without a session, then `flush()`: nothing is stored and no cookie set."""
    engine = cluster["a"].engine
    visit = engine.visit((), blocking=True, session_type=DjangoSession)
    store = SessionStore.of_request(engine, visit)
    store.cycle_key()
    store.flush()
    engine.blocking.run(visit.save(), visit.budget)
    assert visit.headers().cookies[:1] in ((), (engine.cookies.deleted("cs"),))
    assert cluster.entries() == 0


def test_messages_in_the_session(cluster: InProcessCluster, user: User) -> None:
    """`django.contrib.messages` with the session as its storage."""
    with override_settings(MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage"):
        client = client_of(cluster)
        client.post("/admin/login/", {"username": "ann", "password": "a password", "next": "/admin/"})
        client.post("/admin/auth/user/add/", {"username": "bob", "password1": "pa55 word!", "password2": "pa55 word!"})
        answer = client.get("/admin/auth/user/")
        assert b"added successfully" in answer.content
    User.objects.filter(username="bob").delete()


# --- the store -------------------------------------------------------------------------------------------------------------


def in_request(cluster: InProcessCluster, host: str = "a", cookie: str | None = None) -> SessionStore:
    """`request.session` of a request on that host."""
    source.use(cluster[host].engine)
    found: list[SessionStore] = []
    request = RequestFactory().get("/")
    if cookie is not None:
        request.META["HTTP_COOKIE"] = cookie

    def view(request: Any) -> Any:
        found.append(request.session)
        raise _Kept

    with pytest.raises(_Kept):
        SessionMiddleware(view)(request)
    return found[0]


class _Kept(Exception):
    pass


def test_save_and_create_store_at_once(cluster: InProcessCluster) -> None:
    """Apps that hand `session_key` to a worker queue call `save` first."""
    session = in_request(cluster)
    assert session.session_key is None
    session["k"] = "v"
    session.save()
    assert session.session_key is not None
    assert SessionStore(session.session_key).load() == {"k": "v"}
    empty = in_request(cluster)
    empty.create()
    assert empty.exists(empty.session_key or "")


def test_the_key_is_no_cookie(cluster: InProcessCluster) -> None:
    """What logs and tables hold can't be used to take the session over."""
    session = in_request(cluster)
    session["k"] = "v"
    session.save()
    assert len(session.session_key or "") == 32
    assert client_of(cluster).get("/", headers={"cookie": f"cs={session.session_key}"}).json() == {}


def test_another_session_can_be_ended_by_its_key(cluster: InProcessCluster) -> None:
    """Log out my other devices: from a table of keys, on any host."""
    session = in_request(cluster, "a")
    session["k"] = "v"
    session.save()
    key = session.session_key
    assert key is not None
    other = in_request(cluster, "c")
    other.delete(key)
    assert not other.exists(key)
    assert SessionStore(key).load() == {}


def test_outside_of_a_request_nothing_is_stored_without_save(cluster: InProcessCluster) -> None:
    """Commands and the shell; the key of nothing is empty, not an error."""
    source.use(cluster["a"].engine)
    store = SessionStore("0" * 32)
    assert (store.load(), store.get("k"), store.session_key) == ({}, None, None)
    SessionStore("no key at all")["k"] = "v"
    SessionStore("")["k"] = "v"
    assert cluster.entries() == 0
    SessionStore.clear_expired()


def test_a_save_after_the_end_is_djangos_update_error(cluster: InProcessCluster) -> None:
    """Code that expects `UpdateError` from `save` gets it."""
    session = in_request(cluster)
    session["k"] = "v"
    session.save()
    SessionStore(session.session_key).flush()
    session["k"] = "w"
    with pytest.raises(UpdateError):
        session.save()


def test_a_store_that_cannot_be_reached_says_so(cluster: InProcessCluster) -> None:
    """Not empty, and not "does not exist"."""
    session = in_request(cluster)
    session["k"] = "v"
    session.save()
    key = session.session_key or ""
    third = in_request(cluster, third_host(cluster))
    with pytest.raises(SessionUnavailable):
        third.exists(key)


def test_the_async_interface(cluster: InProcessCluster) -> None:
    """Every `a...` method, by the asyncio driver."""
    source.use(cluster["a"].engine)

    async def use() -> None:
        store = SessionStore()
        await store.aset("k", "v")
        await store.aupdate({"n": 1})
        assert await store.aget("k") == "v"
        assert await store.apop("n") == 1
        assert await store.ahas_key("k")
        await store.asave()
        key = store.session_key
        assert key is not None
        assert await SessionStore(key).aload() == {"k": "v"}
        assert await store.aexists(key)
        await store.acycle_key()
        await store.asave()
        assert store.session_key not in (None, key)
        assert await SessionStore(key).aload() == {}
        await store.adelete()
        assert await store.aload() == {}
        other = SessionStore()
        await other.acreate()
        await store.adelete(other.session_key)
        assert not await store.aexists(other.session_key or "")
        await SessionStore.aclear_expired()

    asyncio.run(use())


@pytest.mark.parametrize(
    ("expiry", "age"),
    [(60, 60), (timedelta(hours=1), 3600), (0, None), (None, None)],
    ids=["seconds", "timedelta", "browser close", "default"],
)
def test_set_expiry(cluster: InProcessCluster, expiry: Any, age: int | None) -> None:
    """The cookie and the stored session live as long as the app says."""
    source.use(cluster["a"].engine)
    answer: list[Any] = []

    def view(request: Any) -> Any:
        request.session["k"] = "v"
        request.session.set_expiry(expiry)
        answer.append(request.session.get_expiry_age())
        return HttpResponse("ok")

    cookie = SessionMiddleware(view)(RequestFactory().get("/")).cookies["cs"]
    given = cookie["max-age"]
    assert (None if given == "" else round(int(given), -1)) == age
    assert abs(answer[0] - (age or 1209600)) <= 1
    session = in_request(cluster, "b", f"cs={cookie.value}")
    assert session["k"] == "v"
    lifetime = session._visit._stored.record.lifetime  # type: ignore[union-attr]
    assert abs((lifetime.idle or 0) - (age or 1209600)) <= 1
    assert (lifetime.deadline is not None) == isinstance(expiry, timedelta)


def test_djangos_small_things(cluster: InProcessCluster) -> None:
    """Test cookie, `modified`, `accessed`, `is_empty`, `setdefault`, dates of expiry."""
    session = in_request(cluster)
    assert (session.modified, session.is_empty()) == (False, True)
    session.set_test_cookie()
    assert session.test_cookie_worked()
    session.delete_test_cookie()
    assert session.setdefault("k", "v") == "v"
    assert (session.modified, session.accessed, session.is_empty()) == (True, True, False)
    session.modified = True
    assert session.get_expiry_date() > timezone.now()
    assert session.get_expire_at_browser_close()
    assert session.placement is None
    session.save()
    assert session.placement.master == "a"  # type: ignore[attr-defined]
    session.clear()
    assert list(session.keys()) == []


# --- tests of a user's project, and settings -----------------------------------------------------------------------------


@pytest.fixture
def dev() -> Iterator[None]:
    """No settings at all: what a project has under pytest."""
    source._current = None
    yield
    source._current = None


def test_a_project_under_test_needs_no_settings(dev: None, user: User) -> None:
    """`client.session`, `force_login` and `logout` work as with Django's engines: dev mode, memory, no port."""
    client = Client()
    session = client.session
    session["k"] = "v"
    session.save()
    assert client.get("/").json() == {"k": "v"}
    client.get("/set/n/1")
    assert dict(client.session.items()) == {"k": "v", "n": "1"}
    client.force_login(user)
    assert client.get("/admin/").status_code == 200
    assert client.get("/").json()["k"] == "v"
    kept = client.cookies["sessionid"].value
    client.logout()
    assert client.get("/admin/").status_code == 302
    client.cookies["sessionid"] = kept
    assert client.get("/admin/").status_code == 302


def test_commands_that_need_no_session_open_nothing(dev: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`manage.py migrate` and `check` work where no node could start."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    call_command("migrate", verbosity=0)
    call_command("check")
    assert source._current is None


def test_a_wrong_setting_is_told_when_the_middleware_is_loaded(dev: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the first request."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    with pytest.raises(ConfigError, match="CLUSTERSESSION_SECRET"):
        SessionMiddleware(lambda request: None)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"]}, ["clustersession.E001"]),
        ({"MIDDLEWARE": []}, ["clustersession.E002"]),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, ["clustersession.E003"]),
    ],
)
def test_system_checks(changes: dict[str, Any], found: list[str]) -> None:
    """The two settings must fit together; `manage.py check` says how to mend it."""
    with override_settings(**changes):
        errors = [each for each in checks.run_checks(tags=["sessions"]) if str(each.id).startswith("clustersession")]
    assert [each.id for each in errors] == found
    assert all(each.hint for each in errors)


def test_our_store_under_djangos_own_middleware_says_what_is_wrong() -> None:
    """It would take the cookie for a key."""
    with (
        override_settings(MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"]),
        pytest.raises(ImproperlyConfigured, match="in its place"),
    ):
        SessionStore()
