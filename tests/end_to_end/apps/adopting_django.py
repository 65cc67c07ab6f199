"""The shop on Django's cached_db sessions (SQLite and Redis), with clustersession beside it, in the mode that is set."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from .adopting import PATHS, visit

settings.configure(
    SECRET_KEY="not the cluster's",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.sessions"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["OLD_DATABASE"],
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
        }
    },
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{os.environ['OLD_REDIS_PORT']}",
        }
    },
    SESSION_ENGINE="clustersession.integrations.django",
    CLUSTERSESSION_ADOPT_ENGINE="django.contrib.sessions.backends.cached_db",
    MIDDLEWARE=["clustersession.integrations.django.SessionMiddleware"],
)
django.setup(set_prefix=False)


def page(request: HttpRequest) -> JsonResponse:
    return JsonResponse(visit(request.session, request.path, request.GET.dict()))


urlpatterns = [path(each, page) for each in PATHS]
app = get_wsgi_application()


def make_tables() -> None:
    call_command("migrate", "sessions", verbosity=0)


if __name__ == "__main__":
    make_tables()
