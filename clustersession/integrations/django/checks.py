"""Django's system checks: whether the two settings fit together."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

ENGINE: Final = "clustersession.integrations.django"
MIDDLEWARE: Final = "clustersession.integrations.django.SessionMiddleware"
DJANGOS_OWN: Final = "django.contrib.sessions.middleware.SessionMiddleware"


@register("sessions")
def check_settings(app_configs: Sequence[Any] | None = None, **options: Any) -> list[CheckMessage]:
    """Errors for Django's own session middleware beside ours, for ours missing, and for another engine."""
    installed = [each for each in settings.MIDDLEWARE if each.startswith(ENGINE)]
    found: list[CheckMessage] = []
    if DJANGOS_OWN in settings.MIDDLEWARE:
        hint = "Remove it." if installed else f"Put {MIDDLEWARE!r} in its place."
        found.append(
            Error(f"MIDDLEWARE contains {DJANGOS_OWN!r}, which cannot work with this engine.", hint, id="clustersession.E001")
        )
    elif not installed:
        found.append(Error("MIDDLEWARE does not contain clustersession's.", f"Add {MIDDLEWARE!r}.", id="clustersession.E002"))
    if not _builds_on_ours(settings.SESSION_ENGINE):
        problem = f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}, but MIDDLEWARE contains clustersession's."
        found.append(Error(problem, f"Set SESSION_ENGINE = {ENGINE!r}.", id="clustersession.E003"))
    return found


def _builds_on_ours(engine: str) -> bool:
    """Whether it is ours, or a project's own whose `SessionStore` is one of ours."""
    from .store import SessionStore

    try:
        chosen = getattr(import_module(engine), "SessionStore", None)
    except ImportError:
        return False
    return isinstance(chosen, type) and issubclass(chosen, SessionStore)
