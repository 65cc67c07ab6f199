"""Flask: `ClusterSession(app)` puts the cluster's session behind `flask.session`."""

from __future__ import annotations

from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast

from flask import Flask, Request, Response, current_app, has_request_context
from flask import request as flask_request
from flask import session as flask_session
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import Headers
from werkzeug.exceptions import Conflict, HTTPException, ServiceUnavailable

from ..config import Config
from ..errors import ConflictingWrite, LateWrite, SessionLocked, SessionUnavailable
from ..middleware.assembly import EngineSource, OldSessions, Settings
from ..middleware.old_side import OLD, Advice, Shadowed, check_old, is_kept
from ..runtime.headers import SessionHeaders, is_plain, joined
from ..runtime.pipeline import Visit
from ..runtime.session import RequestSession
from ..runtime.users import Users
from ..sources.source import Source
from .app_settings import AppCookie, environment, samesite, with_app
from .flask_adoption import PERMANENT, InterfaceSource

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..runtime.engine import Engine

EXTENSION: Final = "clustersession"
SHADOWED: Final = "clustersession.shadowed"
CHANGED_MEANWHILE: Final = "The session was changed by another request meanwhile. Please repeat the request."
_ADVICE: Final = Advice(
    before="Set the app up with `ClusterSession(app)`, which knows the interface that the app had; or leave ours out.",
    adopt="Set the app up with `ClusterSession(app, adopt=True)`.",
)
_SETTINGS: Final = (
    "PERMANENT_SESSION_LIFETIME",
    "SESSION_REFRESH_EACH_REQUEST",
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_SECURE",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_PARTITIONED",
    "APPLICATION_ROOT",
)


class HttpSessionUnavailable(SessionUnavailable, ServiceUnavailable):
    """`SessionUnavailable` as Flask's error handlers know it: a 503 with Retry-After. Names no host to the client."""

    def __init__(self, error: SessionUnavailable) -> None:
        super().__init__(error.why, retry_after_s=error.retry_after_s)
        self.retry_after = error.retry_after_s
        self.description = "The session cannot be reached at the moment. Please repeat the request."


class RepeatAtOnce(Conflict):
    """A 409, with Retry-After 0."""

    def get_headers(self, environ: WSGIEnvironment | None = None, scope: Any = None) -> list[tuple[str, str]]:
        return [*super().get_headers(environ, scope), ("Retry-After", "0")]


class HttpLateWrite(LateWrite, RepeatAtOnce):
    """`LateWrite` as Flask's error handlers know it."""

    def __init__(self, error: LateWrite) -> None:
        super().__init__(error.reason)
        self.description = CHANGED_MEANWHILE


class HttpConflictingWrite(ConflictingWrite, RepeatAtOnce):
    """`ConflictingWrite` as Flask's error handlers know it."""

    def __init__(self, error: ConflictingWrite) -> None:
        super().__init__(error.key)
        self.description = CHANGED_MEANWHILE


class HttpSessionLocked(SessionLocked, RepeatAtOnce):
    """`SessionLocked` as Flask's error handlers know it."""

    description = CHANGED_MEANWHILE


class FlaskSession(RequestSession, SessionMixin):
    """The session as Flask's own attributes have it: `permanent`, `new`, `modified`, `accessed`. As in Flask, one that a
    request has emptied is removed."""

    __slots__ = ()

    ends_when_empty = True
    visit: Visit | None = None  # until the response starts

    @property
    def new(self) -> bool:  # type: ignore[override]
        return self.is_new

    @property
    def permanent(self) -> bool:
        if PERMANENT in self._values or PERMANENT in self._items:
            return bool(self.get(PERMANENT))
        self.accessed = True
        return False

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self[PERMANENT] = bool(value)

    @property
    def users(self) -> Users:
        """All sessions of a user: `users.sessions_of(...)`, `users.end_all(...)`."""
        return Users(lambda: self.engine, HttpSessionUnavailable)

    def lock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        try:
            super().lock(name, lease_s=lease_s, wait_s=wait_s)
        except SessionUnavailable as error:
            raise HttpSessionUnavailable(error) from None
        except SessionLocked as error:
            raise HttpSessionLocked(error.lock, wait_s) from None
        except LateWrite as error:
            raise HttpLateWrite(error) from None

    def refresh(self) -> None:
        try:
            super().refresh()
        except SessionUnavailable as error:
            raise HttpSessionUnavailable(error) from None

    def saved(self, changes: Any, handle: str | None) -> None:
        modified = self.modified
        super().saved(changes, handle)
        self._modified = modified  # Flask shows it also after the response, for tests

    if not TYPE_CHECKING:  # a wrong name is an error for type checkers

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except SessionUnavailable as error:
                raise HttpSessionUnavailable(error) from None


session: FlaskSession = cast("FlaskSession", flask_session)
"""`flask.session`, for type checkers that should know `end`, `rotate` and `id` too."""


class ClusterSession:
    """`ClusterSession(app)`, or `init_app` in an app factory. `config` None: from the environment.

    Of the app's own settings PERMANENT_SESSION_LIFETIME, SESSION_REFRESH_EACH_REQUEST and SESSION_COOKIE_* count where the
    environment says nothing else, also when they change later; SECRET_KEY is not used. Raises `ConfigError` at once for
    settings that are wrong.

    `adopt`: sessions of the interface that the app has had until now, or of the given source, are taken over when their
    cookies come, until CLUSTERSESSION_ADOPT_UNTIL. The app's SESSION_COOKIE_NAME is then that of the old cookie.
    """

    def __init__(self, app: Flask | None = None, config: Settings = None, *, adopt: bool | Source = False) -> None:
        self._config, self._adopt = config, adopt
        if app is not None:
            self.init_app(app)

    @staticmethod
    def users(app: Flask) -> Users:
        """All sessions of a user, outside of any request too: commands, tasks on a host of the cluster."""
        sessions: AppSessions = app.extensions[EXTENSION]
        return sessions.users

    def init_app(self, app: Flask) -> None:
        old = app.session_interface
        source = InterfaceSource(app, old) if self._adopt is True else self._adopt or None
        interface = ClusterSessionInterface(self._config, source, old)
        config = interface.sessions_of(app).config
        if config.mode != "off" or config.mode_switch:
            app.session_interface = interface


class AppSessions:
    """The engine of one app. Follows the app's settings, as Flask's own sessions do."""

    def __init__(self, app: Flask, config: Settings, source: Source | None = None) -> None:
        self._app = app
        self._base = environment("Flask", app.permanent_session_lifetime.total_seconds()) if config is None else None
        self._old = None if source is None else OldSessions(source, PERMANENT)
        self._source = EngineSource(config or self._base, framework="Flask", old=self._old)
        self.users = Users(self.engine, HttpSessionUnavailable)
        self.keeps_old = is_kept(self.config)
        self._settings = itemgetter(*(key for key in _SETTINGS if key in app.config))
        self._follow(self._settings(app.config))

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._source.config

    def engine(self) -> Engine:
        """Raises `ConfigError` if the app's settings have become wrong."""
        seen = self._settings(self._app.config)
        if seen != self._seen:
            self._follow(seen)
        return self._source()

    def store(self, visit: Visit) -> None:
        """Carry out what is pending. Raises what `Visit.carry_out` does."""
        self._source().blocking.run(visit.carry_out(), visit.budget)

    def _follow(self, seen: object) -> None:
        app = self._app
        lifetime = app.permanent_session_lifetime
        if self._base is not None:
            cookie = _cookie_of(app)
            if self._old is not None:
                cookie = cookie._replace(name=None)  # that is the old one's name
            config = with_app(self._base, lifetime.total_seconds(), cookie)
            if config != self._source.config:
                self._source = EngineSource(config, framework="Flask", old=self._old)
        self.permanent_s = max(lifetime // timedelta(seconds=1), 0)
        self.refreshes = bool(app.config["SESSION_REFRESH_EACH_REQUEST"])
        self._seen = seen


class ClusterSessionInterface(SessionInterface):
    """What Flask calls; `app.session_interface = ClusterSessionInterface()` does too. Opening does no IO: the session loads
    when the app first looks at it."""

    def __init__(self, config: Settings = None, source: Source | None = None, old: SessionInterface | None = None) -> None:
        """`old`: what decides in the modes `off` and `shadow`."""
        self._config, self._source, self._old = config, source, old

    def sessions_of(self, app: Flask) -> AppSessions:
        sessions = app.extensions[EXTENSION] = AppSessions(app, self._config, self._source)
        check_old(sessions.config, known=self._old is not None, adopts=self._source is not None, advice=_ADVICE)
        return sessions

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        sessions: AppSessions = app.extensions.get(EXTENSION) or self.sessions_of(app)
        engine = sessions.engine()
        cookie = request.environ.get("HTTP_COOKIE")
        fields = (cookie,) if cookie else ()
        if self._old is not None and sessions.keeps_old and (mode := engine.mode_of(fields)) in OLD:
            if mode == "shadow":
                shadowed = request.environ[SHADOWED] = Shadowed(engine, fields)
                shadowed.before()
            return self._old.open_session(app, request)
        visit = engine.visit(fields, blocking=True, session_type=FlaskSession)
        visit.origin = request.environ
        session = visit.session
        assert isinstance(session, FlaskSession)
        session.visit = visit
        return session

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Called before the response starts. What cannot be saved replaces the response: raised here it would be a 500."""
        if not isinstance(session, FlaskSession):
            self._old_saved(app, session, response)
            return
        visit = session.visit
        if visit is None:
            return  # an error page after a save that failed
        session.visit = None
        sessions: AppSessions = app.extensions[EXTENSION]
        try:
            headers = _saved(sessions, session, visit)
        except (SessionUnavailable, LateWrite) as error:
            headers = visit.refusal_headers()
            visit.close()
            _replace(response, error)
        except BaseException:
            visit.close()
            raise
        else:
            if response.is_streamed:
                response.call_on_close(lambda: _save_rest(sessions, visit))
            else:
                visit.close()
        if headers.vary:
            _add(response, headers)

    def _old_saved(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert self._old is not None, "it has opened the session"
        self._old.save_session(app, session, response)
        shadowed: Shadowed | None = flask_request.environ.pop(SHADOWED, None)
        if shadowed is not None:
            for text in response.headers.getlist("Set-Cookie"):
                shadowed.note(text)
            shadowed.after()


def _saved(sessions: AppSessions, session: FlaskSession, visit: Visit) -> SessionHeaders:
    if session.accessed and session.loaded:
        visit.life_key = PERMANENT
        if session.permanent:
            visit.max_age_s = sessions.permanent_s
            visit.slides = sessions.refreshes or session.modified
        if visit.pending():
            sessions.store(visit)
    return visit.headers(_asked_plain)


def _asked_plain() -> bool:
    return has_request_context() and is_plain(flask_request.scheme, flask_request.headers.get("X-Forwarded-Proto"))


def _save_rest(sessions: AppSessions, visit: Visit) -> None:
    visit.start()
    try:
        if visit.pending():
            sessions.store(visit)
    finally:
        visit.close()


def _add(response: Response, session: SessionHeaders) -> None:
    headers = response.headers
    if session.cookies:
        response.headers = Headers(joined(list(headers), session))
        return
    for name, _ in headers:
        if name.lower() == "vary":
            response.vary.add("Cookie")
            return
    headers.add("Vary", "Cookie")  # nearly always; the parsed set costs more than the whole session


def _replace(response: Response, error: SessionUnavailable | LateWrite) -> None:
    """Make `response` the app's answer to `error`, by its own error handlers if it has any."""
    known: HTTPException
    match error:
        case ConflictingWrite():
            known = HttpConflictingWrite(error)
        case LateWrite():
            known = HttpLateWrite(error)
        case SessionUnavailable():
            known = HttpSessionUnavailable(error)
    answer = current_app.make_response(current_app.handle_user_exception(known))
    former = response.response
    close = getattr(former, "close", None)
    if close is not None:
        response.call_on_close(close)
    response.status, response.headers = answer.status, answer.headers
    response.response, response.direct_passthrough = answer.response, answer.direct_passthrough
    response.headers["Cache-Control"] = "no-store"


def _cookie_of(app: Flask) -> AppCookie:
    """Only what differs from Flask's defaults can have been meant. Raises `AppSettingError`."""
    given = app.config
    name, path = given["SESSION_COOKIE_NAME"], given["SESSION_COOKIE_PATH"] or given["APPLICATION_ROOT"] or "/"
    return AppCookie(
        name=None if name == "session" else name,
        secure=given["SESSION_COOKIE_SECURE"] or None,
        httponly=None if given["SESSION_COOKIE_HTTPONLY"] else False,
        samesite=samesite("SESSION_COOKIE_SAMESITE", given["SESSION_COOKIE_SAMESITE"]),
        domain=(given["SESSION_COOKIE_DOMAIN"] or "").lstrip(".") or None,  # browsers take both alike
        path=None if path == "/" else path,
        partitioned=given.get("SESSION_COOKIE_PARTITIONED") or None,
    )
