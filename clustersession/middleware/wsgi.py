"""WSGI (PEP 3333): the session of a request under `environ["clustersession.session"]`, saved before its response starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..errors import LateWrite, SessionUnavailable
from ..runtime.headers import NOTHING, Header, SessionHeaders, joined
from ..runtime.pipeline import Visit
from ..runtime.refusal import refusal
from .assembly import EngineSource, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ..runtime.engine import Engine

SESSION: Final = "clustersession.session"

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
_Write: TypeAlias = Callable[[bytes], object]


class SessionMiddleware:
    """Wraps a WSGI app. `config` None: from the environment. Raises `ConfigError` here and now for settings that are wrong.

    `environ["clustersession.session"]` is a `Session`, loaded when it is first looked at. Saved when the app has called
    `start_response` and returned or yielded its first item; what a body changes while it is being sent is saved at its end.
    An app that lets `SessionUnavailable` and `LateWrite` pass is answered for: 503 and 409, to be repeated.
    """

    def __init__(self, app: WSGIApplication, config: Settings = None) -> None:
        self.app = app
        self._engine = EngineSource(config, framework="WSGI")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        engine: Engine = self._engine()
        cookie = environ.get("HTTP_COOKIE")
        visit = engine.visit((cookie,) if cookie else (), blocking=True)
        environ[SESSION] = visit.session
        response = _Response(engine, visit, start_response)
        try:
            body = self.app(environ, response.start)
            if type(body) in (list, tuple) or isinstance(body, environ.get("wsgi.file_wrapper", ())):
                response.commit()  # nothing of the app runs while such a body is sent
                visit.close()
                return body
            if response.started:
                response.commit()
            return _Body(body, response)
        except (SessionUnavailable, LateWrite) as error:
            return response.replaced(error)


class _Response:
    """Holds the app's `start_response` back until its session is saved."""

    def __init__(self, engine: Engine, visit: Visit, start_response: StartResponse) -> None:
        self._engine, self._visit, self._start_response = engine, visit, start_response
        self._head: tuple[str, list[Header], _ExcInfo | None] | None = None
        self._session = NOTHING
        self._write: _Write | None = None  # the server's, once its start_response was called

    @property
    def started(self) -> bool:
        return self._head is not None

    def start(self, status: str, headers: list[Header], exc_info: _ExcInfo | None = None) -> _Write:
        """The app's `start_response`."""
        if self._head is not None and exc_info is None:
            raise AssertionError("start_response was called twice, the second time without exc_info")
        self._head = (status, headers, exc_info)
        if self._write is not None:  # saved and started already: the server decides whether it can still be replaced
            self._begin(self._session)
        return self._written

    def _written(self, data: bytes) -> object:
        self.commit()
        assert self._write is not None
        return self._write(data)

    def commit(self) -> None:
        """Save the session and start the server's response, once."""
        if self._write is not None or self._head is None:
            return
        visit = self._visit
        if visit.session.accessed:
            self._engine.blocking.run(visit.save(), visit.budget)
        self._session = visit.headers()
        self._begin(self._session)

    def _begin(self, session: SessionHeaders) -> None:
        assert self._head is not None
        status, headers, exc_info = self._head
        if session.vary:
            headers = joined(headers, session)
        self._write = self._start_response(status, headers, exc_info) if exc_info else self._start_response(status, headers)

    def finish(self) -> None:
        """Save what has changed since the response started."""
        visit = self._visit
        self.commit()
        if visit.session.accessed and not visit.session.closed:
            visit.renew_budget()
            self._engine.blocking.run(visit.save(), visit.budget)
        visit.close()

    def replaced(self, error: SessionUnavailable | LateWrite) -> list[bytes]:
        """The answer in place of the app's, if nothing has been sent. Raises `error` if something has."""
        if self._write is not None:
            raise error
        answer = refusal(error, self._visit.refusal_headers())
        self._visit.close()
        self._write = self._start_response(f"{answer.status} {answer.phrase}", answer.headers)
        return [answer.body]


class _Body:
    """The app's iterable, with the save before its first item where the response has not been started before it."""

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._source, self._response = body, response
        self._items: Iterator[bytes] | None = None
        self._instead: list[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return self._next()
        except (SessionUnavailable, LateWrite) as error:
            self._instead = self._response.replaced(error)
            return self._instead.pop()

    def _next(self) -> bytes:
        if self._instead is not None:
            raise StopIteration
        if self._items is None:
            self._items = iter(self._source)
        try:
            item = next(self._items)
        except StopIteration:
            self._response.finish()
            raise
        self._response.commit()
        return item

    def close(self) -> None:
        close: Any = getattr(self._source, "close", None)
        try:
            if close is not None:
                close()
        finally:
            if self._instead is None:
                self._response.finish()
