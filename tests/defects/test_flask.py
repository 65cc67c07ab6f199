"""What other session libraries for Flask do to their users, reproduced with the library, and how the same app fares here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
from cachelib import FileSystemCache
from flask import Flask
from flask_session import Session as FlaskSessionExtension
from itsdangerous import TimestampSigner

from clustersession.integrations.flask import ClusterSession
from clustersession.runtime import cookies as our_cookies
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import Answer, call_wsgi

Extend = Callable[[Flask], object]
meanwhile: list[Callable[[], object]] = []
"""What happens in another request while `/slow` is at work."""


def shop(extend: Extend) -> Flask:
    app = Flask("shop")
    app.secret_key = "the app's own"
    extend(app)

    @app.get("/set/<key>/<value>")
    def put(key: str, value: str) -> Any:
        flask.session[key] = value
        return dict(flask.session)

    @app.get("/slow")
    def slow() -> Any:
        seen = dict(flask.session)
        meanwhile.pop()()
        return seen

    @app.get("/renew")
    def renew() -> Any:
        session: Any = flask.session
        if hasattr(session, "rotate"):
            session.rotate()
        else:
            app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return {}

    @app.get("/clear")
    def clear() -> Any:
        flask.session.clear()
        return {}

    @app.get("/")
    def look() -> Any:
        return {key: value for key, value in flask.session.items() if key != "_permanent"}

    return app


def flask_session(tmp_path: Path) -> Extend:
    def extend(app: Flask) -> None:
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(str(tmp_path)), SESSION_COOKIE_NAME="cs")
        FlaskSessionExtension(app)

    return extend


def ours(**settings: object) -> Extend:
    engine = InProcessCluster(**settings)["a"].engine  # type: ignore[arg-type]
    return lambda app: ClusterSession(app, engine)


def pair_in(answer: Answer) -> str:
    [cookie] = [each for each in answer.cookies if not each.startswith("cs=;")]
    return cookie.partition(";")[0]


def holds(app: Flask, cookie: str) -> Any:
    return flask.json.loads(call_wsgi(app, "/", cookie).body)


# --- a write during a slow request that only reads ---------------------------------------------------------------------------


def _written_during_a_slow_read(extend: Extend) -> Any:
    app = shop(extend)
    cookie = pair_in(call_wsgi(app, "/set/first/1"))
    meanwhile.append(lambda: call_wsgi(app, "/set/second/2", cookie))
    call_wsgi(app, "/slow", cookie)
    return holds(app, cookie)


def test_flask_session_loses_a_write_during_a_slow_read(tmp_path: Path) -> None:
    """The slow request writes back what it has loaded, though it has changed nothing."""
    assert _written_during_a_slow_read(flask_session(tmp_path)) == {"first": "1"}


def test_a_write_during_a_slow_read_stays() -> None:
    """A request that changes nothing writes nothing."""
    assert _written_during_a_slow_read(ours()) == {"first": "1", "second": "2"}


# --- a new ID during a slow request --------------------------------------------------------------------------------------------


def _renewed_during_a_slow_read(extend: Extend) -> tuple[Any, Any]:
    """What the old ID opens, and the new one."""
    app = shop(extend)
    old = pair_in(call_wsgi(app, "/set/_user_id/7"))
    new: list[str] = []
    meanwhile.append(lambda: new.append(pair_in(call_wsgi(app, "/renew", old))))
    call_wsgi(app, "/slow", old)
    return holds(app, old), holds(app, new[0])


def test_flask_session_leaves_two_live_sessions(tmp_path: Path) -> None:
    """The slow request brings the old ID back to life: whoever had planted or stolen it is in."""
    assert _renewed_during_a_slow_read(flask_session(tmp_path)) == ({"_user_id": "7"}, {"_user_id": "7"})


def test_the_old_id_stays_dead() -> None:
    """A tombstone wins over everything."""
    assert _renewed_during_a_slow_read(ours()) == ({}, {"_user_id": "7"})


# --- hosts whose clocks differ -------------------------------------------------------------------------------------------------


def test_flask_reads_nothing_from_a_host_that_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie that was signed two seconds in the future is no session: the user is logged out until the clock has caught up."""
    app = shop(lambda app: app.config.update(SESSION_COOKIE_NAME="cs"))
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) + 2)
        cookie = pair_in(call_wsgi(app, "/set/_user_id/7"))
    assert holds(app, cookie) == {}


@pytest.mark.parametrize("ahead_s", [2, 300])
def test_a_host_that_is_ahead_logs_nobody_out(monkeypatch: pytest.MonkeyPatch, ahead_s: int) -> None:
    """Its IDs open on the others at once."""
    app = shop(ours())
    with monkeypatch.context() as patch:
        patch.setattr(our_cookies, "time", lambda: time.time() + ahead_s)
        cookie = pair_in(call_wsgi(app, "/set/_user_id/7"))
    assert holds(app, cookie) == {"_user_id": "7"}


# --- the cookie that removes the cookie ----------------------------------------------------------------------------------------


def _deletion(extend: Extend) -> str:
    app = shop(extend)
    app.config.update(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SAMESITE="Lax")
    cookie = pair_in(call_wsgi(app, "/set/_user_id/7"))
    [deletion] = call_wsgi(app, "/clear", cookie).cookies
    return deletion.lower()


def test_flask_session_s_deletion_lacks_attributes(tmp_path: Path) -> None:
    """Without Secure a browser does not take it for a cookie whose name begins with __Host- or __Secure-: the cookie stays."""
    deletion = _deletion(flask_session(tmp_path))
    assert "max-age=0" in deletion
    assert not {"secure", "httponly", "samesite=lax"} <= {part.strip() for part in deletion.split(";")}


def test_a_deletion_repeats_every_attribute() -> None:
    """So that browsers remove the cookie."""
    cookie = InProcessCluster().nodes["a"].config.cookie
    engine = InProcessCluster(cookie=type(cookie)(names=("cs",), secure=True))["a"].engine
    deletion = _deletion(lambda app: ClusterSession(app, engine))
    assert {"max-age=0", "secure", "httponly", "samesite=lax", "path=/"} <= {part.strip() for part in deletion.split(";")}
