"""WSGI (PEP 3333): the session of a request under `environ["clustersession.session"]`, saved before its response starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import ClusterSessionError, LateWrite, SessionUnavailable
from ..runtime.giving_up import UNHARMED, left_to_store, not_stored
from ..runtime.headers import NOTHING, Header, SessionHeaders, is_plain, joined
from ..runtime.pipeline import Visit
from ..runtime.refusal import refusal
from ..sources.source import Source
from .assembly import EngineSource, OldSessions, Settings
from .old_side import OLD, OldSide, Shadowed

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

    `adopt`: sessions of this source are taken over when their cookies come, until CLUSTERSESSION_ADOPT_UNTIL. `before` makes
    the session middleware that the app had; it decides where CLUSTERSESSION_MODE is off or shadow.
    """

    def __init__(
        self,
        app: WSGIApplication,
        config: Settings = None,
        *,
        adopt: Source | None = None,
        before: Callable[[WSGIApplication], WSGIApplication] | None = None,
    ) -> None:
        self.app = app
        self._engine = EngineSource(config, framework="WSGI", old=None if adopt is None else OldSessions(adopt))
        self._old = OldSide.of(self._engine.config, app, before, adopts=adopt is not None)

    def engine(self) -> Engine:
        """Opened now if there was no request yet in this process; that may take a moment."""
        return self._engine()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        old = self._old
        if old is not None and old.always_off:
            return old.app(environ, start_response)
        engine: Engine = self._engine()
        cookie = environ.get("HTTP_COOKIE")
        fields = (cookie,) if cookie else ()
        if old is not None and (mode := engine.mode_of(fields)) in OLD:
            if mode == "off":
                return old.app(environ, start_response)
            return _shadowed(old.app, Shadowed(engine, fields), environ, start_response)
        visit = engine.visit(fields, blocking=True)
        visit.origin = environ
        environ[SESSION] = visit.session
        response = _Response(engine, visit, environ, start_response)
        body: Iterable[bytes] = ()
        try:
            body = response.of(self.app)
            complete = _is_complete(body, environ)
            if response.started and complete:
                response.save_rest()
            response.commit()
        except (SessionUnavailable, LateWrite) as error:
            _close(body)
            return response.replaced(error)
        except BaseException as error:
            _close(body)
            response.give_up(error)
            visit.close()
            raise
        if complete:
            visit.close()
            return body
        return _Body(body, response)


class _Response:
    """Holds the app's `start_response` back until its session is saved."""

    def __init__(self, engine: Engine, visit: Visit, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._engine, self._visit, self._environ, self._start_response = engine, visit, environ, start_response
        self._head: tuple[str, list[Header], _ExcInfo | None] | None = None
        self._session = NOTHING
        self._write: _Write | None = None  # the server's, once its start_response was called

    def of(self, app: WSGIApplication) -> Iterable[bytes]:
        """The app's body."""
        try:
            return app(self._environ, self.start)
        except (SessionUnavailable, LateWrite) as error:
            self.give_up(error)
            raise

    def start(self, status: str, headers: list[Header], exc_info: _ExcInfo | None = None) -> _Write:
        """The app's `start_response`."""
        if self._head is not None and exc_info is None:
            raise AssertionError("start_response was called twice, the second time without exc_info")
        self._head = (status, headers, exc_info)
        if self._write is not None:  # saved and started already: the server decides whether it can still be replaced
            self._begin(self._session)
        return self._written

    @property
    def started(self) -> bool:
        """Whether the response has started."""
        return self._write is not None

    def _written(self, data: bytes) -> object:
        self.commit()
        assert self._write is not None
        return self._write(data)

    def commit(self) -> None:
        """Save the session and start the server's response, once."""
        if self._write is not None or self._head is None:
            return
        visit = self._visit
        visit.check_answer(int(self._head[0][:3]))
        if visit.pending():
            self._engine.blocking.run(visit.carry_out(), visit.budget)
        self._session = visit.headers(self._is_plain)
        self._begin(self._session)

    def _is_plain(self) -> bool:
        return is_plain(self._environ.get("wsgi.url_scheme", "http"), self._environ.get("HTTP_X_FORWARDED_PROTO"))

    def _begin(self, session: SessionHeaders) -> None:
        assert self._head is not None
        status, headers, exc_info = self._head
        self._head = (status, headers, None)  # an exception that is kept keeps its frames
        if session.vary:
            headers = joined(headers, session)
        self._write = self._start_response(status, headers, exc_info) if exc_info else self._start_response(status, headers)

    def save_rest(self) -> None:
        """Save what has changed since the response started."""
        visit = self._visit
        if self._write is not None and not visit.session.closed and visit.pending():
            visit.start()
            self._engine.blocking.run(visit.carry_out(), visit.budget)

    def give_up(self, error: BaseException) -> None:
        """The app has failed: store what must be stored all the same."""
        visit, started = self._visit, self.started
        try:
            if not isinstance(error, UNHARMED) and left_to_store(visit, started=started):
                self._engine.blocking.run(visit.carry_out(), visit.budget)
        except ClusterSessionError as problem:
            not_stored(error, problem, started=started)

    def end(self) -> None:
        """The body has been sent, or given up."""
        try:
            self.save_rest()
        finally:
            self._visit.close()

    def replaced(self, error: SessionUnavailable | LateWrite) -> list[bytes]:
        """The answer in place of the app's, if nothing has been sent. Raises `error` if something has."""
        if self._write is not None:
            raise error
        answer = refusal(error, self._visit.refusal_headers())
        self._visit.close()
        self._write = self._start_response(f"{answer.status} {answer.phrase}", answer.headers)
        return [answer.body]


class _Body:
    """The app's iterable, with a save before its first item if the app starts its response only then, and one at its end."""

    __slots__ = ("_instead", "_items", "_response", "_source")

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._source, self._response = body, response
        self._items: Iterator[bytes] | None = None
        self._instead: list[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._instead is not None:
            raise StopIteration
        try:
            return self._next()
        except (SessionUnavailable, LateWrite) as error:
            self._instead = self._response.replaced(error)
            return self._instead[0]

    def _next(self) -> bytes:
        if self._items is None:
            self._items = iter(self._source)
        try:
            item = next(self._items)
        except StopIteration:
            self._response.commit()
            self._response.save_rest()
            raise
        except BaseException as error:
            if not self._response.started:  # what has changed since a start is saved when the body is closed
                self._response.give_up(error)
            raise
        self._response.commit()
        return item

    def close(self) -> None:
        try:
            _close(self._source)
        finally:
            self._response.end()


def _is_complete(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether nothing of the app runs while it is sent, so that the server may have it as it is."""
    wrapper = environ.get("wsgi.file_wrapper")
    return type(body) in (list, tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _close(body: Iterable[bytes]) -> None:
    close: Callable[[], object] | None = getattr(body, "close", None)
    if close is not None:
        close()


def _shadowed(
    app: WSGIApplication, shadowed: Shadowed, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """The app of before, with a copy of its session in the cluster when the body has been sent."""

    def start(status: str, headers: list[Header], exc_info: _ExcInfo | None = None) -> _Write:
        for name, value in headers:
            if name.lower() == "set-cookie":
                shadowed.note(value)
        return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

    shadowed.before()
    return _Copied(app(environ, start), shadowed)


class _Copied:
    """The body of an app of before."""

    def __init__(self, body: Iterable[bytes], shadowed: Shadowed) -> None:
        self._body, self._shadowed = body, shadowed

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            self._shadowed.after()
