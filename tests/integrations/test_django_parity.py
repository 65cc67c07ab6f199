"""Django's habits that an app may rely on: settings, sessions put into requests by hand, tests that make their own requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.management.commands import clearsessions
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings

from clustersession.errors import ConfigError, SessionUnavailable
from clustersession.integrations.django import SessionMiddleware, SessionStore, source
from clustersession.testing.in_process import InProcessCluster


@pytest.fixture(autouse=True)
def dev() -> Iterator[None]:
    """No settings of ours at all: what a project has under pytest."""
    source._current = None
    yield
    source._current = None


@pytest.fixture
def cluster() -> InProcessCluster:
    cluster = InProcessCluster()
    source.use(cluster["a"].engine)
    return cluster


def touching(request: HttpRequest) -> HttpResponse:
    request.session["k"] = "v"
    return HttpResponse("ok")


def reading(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.session.get("k")))


def quiet(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def served(view: Any, cookie: str | None = None, *, is_async: bool = False) -> HttpResponse:
    """The answer to one request with that Cookie header, sync or async."""
    request = RequestFactory().get("/")
    if cookie is not None:
        request.META["HTTP_COOKIE"] = cookie
    if not is_async:
        answer: HttpResponse = SessionMiddleware(view)(request)
        return answer

    async def aview(request: HttpRequest) -> HttpResponse:
        found: HttpResponse = await sync_to_async(view)(request)
        return found

    async def ask() -> HttpResponse:
        answered: HttpResponse = await SessionMiddleware(aview)(request)  # in a loop, so that it runs its async half
        return answered

    return asyncio.run(ask())


def header(answer: HttpResponse) -> str:
    """The one Set-Cookie value."""
    (cookie,) = answer.cookies.values()
    return cookie.OutputString()


def pair(answer: HttpResponse) -> str:
    return header(answer).partition(";")[0]


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


# --- settings ------------------------------------------------------------------------------------------------------------


def test_cookie_settings_of_the_project() -> None:
    """Each of Django's, also where tests override them; the session stays the same."""
    name, *rest = header(served(touching)).split("; ")
    assert name.startswith("sessionid=")
    assert rest == ["Path=/", "HttpOnly", "SameSite=Lax"]
    changed = {
        "SESSION_COOKIE_NAME": "shop",
        "SESSION_COOKIE_DOMAIN": "example.org",
        "SESSION_COOKIE_PATH": "/shop",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_HTTPONLY": False,
        "SESSION_COOKIE_SAMESITE": "strict",
        "SESSION_EXPIRE_AT_BROWSER_CLOSE": False,
        "SESSION_COOKIE_AGE": 600,
    }
    kept = SessionMiddleware(reading)
    with override_settings(**changed):
        name, *rest = header(served(touching)).split("; ")
        assert name.startswith("shop=")
        assert rest == ["Path=/shop", "SameSite=Strict", "Domain=example.org", "Secure", "Max-Age=600"]
        request = RequestFactory().get("/", headers={"cookie": name})
        assert kept(request).content == b"v"
    assert source.engine_source().config.cookie.names == ("sessionid",)


@pytest.mark.parametrize(
    ("settings", "name", "secure"),
    [
        ({}, "__Host-cs", True),
        ({"SESSION_COOKIE_PATH": "/shop"}, "__Secure-cs", True),
        ({"SESSION_COOKIE_NAME": "shop"}, "shop", True),
        ({"SESSION_COOKIE_SECURE": True}, "__Host-cs", True),
        ({"SESSION_COOKIE_SECURE": False}, "cs", False),
    ],
)
def test_names_in_production(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], name: str, secure: bool) -> None:
    """Our own with the strictest prefix, unless the project has said otherwise in so many words."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    monkeypatch.setenv("CLUSTERSESSION_SECRET", "1:K7rV9xq2LmP4sTzW8yBnC3dFgH6jQaEu")
    with override_settings(**settings):
        cookie = source.engine_source().config.cookie
    assert (cookie.names, cookie.secure, cookie.httponly) == ((name,), secure, True)


def test_a_wrong_setting_of_the_project_is_named() -> None:
    """As one of Django's."""
    with override_settings(SESSION_COOKIE_SAMESITE="never"), pytest.raises(ConfigError, match="SESSION_COOKIE_SAMESITE: 'never'"):
        SessionMiddleware(quiet)


@both
def test_save_every_request(is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session lives on, and its persistent cookie is renewed, with every request, whether it was looked at or not."""
    cookie = pair(served(touching))
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True, SESSION_EXPIRE_AT_BROWSER_CLOSE=False):
        answer = served(quiet, cookie, is_async=is_async)
        assert (pair(answer), "Max-Age=1209600" in header(answer)) == (cookie, True)
        assert answer["Vary"] == "Cookie"
        assert served(quiet, is_async=is_async).cookies == {}, "nobody has a session yet"
        failed = served(lambda request: HttpResponse("no", status=500), cookie, is_async=is_async)
        assert failed.cookies == {}
    assert served(quiet, cookie, is_async=is_async).cookies == {}
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True, SESSION_EXPIRE_AT_BROWSER_CLOSE=True):
        assert served(quiet, cookie, is_async=is_async).cookies == {}, "it would say nothing new"


def test_save_every_request_does_not_fail_pages_without_a_session(cluster: InProcessCluster) -> None:
    """A page that does not look at it is served while no owner answers."""
    cookie = pair(served(touching))
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down("a", backup)
    third = next(name for name in "bc" if name != backup)
    source.use(cluster[third].engine)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        answer = served(quiet, cookie)
        assert (answer.status_code, answer.cookies, answer.has_header("Vary")) == (200, {}, False)
        with pytest.raises(SessionUnavailable):
            served(reading, cookie)


# --- sessions put into a request by hand ---------------------------------------------------------------------------------


@both
def test_a_session_that_the_view_puts_there_is_saved_instead(is_async: bool) -> None:
    """With a cookie for it, as Django's middleware does it."""

    def view(request: HttpRequest) -> HttpResponse:
        request.session = SessionStore()
        request.session["other"] = "session"
        return HttpResponse("ok")

    first = pair(served(touching))
    answer = served(view, first, is_async=is_async)
    assert pair(answer) != first
    assert (answer["Vary"], answer["Cache-Control"]) == ("Cookie", "no-store")
    key = pair(answer).partition("=")[2]
    assert SessionStore(key).load() == {"other": "session"}
    assert served(reading, first).content == b"v"


@both
def test_a_session_put_there_that_was_deleted_meanwhile_is_interrupted(is_async: bool) -> None:
    """Django's own error, which it answers with 400."""

    def view(request: HttpRequest) -> HttpResponse:
        request.session = SessionStore()
        request.session["k"] = "v"
        request.session.save()
        SessionStore(request.session.session_key).flush()
        return HttpResponse("ok")

    with pytest.raises(SessionInterrupted):
        served(view, is_async=is_async)


@both
def test_an_empty_one_put_there_removes_the_cookie(is_async: bool) -> None:
    """The browser has one that the app has dropped."""

    def view(request: HttpRequest) -> HttpResponse:
        request.session = SessionStore()
        return HttpResponse("ok")

    answer = served(view, pair(served(touching)), is_async=is_async)
    assert header(answer).startswith("sessionid=; ")
    assert "Max-Age=0" in header(answer)
    assert served(view, is_async=is_async).cookies == {}


def test_by_its_handle_alone_a_session_gets_no_cookie(cluster: InProcessCluster) -> None:
    """In the cluster a handle is no cookie; what is changed is saved all the same."""
    key = in_request(touching).session_key

    def view(request: HttpRequest) -> HttpResponse:
        request.session = SessionStore(key)
        request.session["k"] = "w"
        return HttpResponse("ok")

    assert served(view).cookies == {}
    assert SessionStore(key).load() == {"k": "w"}


def in_request(view: Any) -> SessionStore:
    request = RequestFactory().get("/")
    SessionMiddleware(view)(request)
    store = request.session
    assert isinstance(store, SessionStore)
    return store


def test_cookies_that_another_middleware_has_set() -> None:
    """`request.COOKIES` counts where it was changed, as for apps that take the session from a header."""
    first, second = pair(served(touching)), pair(served(touching))
    request = RequestFactory().get("/", headers={"cookie": first})
    name, _, value = second.partition("=")
    request.COOKIES[name] = value

    def view(request: HttpRequest) -> HttpResponse:
        request.session["seen"] = True
        return HttpResponse(request.session.session_key)

    assert SessionMiddleware(view)(request).content.decode() == value
    untouched = RequestFactory().get("/", headers={"cookie": first})
    assert {name: first.partition("=")[2]} == untouched.COOKIES
    assert SessionMiddleware(reading)(untouched).content == b"v"


# --- tests of a project ----------------------------------------------------------------------------------------------------


def test_a_test_that_makes_its_own_request() -> None:
    """`process_request` and `save`, or a whole round with changes afterwards: idioms of many projects."""
    request = RequestFactory().get("/")
    SessionMiddleware(quiet).process_request(request)
    request.session["k"] = "v"
    request.session.save()
    assert SessionStore(request.session.session_key).load() == {"k": "v"}
    request = RequestFactory().get("/")
    middleware = SessionMiddleware(quiet)
    middleware(request)
    request.session["k"] = "w"
    assert SessionStore(request.session.session_key).load() == {}, "not saved yet"
    request.session.save()
    assert SessionStore(request.session.session_key).load() == {"k": "w"}
    answer = middleware.process_response(request, HttpResponse("again"))
    assert pair(answer) == f"sessionid={request.session.session_key}"


def test_what_a_test_client_notes_as_the_key() -> None:
    """One key everywhere: in views, in `client.session`, in the cookie; and it stays while the session does."""
    client = Client()
    client.get("/set/k/v")
    key = client.session.session_key
    assert key is not None
    assert (len(key), client.cookies["sessionid"].value) == (32, key)
    client.get("/set/k/w")
    assert client.session.session_key == key
    assert client.get("/").wsgi_request.session.session_key == key
    assert client.get("/").wsgi_request.session["k"] == "w"


def test_only_in_dev_mode(cluster: InProcessCluster) -> None:
    """In the cluster what comes after the response is too late and says so, and a handle is no cookie."""
    store = in_request(touching)
    with pytest.raises(Exception, match="nothing can be saved any more"):
        store["k"] = "w"
    assert served(reading, f"cs={store.session_key}").content == b"None"


# --- the store -------------------------------------------------------------------------------------------------------------


def test_load_and_delete_as_djangos() -> None:
    """`load` shows what is stored now; `delete` leaves what the object knows, which then cannot be saved any more."""
    store = SessionStore()
    store["k"] = "v"
    store.save()
    other = SessionStore(store.session_key)
    other["other"] = "w"
    other.save()
    assert (store.load(), dict(store.items())) == ({"k": "v", "other": "w"}, {"k": "v"})
    store.delete()
    assert (store["k"], store.exists(store.session_key)) == ("v", False)
    with pytest.raises(UpdateError):
        store.save()
    assert store.load() == {}
    assert store.session_key is None


def test_must_create() -> None:
    """`save(must_create=True)` is refused where there is a session."""
    store = SessionStore()
    store.save(must_create=True)
    with pytest.raises(CreateError):
        store.save(must_create=True)


@both
def test_delete_in_a_request_is_done_at_once(is_async: bool) -> None:
    """And removes the cookie."""
    cookie = pair(served(touching))
    key = cookie.partition("=")[2]
    left: list[bool] = []

    def view(request: HttpRequest) -> HttpResponse:
        request.session.delete()
        left.append(SessionStore(key).exists(key))
        return HttpResponse("ok")

    async def aview(request: HttpRequest) -> HttpResponse:
        await request.session.adelete()
        left.append(await SessionStore(key).aexists(key))
        return HttpResponse("ok")

    async def ask() -> HttpResponse:
        request = RequestFactory().get("/", headers={"cookie": cookie})
        answered: HttpResponse = await SessionMiddleware(aview)(request)
        return answered

    answer = asyncio.run(ask()) if is_async else served(view, cookie)
    assert left == [False]
    assert header(answer).startswith("sessionid=; ")


@pytest.mark.parametrize("expiry", [-10, timedelta(seconds=-10)], ids=["seconds", "timedelta"])
def test_what_has_expired_already_is_over_at_once(expiry: Any) -> None:
    """`set_expiry` in the past."""
    store = SessionStore()
    store["k"] = "v"
    store.set_expiry(expiry)
    store.save()
    assert SessionStore(store.session_key).load() == {}


def test_clearsessions_has_nothing_to_do() -> None:
    """The command runs, and leaves what lives."""
    store = SessionStore()
    store["k"] = "v"
    store.save()
    call_command(clearsessions.Command())
    assert SessionStore(store.session_key).load() == {"k": "v"}


# --- projects that build on it ---------------------------------------------------------------------------------------------


class Brief(SessionStore):
    """An engine of a project's own."""

    def get_session_cookie_age(self) -> int:
        return 60


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be SESSION_ENGINE."""
    import sys

    module = ModuleType("tests_own_engine")
    module.SessionStore = Brief  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_an_engine_that_builds_on_ours(engine: str) -> None:
    """Its own age of sessions is that of the cookie and of what is stored; the system check is content."""
    from clustersession.integrations.django import check_settings

    with override_settings(SESSION_ENGINE=engine, SESSION_EXPIRE_AT_BROWSER_CLOSE=False):
        assert check_settings() == []
        answer = served(touching)
        assert "Max-Age=60" in header(answer)
        stored = SessionStore(pair(answer).partition("=")[2])
        assert stored["k"] == "v"
        assert stored.visit._stored is not None
        assert stored.visit._stored.record.lifetime.idle == 60
        outside = Brief()
        outside.save()
        found = SessionStore(outside.session_key)
        assert "k" not in found
        assert found.visit._stored is not None
        assert found.visit._stored.record.lifetime.idle == 60


class Noting(SessionMiddleware):
    """A middleware of a project's own, as they are made of Django's."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        request.noted = [request.session.get("k")]  # type: ignore[attr-defined]

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        answer = super().process_response(request, response)
        answer["X-Noted"] = str(request.noted)  # type: ignore[attr-defined]
        return answer


@both
def test_a_middleware_that_builds_on_ours(is_async: bool, cluster: InProcessCluster) -> None:
    """`process_request` and `process_response` can be extended, as Django's; in async projects they run in a thread."""
    cookie = pair(served(touching))

    async def aview(request: HttpRequest) -> HttpResponse:
        await request.session.aset("k", f"{await request.session.aget('k')}w")
        return HttpResponse("ok")

    def view(request: HttpRequest) -> HttpResponse:
        request.session["k"] += "w"
        return HttpResponse("ok")

    async def ask() -> HttpResponse:
        answered: HttpResponse = await Noting(aview)(RequestFactory().get("/", headers={"cookie": cookie}))
        return answered

    source.use(cluster["b"].engine)
    answer = asyncio.run(ask()) if is_async else Noting(view)(RequestFactory().get("/", headers={"cookie": cookie}))
    assert answer["X-Noted"] == "['v']"
    source.use(cluster["c"].engine)
    assert served(reading, cookie).content == b"vw"
