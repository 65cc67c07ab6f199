"""For pytest: our session interface in the place of Flask's, before its tests make apps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import _pytest.monkeypatch
import flask
from _pytest.compat import NOTSET
from flask.sessions import SessionMixin
from werkzeug.http import http_date

from clustersession.integrations.flask import ClusterSessionInterface

if not hasattr(_pytest.monkeypatch, "notset"):
    _pytest.monkeypatch.notset = NOTSET  # type: ignore[attr-defined]  # as Flask's conftest knows it from older pytests


class Spelled(ClusterSessionInterface):
    """Ours, with Expires beside Max-Age, which Flask's tests look for."""

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        super().save_session(app, session, response)
        cookies = response.headers.getlist("Set-Cookie")
        if cookies:
            response.headers.setlist("Set-Cookie", map(_spelled, cookies))


def _spelled(cookie: str) -> str:
    ages = [each.removeprefix("Max-Age=") for each in cookie.split("; ") if each.startswith("Max-Age=")]
    if not ages or "Expires=" in cookie:
        return cookie
    return f"{cookie}; Expires={http_date(datetime.now(UTC) + timedelta(seconds=int(ages[0])))}"


flask.Flask.session_interface = Spelled()
