"""The shop on Starlette's signed cookies, with clustersession beside it, in whatever mode the environment says."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookies
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clustersession.integrations.starlette import SessionMiddleware
from clustersession.sources import StarletteCookie

from .adopting import PATHS, visit

SECRET = "not the cluster's"


async def page(request: Request) -> JSONResponse:
    return JSONResponse(visit(request.session, request.url.path, request.query_params))


def before(app: Any) -> SignedCookies:
    return SignedCookies(app, SECRET)


app = Starlette(
    routes=[Route(f"/{each}", page) for each in PATHS],
    middleware=[Middleware(SessionMiddleware, adopt=StarletteCookie(SECRET), before=before)],
)
