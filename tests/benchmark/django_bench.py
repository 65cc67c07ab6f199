"""Django as `pipeline` measures it: no session, signed cookies, and ours, each as a handler of its own."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings

from clustersession.runtime.engine import Engine

settings.configure(
    SECRET_KEY="only for measuring",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    INSTALLED_APPS=[],
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from clustersession.integrations.django.source import use


def begin(request: HttpRequest) -> HttpResponse:
    from tests.benchmark.pipeline import begin as fill

    fill(request.session)
    return HttpResponse("ok")


def read(request: HttpRequest) -> HttpResponse:
    if not hasattr(request, "session"):
        return HttpResponse("ok")
    return HttpResponse(f"{request.session['_user_id']} {request.session['cart:item7']}")


urlpatterns = [path("begin", begin), path("read", read)]


def apps(engine: Engine) -> dict[str, Any]:
    found = {"none": WSGIHandler()}
    with override_settings(
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ):
        found["signed cookie"] = WSGIHandler()
    use(engine)
    with override_settings(
        SESSION_ENGINE="clustersession.integrations.django",
        MIDDLEWARE=["clustersession.integrations.django.SessionMiddleware"],
    ):
        found["clustersession"] = WSGIHandler()
    return found
