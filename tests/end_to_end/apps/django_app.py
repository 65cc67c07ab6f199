"""The test app in Django, whole in one module: settings, views, and both of Django's entries."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from .actions import act

settings.configure(
    SECRET_KEY="only-for-tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="clustersession.integrations.django",
    MIDDLEWARE=["clustersession.integrations.django.SessionMiddleware"],
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"said": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["said"]},
    },
)
django.setup(set_prefix=False)


def page(request: HttpRequest) -> JsonResponse:
    session = request.session
    return JsonResponse(act(session, session.placement, session.flush, request.path, request.GET.dict()))  # type: ignore[attr-defined]


async def apage(request: HttpRequest) -> JsonResponse:
    return page(request)


urlpatterns = [path(name, page) for name in ("look", "set", "end")] + [
    path(f"async/{name}", apage) for name in ("look", "set", "end")
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
