"""The shop in Django, in one file: `gunicorn demo_app.shop.django_app:application`."""

from __future__ import annotations

import os
from collections.abc import Callable

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from .core import BadForm, as_json, log_in, parse_form, set_quantity, view, wants_json
from .page import render

settings.configure(
    SECRET_KEY=os.environ.get("CLUSTERSESSION_SECRET", "only for tests of the demo"),  # the demo signs nothing with it
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="clustersession.integrations.django",  # one of the two lines that clustersession needs
    MIDDLEWARE=["clustersession.integrations.django.SessionMiddleware"],  # the other one
)
django.setup()


@require_GET
def shop(request: HttpRequest) -> HttpResponse:
    return _shown(request) if _program(request) else HttpResponse(render(view(request.session)))


def _form(action: Callable[[HttpRequest], None]) -> Callable[[HttpRequest], HttpResponse]:
    def post(request: HttpRequest) -> HttpResponse:
        try:
            action(request)
        except BadForm as error:
            return HttpResponse(f"{error}\n", status=400, content_type="text/plain")
        return _shown(request) if _program(request) else HttpResponseRedirect("/", status=303)

    return require_POST(post)


@_form
def login(request: HttpRequest) -> None:
    log_in(request.session, parse_form(request.body))


@_form
def cart(request: HttpRequest) -> None:
    set_quantity(request.session, parse_form(request.body))


@_form
def logout(request: HttpRequest) -> None:
    request.session.flush()  # Django's own word for it


@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


def _program(request: HttpRequest) -> bool:
    return wants_json(request.headers.get("Accept"))


def _shown(request: HttpRequest) -> HttpResponse:
    return JsonResponse(as_json(view(request.session)))


urlpatterns = [
    path("", shop),
    path("login", login),
    path("cart", cart),
    path("logout", logout),
    path("healthz", healthz),
]
application = get_wsgi_application()
