"""The test app on bare ASGI."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from clustersession.middleware.asgi import Receive, Scope, Send, SessionMiddleware

from .actions import act


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    session: Any = scope["session"]
    query = dict(parse_qsl(scope["query_string"].decode()))
    said = act(session, session.placement, session.end, scope["path"], query)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


app = SessionMiddleware(page)
