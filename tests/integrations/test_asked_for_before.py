"""A mode that needs the sessions of before, in an app that was not set up with them: each integration says what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.test import override_settings
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import sessions as starlettes

from clustersession import WSGISessionMiddleware
from clustersession.integrations.django import SessionMiddleware as DjangoMiddleware
from clustersession.integrations.django import source
from clustersession.integrations.flask import ClusterSession, ClusterSessionInterface
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.middleware.asgi import SessionMiddleware as ASGISessionMiddleware
from clustersession.sources import FlaskCookie, StarletteCookie
from clustersession.testing.in_process import SECRET

ENGINE = "django.contrib.sessions.backends.db"
KEY = "not the cluster's"


class Case(NamedTuple):
    """An app that is not set up for `mode`, the words that must be in its refusal, and the app as they advise."""

    mode: str
    wrong: Callable[[], Any]
    words: tuple[str, ...]
    right: Callable[[], Any]


def flask_with(interface: ClusterSessionInterface) -> None:
    """The app's first request opens its sessions."""
    app = Flask("shop")
    app.session_interface = interface
    with app.test_request_context():
        app.session_interface.open_session(app, app.test_request_context().request)


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    return []


def django_middleware(engine: str | None) -> None:
    with override_settings(CLUSTERSESSION_ADOPT_ENGINE=engine):
        source.use(None)
        DjangoMiddleware(lambda request: None)


def before(app: Any) -> Any:
    return starlettes.SessionMiddleware(app, KEY)


CASES = {
    "Flask, the interface alone": Case(
        "off", lambda: flask_with(ClusterSessionInterface()), ("`ClusterSession(app)`",), lambda: ClusterSession(Flask("shop"))
    ),
    "Flask without a source": Case(
        "shadow",
        lambda: ClusterSession(Flask("shop")),
        ("`ClusterSession(app, adopt=True)`",),
        lambda: ClusterSession(Flask("shop"), adopt=True),
    ),
    "Django": Case(
        "off",
        lambda: django_middleware(None),
        ("CLUSTERSESSION_ADOPT_ENGINE", "SESSION_ENGINE was", ENGINE),
        lambda: django_middleware(ENGINE),
    ),
    "Django in shadow": Case("shadow", lambda: django_middleware(None), ("it is 'shadow'",), lambda: django_middleware(ENGINE)),
    "Starlette": Case(
        "off", lambda: SessionMiddleware(Starlette()), ("`before=",), lambda: SessionMiddleware(Starlette(), before=before)
    ),
    "Starlette without a source": Case(
        "shadow",
        lambda: SessionMiddleware(Starlette(), before=before),
        ("`adopt=`",),
        lambda: SessionMiddleware(Starlette(), before=before, adopt=StarletteCookie(KEY)),
    ),
    "ASGI": Case(
        "off",
        lambda: ASGISessionMiddleware(Starlette()),
        ("`before=",),
        lambda: ASGISessionMiddleware(Starlette(), before=before),
    ),
    "WSGI": Case(
        "off",
        lambda: WSGISessionMiddleware(wsgi_app),
        ("`before=",),
        lambda: WSGISessionMiddleware(wsgi_app, before=lambda app: app),
    ),
    "WSGI without a source": Case(
        "shadow",
        lambda: WSGISessionMiddleware(wsgi_app, before=lambda app: app),
        ("`adopt=`",),
        lambda: WSGISessionMiddleware(wsgi_app, before=lambda app: app, adopt=FlaskCookie(KEY)),
    ),
}


@pytest.fixture(autouse=True)
def _djangos_own_again() -> Iterator[None]:
    current = source._current
    yield
    source._current = current


@pytest.mark.parametrize("name", CASES)
def test_the_advice_is_of_the_integration_and_helps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode, what is missing, and an argument or setting that exists there: with it the app is made."""
    case = CASES[name]
    monkeypatch.setenv("CLUSTERSESSION_MODE", case.mode)
    monkeypatch.setenv("CLUSTERSESSION_SECRET", SECRET)
    with pytest.raises(Exception, match="^CLUSTERSESSION_MODE: ") as refused:
        case.wrong()
    said = str(refused.value)
    assert f"it is {case.mode!r}" in said
    assert [each for each in case.words if each not in said] == []
    case.right()
