"""Flask: `ClusterSession(app)` puts the cluster's session behind `flask.session`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Request, Response, current_app, request
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import Headers
from werkzeug.exceptions import Conflict, ServiceUnavailable

from ..config import Lifetimes
from ..errors import LateWrite, SessionUnavailable
from ..middleware.assembly import EngineSource, Settings
from ..runtime.headers import SessionHeaders, joined
from ..runtime.pipeline import Visit
from ..runtime.session import RequestSession

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

VISIT: Final = "clustersession.visit"
PERMANENT: Final = "_permanent"


class HttpSessionUnavailable(SessionUnavailable, ServiceUnavailable):
    """`SessionUnavailable` as Flask's error handlers know it: a 503 with Retry-After. Names no host to the client."""

    def __init__(self, error: SessionUnavailable) -> None:
        super().__init__(error.why, retry_after_s=error.retry_after_s)
        self.retry_after = error.retry_after_s
        self.description = "The session cannot be reached at the moment. Please repeat the request."


class HttpLateWrite(LateWrite, Conflict):
    """`LateWrite` as Flask's error handlers know it: a 409, to be repeated at once."""

    def __init__(self, error: LateWrite) -> None:
        super().__init__(error.reason)
        self.description = "The session was changed by another request meanwhile. Please repeat the request."

    def get_headers(self, environ: WSGIEnvironment | None = None, scope: Any = None) -> list[tuple[str, str]]:
        return [*super().get_headers(environ, scope), ("Retry-After", "0")]


class FlaskSession(RequestSession, SessionMixin):
    """The session as Flask's own attributes have it: `permanent`, `new`, `modified`, `accessed`."""

    __slots__ = ()

    @property
    def new(self) -> bool:  # type: ignore[override]
        return self.is_new

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except SessionUnavailable as error:
            raise HttpSessionUnavailable(error) from None


class ClusterSession:
    """`ClusterSession(app)`, or `init_app` in an app factory. `config` None: from the environment.

    Of the app's own settings PERMANENT_SESSION_LIFETIME and SESSION_COOKIE_* count where the environment says nothing else;
    SECRET_KEY is not used. Raises `ConfigError` at once for settings that are wrong.
    """

    def __init__(self, app: Flask | None = None, config: Settings = None) -> None:
        self._config = config
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        lifetimes = Lifetimes(idle_s=app.permanent_session_lifetime.total_seconds(), absolute_s=None)
        engine = EngineSource(self._config, framework="Flask", lifetimes=lifetimes, defaults=_settings_of(app))
        app.session_interface = ClusterSessionInterface(engine)
        app.extensions["clustersession"] = engine


class ClusterSessionInterface(SessionInterface):
    """What Flask calls. Opening does no IO: the session loads when the app first looks at it."""

    def __init__(self, engine: EngineSource) -> None:
        self._engine = engine

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        cookie = request.environ.get("HTTP_COOKIE")
        visit = self._engine().visit((cookie,) if cookie else (), blocking=True, session_type=FlaskSession)
        request.environ[VISIT] = visit
        session = visit.session
        assert isinstance(session, FlaskSession)
        return session

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Called before the response starts. What cannot be saved replaces the response: raised here it would be a 500."""
        visit: Visit = request.environ[VISIT]
        if visit.session.closed:
            return  # an error page after a save that failed
        try:
            headers = self._saved(app, visit)
        except (SessionUnavailable, LateWrite) as error:
            headers = visit.refusal_headers()
            visit.close()
            _replace(response, error)
        except BaseException:
            visit.close()
            raise
        else:
            self._end_with(response, visit)
        if headers.vary:
            _add(response, headers)

    def _saved(self, app: Flask, visit: Visit) -> SessionHeaders:
        session, engine = visit.session, self._engine()
        if session.accessed and session.loaded:
            visit.life_key = PERMANENT
            if session.get(PERMANENT):
                visit.max_age_s = int(app.permanent_session_lifetime.total_seconds())
            if visit.pending():
                engine.blocking.run(visit.carry_out(), visit.budget)
        return visit.headers()

    def _end_with(self, response: Response, visit: Visit) -> None:
        if not response.is_streamed:
            visit.close()
            return

        def save_rest() -> None:
            visit.start()
            try:
                self._engine().blocking.run(visit.save(), visit.budget)
            finally:
                visit.close()

        response.call_on_close(save_rest)


def _add(response: Response, session: SessionHeaders) -> None:
    if not session.cookies:
        if "Vary" in response.headers:
            response.vary.add("Cookie")
        else:  # nearly always; the parsed set costs more than the whole session
            response.headers["Vary"] = "Cookie"
        return
    response.headers = Headers(joined(list(response.headers), session))


def _replace(response: Response, error: SessionUnavailable | LateWrite) -> None:
    """Make `response` the app's answer to `error`, by its own error handlers if it has any."""
    known = HttpLateWrite(error) if isinstance(error, LateWrite) else HttpSessionUnavailable(error)
    answer = current_app.make_response(current_app.handle_user_exception(known))
    former = response.response
    close = getattr(former, "close", None)
    if close is not None:
        response.call_on_close(close)
    response.status, response.headers = answer.status, answer.headers
    response.response, response.direct_passthrough = answer.response, answer.direct_passthrough
    response.headers["Cache-Control"] = "no-store"


def _settings_of(app: Flask) -> Mapping[str, str]:
    """What SESSION_COOKIE_* say, as settings of ours. Only what differs from Flask's defaults can have been meant."""
    given = app.config
    found: dict[str, str] = {}
    if given["SESSION_COOKIE_SAMESITE"]:
        found["CLUSTERSESSION_COOKIE_SAMESITE"] = given["SESSION_COOKIE_SAMESITE"]
    if given.get("SESSION_COOKIE_PARTITIONED"):
        found["CLUSTERSESSION_COOKIE_PARTITIONED"] = "1"
    path = given["SESSION_COOKIE_PATH"] or given["APPLICATION_ROOT"] or "/"
    if given["SESSION_COOKIE_DOMAIN"] or path != "/":  # a "__Host-" cookie can have neither
        found["CLUSTERSESSION_COOKIE_NAME"] = "__Secure-cs"
        found["CLUSTERSESSION_COOKIE_PATH"] = path
        if given["SESSION_COOKIE_DOMAIN"]:
            found["CLUSTERSESSION_COOKIE_DOMAIN"] = given["SESSION_COOKIE_DOMAIN"]
    return found
