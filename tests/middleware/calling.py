"""Requests to WSGI and ASGI apps without a server: what comes back is what a client would see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def cookies(self) -> list[str]:
        return self.all("Set-Cookie")

    @property
    def pair(self) -> str:
        """`name=value` of the one cookie that was set."""
        (cookie,) = self.cookies
        return cookie.partition(";")[0]

    @property
    def varies(self) -> bool:
        return any("cookie" in value.lower() for value in self.all("Vary"))


def environ_of(path: str, cookie: str | None = None, **more: Any) -> WSGIEnvironment:
    environ: WSGIEnvironment = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "REMOTE_ADDR": "127.0.0.1"}
    environ["SERVER_PROTOCOL"] = "HTTP/1.1"
    if cookie is not None:
        environ["HTTP_COOKIE"] = cookie
    environ.update(more)
    setup_testing_defaults(environ)
    return environ


def call_wsgi(app: WSGIApplication, path: str = "/", cookie: str | None = None) -> Answer:
    """One GET, under the checks of `wsgiref.validate`."""
    head: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        if exc_info is None:
            assert not head
        head[:] = [(status, headers)]
        return written.append

    written: list[bytes] = []
    body: Iterable[bytes] = validator(app)(environ_of(path, cookie), start_response)
    try:
        parts = list(body)
    finally:
        body.close()  # type: ignore[attr-defined]
    status, headers = head[0]
    return Answer(int(status[:3]), headers, b"".join(written + parts))


def http_scope(path: str, cookie: str | list[str] | None = None) -> dict[str, Any]:
    fields = [cookie] if isinstance(cookie, str) else cookie or []
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), *((b"cookie", field.encode("latin-1")) for field in fields)],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }


async def acall(app: AsgiApp, scope: dict[str, Any], incoming: Iterable[Message] | None = None) -> list[Message]:
    """Every message that `app` sends."""
    waiting = list(incoming if incoming is not None else [{"type": "http.request", "body": b"", "more_body": False}])
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        if scope["type"] == "http" and not any(each["type"] == "http.response.start" for each in sent):
            await asyncio.Event().wait()  # the client is still there
        return {"type": f"{scope['type']}.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def answer_of(messages: list[Message]) -> Answer:
    starts = [each for each in messages if each["type"] == "http.response.start"]
    assert len(starts) == 1, messages
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in starts[0].get("headers", [])]
    body = b"".join(each.get("body", b"") for each in messages if each["type"] == "http.response.body")
    return Answer(starts[0]["status"], headers, body)


def call_asgi(app: AsgiApp, path: str = "/", cookie: str | list[str] | None = None) -> Answer:
    """One GET."""
    return answer_of(asyncio.run(acall(app, http_scope(path, cookie))))
