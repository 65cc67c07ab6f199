"""The Starlette apps of the comparison: one without a session, and the same behind each session middleware."""

from __future__ import annotations

from asyncio import Runner
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis.asyncio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookies
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import SessionMiddleware as Starsessions
from starsessions import load_session
from starsessions.stores.redis import RedisStore

from clustersession.config import Config
from clustersession.integrations.starlette import SessionMiddleware as Clustersession

from . import traffic
from .redis_servers import AsyncTwoCopies, Servers
from .traffic import AsgiApp

if TYPE_CHECKING:
    from starlette.middleware import _MiddlewareFactory

SECRET = "the key of the comparison's signed cookies"


async def none(request: Request) -> PlainTextResponse:
    return PlainTextResponse(traffic.total(traffic.CART))


async def base_write(request: Request) -> PlainTextResponse:
    return PlainTextResponse(traffic.change(traffic.CART))


async def seed(request: Request) -> PlainTextResponse:
    return PlainTextResponse(traffic.seed(request.session))


async def read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(traffic.read(request.session))


async def write(request: Request) -> PlainTextResponse:
    return PlainTextResponse(traffic.write(request.session))


async def loaded_seed(request: Request) -> PlainTextResponse:
    await load_session(request)
    return await seed(request)


async def loaded_read(request: Request) -> PlainTextResponse:
    await load_session(request)
    return await read(request)


async def loaded_write(request: Request) -> PlainTextResponse:
    await load_session(request)
    return await write(request)


def base(runner: Runner) -> AsgiApp:
    routes = [Route("/none", none), Route("/read", none), Route("/write", base_write)]
    return AsgiApp(Starlette(routes=routes), runner, [None])


def signed_cookies(runner: Runner) -> AsgiApp:
    return AsgiApp(_app(SignedCookies, secret_key=SECRET), runner)


def ours(config: Config, runner: Runner, cookies: Sequence[str]) -> AsgiApp:
    return AsgiApp(_app(Clustersession, config=config), runner, cookies)


def starsessions(servers: Servers, runner: Runner) -> AsgiApp:
    return AsgiApp(_loaded(redis.asyncio.Redis(host="127.0.0.1", port=servers.alone)), runner)


def starsessions_two_copies(servers: Servers, runner: Runner) -> AsgiApp:
    return AsgiApp(_loaded(AsyncTwoCopies(host="127.0.0.1", port=servers.replicated)), runner)


def _app(middleware: _MiddlewareFactory[Any], **options: Any) -> Starlette:
    routes = [Route("/none", none), Route("/read", read), Route("/write", write), Route("/seed", seed)]
    return Starlette(routes=routes, middleware=[Middleware(middleware, **options)])


def _loaded(client: redis.asyncio.Redis) -> Starlette:
    """starsessions loads where the app says so, so that `/none` does not."""
    routes = [Route("/none", none), Route("/read", loaded_read), Route("/write", loaded_write), Route("/seed", loaded_seed)]
    return Starlette(routes=routes, middleware=[Middleware(Starsessions, store=RedisStore(connection=client))])
