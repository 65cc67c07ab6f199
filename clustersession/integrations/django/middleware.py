"""Django's session middleware over the cluster: no thread for async, and the save before the response starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse, parse_cookie
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from ...errors import LateWrite, SessionUnavailable
from ...middleware.old_side import OLD, Shadowed, is_kept
from ...runtime.engine import Engine
from ...runtime.headers import SessionHeaders, is_plain
from ...runtime.pipeline import Visit
from .adoption import sessions_of_before
from .errors import error_response
from .responses import add, save_at_end, streams
from .source import engine_source, is_for_tests
from .store import EXPIRY, DjangoSession, SessionStore

R = TypeVar("R", bound=HttpResponseBase)

OWN: Final = "_clustersession"  # the request's attribute with the store that its cookie named
SPOILT: Final = (400, 500)  # what Django answers when an exception of ours was raised out of reach of `process_exception`
INTERRUPTED: Final = (
    "The request's session was deleted before the request completed. The user may have logged out in a concurrent request, "
    "for example."
)


class SessionMiddleware(DjangoSessionMiddleware):
    """In place of Django's own (it is a subclass, which Django's checks look for). Raises `ConfigError` when it is loaded."""

    async_mode: bool  # set by Django's mixin

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        MiddlewareMixin.__init__(self, get_response)
        self._source = engine_source()
        config = self._source.config
        self._before = sessions_of_before(config, get_response) if is_kept(config) else None
        self._always_off = config.mode == "off" and not config.mode_switch
        self.SessionStore: type[SessionStore] = _store_type()
        own = (SessionMiddleware.process_request, SessionMiddleware.process_response)
        self._extended = (type(self).process_request, type(self).process_response) != own

    def __call__(self, request: HttpRequest) -> Any:
        if self._before is not None:
            if self._always_off:
                return self._before(request)
            return self._with_before(request, self._before)
        return self._ours(request)

    def _ours(self, request: HttpRequest) -> Any:
        if self.async_mode:  # what a subclass adds may block: then as Django has it, in a thread
            return self.__acall__(request) if self._extended else self._acall(request)
        answer = self.process_request(request)
        response = self.get_response(request) if answer is None else answer
        return self.process_response(request, response)  # type: ignore[arg-type]

    def _with_before(self, request: HttpRequest, before: Callable[[HttpRequest], Any]) -> Any:
        """The request is for one of the two sides."""
        if self.async_mode:
            return self._awith_before(request, before)
        engine, fields = self._source(), _fields(request)
        mode = engine.mode_of(fields)
        if mode not in OLD:
            return self._ours(request)
        if mode == "off":
            return before(request)
        shadowed = Shadowed(engine, fields)
        shadowed.before()
        response = before(request)
        _note(shadowed, response)
        shadowed.after()
        return response

    async def _awith_before(self, request: HttpRequest, before: Callable[[HttpRequest], Any]) -> Any:
        engine, fields = await self._source.opened(), _fields(request)
        mode = engine.mode_of(fields)
        if mode not in OLD:
            return await self._ours(request)
        if mode == "off":
            return await before(request)
        shadowed = Shadowed(engine, fields)
        await shadowed.abefore()
        response = await before(request)
        _note(shadowed, response)
        await shadowed.aafter()
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        source = self._source
        engine = source() if source.is_open else await source.opened()
        visit = self._begun(engine, request)
        if not visit.load_here():
            await engine.asynchronous.run(visit.load(), visit.budget)
        get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = self.get_response  # type: ignore[assignment]
        response = await get_response(request)
        store = request.session
        if store is not getattr(request, OWN):
            return await _asaved_as_by_django(engine, request, response)
        try:
            if _prepared(visit, store, response) and visit.pending(write=response.status_code < 500):
                await engine.asynchronous.complete(visit.carry_out(), visit.budget)
        except (SessionUnavailable, LateWrite) as error:
            return _instead(visit, response, error)
        return _finished(engine, request, store, response)

    def process_request(self, request: HttpRequest) -> HttpResponse | None:  # type: ignore[override]
        """Puts the session into the request. It loads when somebody looks at it."""
        engine = self._source()
        visit = self._begun(engine, request)
        if self.async_mode and not visit.load_here():
            engine.blocking.run(visit.load(), visit.budget)
        return None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Saves the session and adds its headers."""
        engine, store = self._source(), request.session
        if store is not getattr(request, OWN, None) or not store.in_request:
            return _saved_as_by_django(engine, request, response)
        visit = store.visit
        try:
            if _prepared(visit, store, response) and visit.pending(write=response.status_code < 500):
                engine.blocking.run(visit.carry_out(), visit.budget)
        except (SessionUnavailable, LateWrite) as error:
            return _instead(visit, response, error)
        return _finished(engine, request, store, response)  # type: ignore[return-value]

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A view that needed a session that cannot be reached."""
        if isinstance(error, SessionUnavailable | LateWrite):
            return error_response(error, SessionHeaders(vary=True))
        return None

    def _begun(self, engine: Engine, request: HttpRequest) -> Visit:
        cookie = request.META.get("HTTP_COOKIE")
        fields: tuple[str, ...] = (cookie,) if cookie else ()
        by_hand = request.__dict__.get("COOKIES")  # there only if somebody has looked, and perhaps changed it
        if by_hand:
            fields = _changed_by_hand(engine, cookie or "", by_hand) or fields
        visit = engine.visit(fields, blocking=not self.async_mode, session_type=DjangoSession)
        visit.origin = request.META
        request.session = store = self.SessionStore.of_request(engine, visit)
        setattr(request, OWN, store)
        return visit


def _fields(request: HttpRequest) -> tuple[str, ...]:
    cookie = request.META.get("HTTP_COOKIE")
    return (cookie,) if cookie else ()


def _note(shadowed: Shadowed, response: HttpResponseBase) -> None:
    for morsel in response.cookies.values():
        shadowed.note(morsel.OutputString())


def _store_type() -> type[SessionStore]:
    """A project may have an engine of its own that builds on ours; any other is what the system check is about."""
    chosen = getattr(import_module(settings.SESSION_ENGINE), "SessionStore", SessionStore)
    return chosen if issubclass(chosen, SessionStore) else SessionStore


def _changed_by_hand(engine: Engine, field: str, cookies: dict[str, str]) -> tuple[str, ...]:
    """The session's cookies that are not those the client has sent: other middlewares and tests make such requests."""
    sent = parse_cookie(field)
    ours = (name for name in engine.config.cookie.names if name in cookies)
    return tuple(f"{name}={cookies[name]}" for name in ours if cookies[name] != sent.get(name))


# --- before the response starts ------------------------------------------------------------------------------------------


def _prepared(visit: Visit, store: SessionStore, response: HttpResponseBase) -> bool:
    """Whether there may be something to save."""
    session = visit.session
    if settings.SESSION_SAVE_EVERY_REQUEST and response.status_code < 500:
        _look_every_time(visit, store)
    if not session.accessed or not session.loaded:
        return False
    visit.max_age_s, visit.life_key = store.cookie_age_s(), EXPIRY
    store.keep_for_own_age()
    return True


def _finished(engine: Engine, request: HttpRequest, store: SessionStore, response: HttpResponseBase) -> HttpResponseBase:
    """The response with the session's headers."""
    visit = store.visit
    if visit.unavailable and response.status_code in SPOILT and not visit.session.loaded:
        return _instead(visit, response, SessionUnavailable("no owner gave an answer"))
    add(response, visit.headers(lambda: is_plain(request.scheme or "http", request.META.get("HTTP_X_FORWARDED_PROTO"))))
    if streams(response):
        save_at_end(engine, visit, response)
    elif is_for_tests(engine):
        store.leave_request()
    else:
        visit.close()
    return response


def _instead(visit: Visit, response: HttpResponseBase, error: SessionUnavailable | LateWrite) -> HttpResponse:
    headers = visit.refusal_headers()
    visit.close()
    answer = error_response(error, headers)
    add(answer, headers)
    answer._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]
    return answer


def _look_every_time(visit: Visit, store: SessionStore) -> None:
    """SESSION_SAVE_EVERY_REQUEST: a session lives on, and its cookie too, whether the request has looked at it or not."""
    session = visit.session
    accessed = session.accessed
    try:
        exists = session.id is not None
    except SessionUnavailable:
        exists = False  # the app has not asked for it, so this is no reason to fail
    session.accessed = exists or accessed
    visit.reissue = visit.reissue or exists and store.cookie_age_s() is not None


# --- a session that the app has put into the request itself ---------------------------------------------------------------


def _saved_as_by_django(engine: Engine, request: HttpRequest, response: HttpResponse) -> HttpResponse:
    store = request.session
    if not isinstance(store, SessionStore):
        return response
    try:
        if _is_to_be_saved(store, response):
            store.save()
    except UpdateError:
        raise SessionInterrupted(INTERRUPTED) from None
    except SessionUnavailable as error:
        return error_response(error, SessionHeaders(vary=True))
    return _with_cookies(engine, request, store, response)


async def _asaved_as_by_django(engine: Engine, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    store = request.session
    if not isinstance(store, SessionStore):
        return response
    try:
        if _is_to_be_saved(store, response):
            await store.asave()
    except UpdateError:
        raise SessionInterrupted(INTERRUPTED) from None
    except SessionUnavailable as error:
        return error_response(error, SessionHeaders(vary=True))
    return _with_cookies(engine, request, store, response)


def _is_to_be_saved(store: SessionStore, response: HttpResponseBase) -> bool:
    return (store.modified or settings.SESSION_SAVE_EVERY_REQUEST) and response.status_code < 500 and not store.is_empty()


def _with_cookies(engine: Engine, request: HttpRequest, store: SessionStore, response: R) -> R:
    cookies = store.as_cookies() if _is_to_be_saved(store, response) else ()
    if not cookies and store.is_empty():
        cookies = tuple(engine.cookies.deleted(name) for name in engine.config.cookie.names if name in request.COOKIES)
    add(response, SessionHeaders(cookies, vary=store.accessed or bool(cookies)))
    return response
