"""Django's session tests, over our engine and middleware: in the place of its own engines and middleware."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core import management
from django.http import HttpRequest
from django.test import SimpleTestCase, override_settings
from sessions_tests import tests as theirs

from clustersession.integrations.django import SessionMiddleware, SessionStore
from clustersession.integrations.django.source import use
from clustersession.testing.in_process import InProcessCluster

if TYPE_CHECKING:

    class Mixin:
        pass
else:
    Mixin = theirs.SessionTestsMixin


class EngineTests(Mixin, SimpleTestCase):
    """As a `SimpleTestCase`: whoever needs a database fails."""

    backend = SessionStore

    def test_clearsessions_command(self) -> None:
        with override_settings(SESSION_ENGINE="clustersession.integrations.django"):
            management.call_command("clearsessions")


@override_settings(USE_TZ=True)
class EngineWithTimeZoneTests(EngineTests):
    pass


class ClusterTests(EngineTests):
    """The same on one of three hosts, where each session has two owners and `session_key` is no cookie."""

    def setUp(self) -> None:
        self.addCleanup(use, None)
        use(InProcessCluster()["a"].engine)
        super().setUp()


class _StoredRow:
    """What the tests read from the database's table of sessions."""

    def __init__(self, session_key: str) -> None:
        self._store = SessionStore(session_key)

    def get_decoded(self) -> dict[str, Any]:
        return self._store.load()


class _StoredRows:
    class objects:  # noqa: N801
        get = _StoredRow


class MiddlewareTests(theirs.SessionMiddlewareTests):  # type: ignore[misc]
    middleware: Any = SessionMiddleware

    def setUp(self) -> None:
        super().setUp()
        for name, ours in (("SessionMiddleware", self.middleware), ("DatabaseSession", SessionStore), ("Session", _StoredRows)):
            self.addCleanup(setattr, theirs, name, getattr(theirs, name))
            setattr(theirs, name, ours)

    def assertEqual(self, first: Any, second: Any, msg: Any = None) -> None:  # noqa: N802
        """Set-Cookie headers by what they say: ours repeats HttpOnly when it removes a cookie, Django's does not."""
        if isinstance(first, str) and first.startswith("Set-Cookie: "):
            first, second = _said(first), _said(second)
            second.pop("httponly", None)
        super().assertEqual(first, second, msg)  # noqa: PT009  (it is what their tests call)


def _said(header: str) -> dict[str, Any]:
    cookie = SimpleCookie(header.removeprefix("Set-Cookie: "))
    ((name, morsel),) = cookie.items()
    return {"name": name, "value": morsel.value, **{word: value for word, value in morsel.items() if value}}


class _Async:
    """The middleware in an asynchronous project, called by tests that know nothing of it."""

    def __init__(self, get_response: Any) -> None:
        async def aget_response(request: HttpRequest) -> Any:
            return await sync_to_async(get_response)(request)

        self._middleware = SessionMiddleware(aget_response)

    def __call__(self, request: HttpRequest) -> Any:
        return async_to_sync(self._middleware)(request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        return self._middleware.process_response(request, response)


class AsyncMiddlewareTests(MiddlewareTests):
    middleware = _Async


class ClearSessionsCommandTests(theirs.ClearSessionsCommandTests):  # type: ignore[misc]
    pass


class SessionBaseTests(theirs.SessionBaseTests):  # type: ignore[misc]
    pass
