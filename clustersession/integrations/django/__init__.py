"""Django, in two settings:

SESSION_ENGINE = "clustersession.integrations.django"
MIDDLEWARE = [..., "clustersession.integrations.django.SessionMiddleware", ...]  # in place of Django's own
"""

from __future__ import annotations

from .checks import check_settings
from .middleware import SessionMiddleware
from .store import SessionStore

__all__ = ["SessionMiddleware", "SessionStore", "check_settings"]
