"""The test app on bare WSGI."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from clustersession.middleware.wsgi import SESSION, SessionMiddleware

from .actions import act

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session = environ[SESSION]
    said = act(session, session.placement, session.end, environ["PATH_INFO"], dict(parse_qsl(environ["QUERY_STRING"])))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


app = SessionMiddleware(page)
