"""Django's session middleware over the cluster: no thread for async, and the save before the response starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from http.cookies import Morsel
from typing import Any

from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from ...errors import LateWrite, SessionUnavailable
from ...runtime.engine import Engine
from ...runtime.headers import SessionHeaders, never_stored, vary_on_cookie
from ...runtime.pipeline import Visit
from .errors import error_response
from .source import engine_source
from .store import EXPIRY, SessionStore, _Inner

SPOILT = (400, 500)  # what Django answers when an exception of ours was raised out of reach of `process_exception`


class SessionMiddleware(DjangoSessionMiddleware):
    """In place of Django's own (it is a subclass, which Django's checks look for). Raises `ConfigError` when it is loaded."""

    async_mode: bool  # set by Django's mixin

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        MiddlewareMixin.__init__(self, get_response)
        self._source = engine_source()

    def __call__(self, request: HttpRequest) -> Any:
        if self.async_mode:
            return self._acall(request)
        engine = self._source()
        visit = self._begin(engine, request)
        return self._end(engine, visit, request, self.get_response(request))  # type: ignore[arg-type]

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        source = self._source
        engine = source() if source.is_open else await source.opened()
        visit = self._begin(engine, request)
        if not visit.load_here():
            await engine.asynchronous.run(visit.load(), visit.budget)
        get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = self.get_response  # type: ignore[assignment]
        return await self._aend(engine, visit, request, await get_response(request))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A view that needed a session that cannot be reached."""
        if isinstance(error, SessionUnavailable | LateWrite):
            return error_response(error, SessionHeaders(vary=True))
        return None

    def _begin(self, engine: Engine, request: HttpRequest) -> Visit:
        cookie = request.META.get("HTTP_COOKIE")
        visit = engine.visit((cookie,) if cookie else (), blocking=not self.async_mode, session_type=_Inner)
        request.session = SessionStore.of_request(engine, visit)
        return visit

    # --- the response ------------------------------------------------------------------------------------------------------

    def _end(self, engine: Engine, visit: Visit, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        try:
            if _prepared(visit, request) and visit.pending(write=response.status_code < 500):
                engine.blocking.run(visit.carry_out(), visit.budget)
        except (SessionUnavailable, LateWrite) as error:
            return _instead(visit, response, error)
        response = _started(visit, response)
        if _streams(response):
            response.streaming_content = _streamed(engine, visit, response.streaming_content)  # type: ignore[attr-defined]
        else:
            visit.close()
        return response

    async def _aend(self, engine: Engine, visit: Visit, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        try:
            if _prepared(visit, request) and visit.pending(write=response.status_code < 500):
                await engine.asynchronous.run(visit.carry_out(), visit.budget)
        except (SessionUnavailable, LateWrite) as error:
            return _instead(visit, response, error)
        response = _started(visit, response)
        if _streams(response):
            stream = _astreamed if response.is_async else _streamed  # type: ignore[attr-defined]
            response.streaming_content = stream(engine, visit, response.streaming_content)  # type: ignore[attr-defined]
        else:
            visit.close()
        return response


def _prepared(visit: Visit, request: HttpRequest) -> bool:
    """Whether there may be something to save."""
    session = visit.session
    if not session.accessed or not session.loaded:
        return False
    store = request.session
    if isinstance(store, SessionStore):
        visit.max_age_s, visit.life_key = store.cookie_age_s(), EXPIRY
    return True


def _started(visit: Visit, response: HttpResponseBase) -> HttpResponseBase:
    """The response with the session's headers."""
    if visit.unavailable and response.status_code in SPOILT and not visit.session.loaded:
        return _instead(visit, response, SessionUnavailable("no owner gave an answer"))
    _add(response, visit.headers())
    return response


def _instead(visit: Visit, response: HttpResponseBase, error: SessionUnavailable | LateWrite) -> HttpResponse:
    headers = visit.refusal_headers()
    visit.close()
    answer = error_response(error, headers)
    _add(answer, headers)
    answer._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]
    return answer


def _add(response: HttpResponseBase, session: SessionHeaders) -> None:
    if session.vary:
        response.headers["Vary"] = vary_on_cookie(response.headers.get("Vary"))
    if session.no_store:
        response.headers["Cache-Control"] = never_stored(response.headers.get("Cache-Control"))
    for text in session.cookies:
        cookie = _Verbatim(text)
        response.cookies[cookie.key] = cookie


class _Verbatim(Morsel[str]):
    """A Set-Cookie value as it is: `http.cookies` does not know every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        pair, *attributes = text.split("; ")
        name, _, value = pair.partition("=")
        self.set(name, value, value)
        for attribute in attributes:
            word, _, given = attribute.partition("=")
            if self.isReservedKey(word):
                self[word] = given or True  # as Django sets flags

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802
        return self._text


# --- what changes while the body is being sent ---------------------------------------------------------------------------


def _streams(response: HttpResponseBase) -> bool:
    return isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse)


def _streamed(engine: Engine, visit: Visit, content: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from content
    finally:
        visit.start()
        try:
            engine.blocking.run(visit.save(), visit.budget)
        finally:
            visit.close()


async def _astreamed(engine: Engine, visit: Visit, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for part in content:
            yield part
    finally:
        visit.start()
        try:
            await engine.asynchronous.run(visit.save(), visit.budget)
        finally:
            visit.close()
