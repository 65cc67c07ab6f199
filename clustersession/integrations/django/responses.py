"""The session's headers on Django's responses, and what is saved when their bodies have been sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterator
from http.cookies import Morsel
from typing import Any, cast

from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from ...runtime.engine import Engine
from ...runtime.headers import SessionHeaders, never_stored, vary_on_cookie
from ...runtime.pipeline import Visit


def add(response: HttpResponseBase, session: SessionHeaders) -> None:
    """The session's headers; of the app's own only Vary and Cache-Control may change."""
    if session.vary:
        response.headers["Vary"] = vary_on_cookie(response.headers.get("Vary"))
    if session.no_store:
        response.headers["Cache-Control"] = never_stored(response.headers.get("Cache-Control"))
    for text in session.cookies:
        cookie = _Verbatim(text)
        response.cookies[cookie.key] = cookie


class _Verbatim(Morsel[str]):
    """A Set-Cookie value as it is: `http.cookies` does not know every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        pair, *attributes = text.split("; ")
        name, _, value = pair.partition("=")
        self.set(name, value, value)
        for attribute in attributes:
            word, _, given = attribute.partition("=")
            if self.isReservedKey(word):
                self[word] = given or True  # as Django sets flags

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802
        return self._text


# --- what changes while the body is being sent ---------------------------------------------------------------------------


def streams(response: HttpResponseBase) -> bool:
    """Whether code of the app runs while the body is being sent."""
    return isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse)


def save_at_end(engine: Engine, visit: Visit, response: HttpResponseBase) -> None:
    """Save what a streaming body changes when all of it has been sent; of a 5xx only an end, as always."""
    streaming = cast(Any, response)
    save = _asaved_after if streaming.is_async else _saved_after
    streaming.streaming_content = save(engine, visit, streaming.streaming_content, response.status_code < 500)


def _saved_after(engine: Engine, visit: Visit, content: Iterator[bytes], write: bool) -> Iterator[bytes]:
    try:
        yield from content
    finally:
        visit.start()
        try:
            engine.blocking.run(visit.save(write), visit.budget)
        finally:
            visit.close()


async def _asaved_after(engine: Engine, visit: Visit, content: AsyncIterator[bytes], write: bool) -> AsyncIterator[bytes]:
    try:
        async for part in content:
            yield part
    finally:
        visit.start()
        try:
            await engine.asynchronous.complete(visit.save(write), visit.budget)
        finally:
            visit.close()
