"""What type checkers say to an app: right uses pass, a wrong name or key is found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

APP = """
from typing import Any

import flask
from django.http import HttpRequest
from starlette.requests import Request
from starlette.websockets import WebSocket

from clustersession.core.session import Session
from clustersession.integrations import django, starlette
from clustersession.integrations.flask import ClusterSession, session
from clustersession.middleware.wsgi import SESSION

ClusterSession(flask.Flask("shop"))


def in_flask() -> None:
    reveal_type(flask.session["x"])  # Any
    reveal_type(session["x"])  # Any
    reveal_type(session.get("x"))  # Any | None
    reveal_type(session.id)  # str | None
    reveal_type(session.permanent)  # bool
    reveal_type(session.auth_age_s)  # float | None
    flask.session["n"] = session["n"] = session.get("n", 0) + 1
    session.end()
    session.edn()  # "edn"


def in_starlette(request: Request, websocket: WebSocket) -> None:
    reveal_type(request.session)  # dict[str, Any]
    reveal_type(request.session["x"])  # Any
    found = starlette.session_of(request)
    reveal_type(found["x"])  # Any
    reveal_type(found.id)  # str | None
    reveal_type(starlette.session_of(websocket).is_new)  # bool
    found.rotate(grace=True)
    found.rotate(grace="yes")  # "bool"
    found.rotat()  # "rotat"


def in_django(request: HttpRequest) -> None:
    reveal_type(request.session["x"])  # Any
    found = django.session_of(request)
    reveal_type(found["x"])  # Any
    reveal_type(found.session_key)  # str | None
    found.inner.end()
    found.inner.edn()  # "edn"


def in_plain_apps(environ: dict[str, Any]) -> None:
    found: Session = environ[SESSION]
    reveal_type(found["x"])  # Any
    reveal_type(list(found))  # list[str]
    found[1] = "x"  # "int"
"""


def test_mypy_understands_sessions(tmp_path: Path) -> None:
    """Each line of the app with a comment is told about, with that in it, and no other."""
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    cache = Path(__file__).parents[2] / ".mypy_cache" / "of_apps"
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={cache}", "app.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    said = {int(line): text for line, text in re.findall(r"^app\.py:(\d+): \w+: (.*)$", done.stdout, re.MULTILINE)}
    expected = {
        number: line.partition("  # ")[2] for number, line in enumerate(APP.split("\n"), start=1) if line.partition("  # ")[2]
    }
    assert said.keys() == expected.keys(), done.stdout
    assert {number: word for number, word in expected.items() if word not in said[number]} == {}, done.stdout
    shown = {number: re.sub(r'^Revealed type is "(.*)"$', r"\1", said[number]) for number in said}
    assert [number for number in shown if expected[number] == "Any" and shown[number] != "Any"] == []
