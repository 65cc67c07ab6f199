"""A Django project in one module: users, admin, and the common app, sync and async."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from clustersession.runtime.engine import Engine

if not settings.configured:
    settings.configure(
        SECRET_KEY="only for the tests of this project",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:tests?mode=memory&cache=shared"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.messages", "django.contrib.admin"],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        SESSION_ENGINE="clustersession.integrations.django",
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
        MIDDLEWARE=[
            "clustersession.integrations.django.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        LOGGING_CONFIG=None,
    )
    django.setup()

from django.contrib import admin
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.urls import path, re_path

from clustersession.integrations.django.source import use
from tests.integrations.apps import act


def stream(request: HttpRequest, status: int = 200) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        yield "one "
        request.session["streamed"] = "yes"
        yield "two"

    return StreamingHttpResponse(body(), status=status)


async def astream(request: HttpRequest, status: int = 200) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        yield "one "
        await request.session.aset("streamed", "yes")
        yield "two"

    return StreamingHttpResponse(body(), status=status)


def _answer(found: Any) -> HttpResponse:
    response = HttpResponse(json.dumps(found), content_type="application/json")
    response.set_cookie("theme", "dark")
    return response


def anything(request: HttpRequest) -> HttpResponse:
    return _answer(act(request.session, request.path))


async def anything_async(request: HttpRequest) -> HttpResponse:
    return _answer(act(request.session, request.path.removeprefix("/async")))


urlpatterns = [
    path("admin/", admin.site.urls),
    path("stream", stream),
    path("stream/<int:status>", stream),
    path("async/stream", astream),
    path("async/stream/<int:status>", astream),
    re_path("^async/", anything_async),
    re_path("^", anything),
]


def wsgi_handler(engine: Engine) -> WSGIHandler:
    """The project as it runs on the host of `engine`."""
    use(engine)
    return WSGIHandler()


def asgi_handler(engine: Engine) -> ASGIHandler:
    use(engine)
    return ASGIHandler()


class Telling:
    """A middleware outside of ours that tells who it was, when the page is made."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        response = self.get_response(request)
        response["X-Seen"] = f"{request.session.get('k')} {request.user}"
        return response


class Looking:
    """A middleware between ours and the view that needs the session."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        request.session.get("k")
        return self.get_response(request)
