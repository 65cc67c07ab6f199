"""Sessions of the interface that a Flask app had before: asked itself, it is more exact than any reader of its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Flask
from flask.sessions import SecureCookieSessionInterface, SessionInterface
from itsdangerous import BadSignature
from werkzeug.test import EnvironBuilder

from ..errors import SourceUnavailable
from ..sources.shelf import told
from ..sources.source import Legacy, ListedSource

PERMANENT: Final = "_permanent"


class InterfaceSource:
    """Flask's own signed cookies, or any interface that keeps its sessions under a `sid` (Flask-Session with every store)."""

    def __init__(self, app: Flask, interface: SessionInterface) -> None:
        self._app, self._interface = app, interface
        self.keyless = isinstance(interface, SecureCookieSessionInterface)
        self.name = "flask-cookie" if self.keyless else f"flask:{type(interface).__qualname__}"
        self.cookie_name: str = app.config["SESSION_COOKIE_NAME"]

    def read(self, cookie: str, now: float) -> Legacy | None:
        session = self._opened(cookie)
        items = {} if session is None else {key: value for key, value in session.items() if key != PERMANENT}
        if not items:
            return None
        permanent = bool(getattr(session, "permanent", False))
        if self.keyless:
            stamped = self._stamped(cookie)
            expires = None if stamped is None else stamped + self.lifetime_s
            return Legacy(items, None, stamped=stamped, expires=expires, persistent=permanent)
        sid = getattr(session, "sid", None)
        return Legacy(items, None if sid is None else str(sid).encode(), persistent=permanent)

    @property
    def lifetime_s(self) -> float:
        return self._app.permanent_session_lifetime.total_seconds()

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        """Its own cookie, or store, with these values."""
        session = self._opened(cookie or "")
        if session is None:
            return None
        permanent = session.get(PERMANENT)
        session.clear()
        session.update(items)
        if permanent is not None and PERMANENT not in items:
            session[PERMANENT] = permanent
        return self._saved(session, cookie)

    def end(self, cookie: str) -> None:
        if self.keyless:
            return
        session = self._opened(cookie)
        if session is not None:
            session.clear()
            self._saved(session, cookie)

    def id_of(self, cookie: str) -> bytes | None:
        """The ID in the cookie; the store is not asked."""
        interface: Any = self._interface
        if not getattr(interface, "use_signer", False):
            return cookie.encode() or None
        try:
            return str(interface._unsign(self._app, cookie)).encode() or None
        except BadSignature:
            return None

    def listing(self) -> ListedSource:
        """A source that lists the same sessions. Raises `ConfigError`."""
        from .flask_listing import listing_of

        return listing_of(self._app, self._interface)

    def _opened(self, cookie: str) -> Any:
        """What the interface makes of a request with this cookie. Raises `SourceUnavailable`."""
        with self._app.app_context():
            environ = {**EnvironBuilder().get_environ(), "HTTP_COOKIE": f"{self.cookie_name}={cookie}"}
            try:
                return self._interface.open_session(self._app, self._app.request_class(environ))
            except Exception as error:
                raise self._unavailable(error) from error

    def _saved(self, session: Any, cookie: str | None) -> str | None:
        session.modified = True
        with self._app.app_context():
            response = self._app.response_class()
            try:
                self._interface.save_session(self._app, session, response)
            except Exception as error:
                raise self._unavailable(error) from error
        sent = (text.partition(";")[0].partition("=") for text in response.headers.getlist("Set-Cookie"))
        return next((value for name, _, value in sent if name == self.cookie_name and value not in ("", cookie)), None)

    def _unavailable(self, error: Exception) -> SourceUnavailable:
        return SourceUnavailable(f"{self.name}: {told(error)}")

    def _stamped(self, cookie: str) -> float | None:
        assert isinstance(self._interface, SecureCookieSessionInterface)
        serializer = self._interface.get_signing_serializer(self._app)
        if serializer is None:
            return None
        try:
            _, stamped = serializer.loads(cookie, return_timestamp=True)
        except BadSignature:
            return None
        return float(stamped.timestamp())
