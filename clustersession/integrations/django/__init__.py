"""Django, in two settings:

SESSION_ENGINE = "clustersession.integrations.django"
MIDDLEWARE = [..., "clustersession.integrations.django.SessionMiddleware", ...]  # in place of Django's own
"""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest

from .checks import check_settings
from .middleware import SessionMiddleware
from .store import SessionStore

__all__ = ["SessionMiddleware", "SessionStore", "check_settings", "session_of"]


def session_of(request: HttpRequest) -> SessionStore:
    """`request.session`, for type checkers that should know `placement` and `inner` too."""
    return cast(SessionStore, request.session)
