"""Django, in two settings:

SESSION_ENGINE = "clustersession.integrations.django"
MIDDLEWARE = [..., "clustersession.integrations.django.SessionMiddleware", ...]  # in place of Django's own

and a third one with which `manage.py check` looks at these: INSTALLED_APPS = [..., "clustersession.integrations.django"]
"""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest

from ...runtime.users import Users
from .checks import check_settings
from .middleware import SessionMiddleware
from .source import engine_source
from .store import SessionStore

__all__ = ["SessionMiddleware", "SessionStore", "check_settings", "session_of", "users"]


def session_of(request: HttpRequest) -> SessionStore:
    """`request.session`, for type checkers that should know `placement` and `inner` too."""
    return cast(SessionStore, request.session)


def users() -> Users:
    """All sessions of a user, outside of any request too: signals, commands, tasks on a host of the cluster."""
    return Users(engine_source())
