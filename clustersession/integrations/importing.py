"""What `clustersession import` is told by names: the app that takes old sessions over, and the source that lists them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from ..errors import ConfigError
from ..middleware import asgi, wsgi
from ..middleware.assembly import EngineSource, OldSessions
from ..runtime.engine import Engine
from ..runtime.importing import Fate, Imported, Importer, importable, no_list
from ..sources.source import ListedSource, Source

__all__ = ["Fate", "Imported", "Importer", "importer"]

APP: Final = "--app"
FROM: Final = "--from"
WRAPPED: Final = ("app", "wsgi_app", "application", "asgi_handler")  # where middlewares keep what they wrap
DEPTH_MAX: Final = 50


def importer(app: str | None, source: str | None, *, django: bool) -> Importer:
    """For the app and the source of these names, `module:attribute`; None for what was not given. `django`: without an app it
    is the Django project of DJANGO_SETTINGS_MODULE. Opens the host's store. Raises `ConfigError`."""
    chosen = None if source is None else _source(source)
    listing = None if chosen is None else _listed(chosen)
    if app is not None:
        engine = _engine_of(named(APP, app), app)
    elif django:
        engine = _django_engine()
    elif chosen is not None:
        engine = _engine_for(chosen)
    else:
        raise ConfigError(APP, "neither the app nor a source was named", "Give --app module:app, or --from module:source.")
    return Importer(engine, listing or _listed(importable(engine).source))


def named(option: str, text: str) -> Any:
    """What `module:attribute` names, or returns if `()` follows. Raises `ConfigError`."""
    module, _, path = text.partition(":")
    if not module or not path:
        raise ConfigError(option, f"{text!r} is no module:attribute", "Name it as in shop.app:app.")
    try:
        found: Any = import_module(module)
        for part in path.removesuffix("()").split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        remedy = "Run this in the directory and the environment that the app runs in."
        raise ConfigError(option, f"{text!r} cannot be loaded ({error})", remedy) from error
    return _called(option, text, found) if path.endswith("()") else found


def _called(option: str, text: str, function: Any) -> Any:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ConfigError(option, f"{text!r} cannot be called without arguments ({error})", "Name a function that can.") from None
    return function()


def _source(text: str) -> Source:
    found = named(FROM, text)
    made = _called(FROM, text, found) if not _is_source(found) and callable(found) else found
    if not _is_source(made):
        remedy = "Name what the app passes as `adopt=`, or a function that makes it."
        raise ConfigError(FROM, f"{text!r} is no source, but a {type(made).__name__}", remedy)
    source: Source = made
    return source


def _is_source(value: object) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("read", "cookie_name", "keyless"))


def _listed(source: Source) -> ListedSource:
    """The source that can list these sessions; the app's own where that asks its library. Raises `ConfigError`."""
    listing: Callable[[], ListedSource] | None = getattr(source, "listing", None)
    if listing is not None:
        return listing()
    if isinstance(source, ListedSource):
        return source
    if source.keyless:
        raise no_list(source)
    remedy = "Give it a method `pages(cursor)`, or let --from name a source that lists the same sessions."
    raise ConfigError(FROM, f"the source {source.name!r} cannot list its sessions", remedy)


# --- the app's engine -------------------------------------------------------------------------------------------------------


def _engine_for(source: Source) -> Engine:
    """That of an app which is not named. Its lifetimes must be known, since sessions would end by those of no app."""
    engine = EngineSource(framework="import", old=OldSessions(source))
    if not engine.config.lifetimes_set:
        problem = "how long the app's sessions live is not known"
        raise ConfigError(APP, problem, "Name the app, or set CLUSTERSESSION_IDLE_TIMEOUT and CLUSTERSESSION_ABSOLUTE_TIMEOUT.")
    return engine()


def _engine_of(app: Any, text: str) -> Engine:
    """That of our middleware or extension in this app."""
    if (flask := sys.modules.get("flask")) is not None and isinstance(app, flask.Flask):
        sessions = app.extensions.get("clustersession")
        if sessions is not None:
            return sessions.engine()  # type: ignore[no-any-return]
    handlers = sys.modules.get("django.core.handlers.base")
    if handlers is not None and isinstance(app, handlers.BaseHandler):
        return _django_engine()
    if callable(build := getattr(app, "build_middleware_stack", None)):  # Starlette, FastAPI
        app = build()
    for _ in range(DEPTH_MAX):
        if isinstance(app, wsgi.SessionMiddleware | asgi.SessionMiddleware):
            return app.engine()
        app = next((inner for name in WRAPPED if (inner := getattr(app, name, None)) is not None), None)
        if app is None:
            break
    raise ConfigError(APP, f"there is no session middleware of ours in {text!r}", "Name the app as the server is given it.")


def _django_engine() -> Engine:
    import django

    from .django.source import engine_source

    django.setup(set_prefix=False)
    return engine_source()()
