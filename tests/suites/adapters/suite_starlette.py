"""For pytest: our middleware in the place of Starlette's, before its tests import that."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest

with warnings.catch_warnings(action="ignore"):  # it would rather have another HTTP client than the one that is installed
    import starlette.testclient
from starlette.middleware import sessions
from starlette.types import Message, Receive, Scope, Send

from clustersession.config import Limits
from clustersession.core.values import encode_value
from clustersession.integrations.starlette import SessionMiddleware
from clustersession.integrations.starlette_session import DecodedSession, StarletteSession
from clustersession.runtime.cache import BoundedCache

sys.modules.setdefault("httpx2", starlette.testclient.httpx)  # type: ignore[attr-defined]  # its tests only take types from it


class Spelled(SessionMiddleware):
    """Ours, under Starlette's cookie name and with its spelling of attributes, which its tests compare as text."""

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **{"session_cookie": "session", **kwargs})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def spelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, _spelled(value) if name == b"set-cookie" else value) for name, value in message["headers"]
                ]
            await send(message)

        await super().__call__(scope, receive, spelled)


def _spelled(cookie: bytes) -> bytes:
    """Names of attributes in lower case, but Max-Age; the flags last."""
    pair, *attributes = map(_small, cookie.decode().split("; "))
    return "; ".join([pair, *sorted(attributes, key=lambda each: "=" not in each)]).encode()


def _small(attribute: str) -> str:
    word, equals, value = attribute.partition("=")
    return attribute if word == "Max-Age" else f"{word.lower()}{equals}{value}"


def _filled(values: dict[str, Any]) -> StarletteSession:
    """What Starlette's `Session(values)` is: a session with values that came from somewhere."""

    def demand() -> None:
        raise AssertionError("it is loaded")

    inner = DecodedSession(demand, Limits(), lambda key: None)
    inner.fill({key: encode_value(value) for key, value in values.items()}, "0" * 32)
    return StarletteSession(inner, BoundedCache(1))


sessions.Session = _filled  # type: ignore[misc, assignment]
sessions.SessionMiddleware = Spelled  # type: ignore[misc, assignment]


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that our runtime knows."""
    return "asyncio"
