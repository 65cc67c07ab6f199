"""The test app in Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clustersession.integrations.starlette import SessionMiddleware

from .actions import act


async def page(request: Request) -> JSONResponse:
    session = request.session
    return JSONResponse(act(session, session.placement, session.end, request.url.path, request.query_params))  # type: ignore[attr-defined]


app = Starlette(routes=[Route(path, page) for path in ("/look", "/set", "/end")])
app.add_middleware(SessionMiddleware)
