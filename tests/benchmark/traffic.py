"""What every app of the comparison serves, and how it is called without an HTTP server: only the middlewares differ.

The paths: `/none` does not look at the session, `/read` sums a cart of 20 items, `/write` changes one of them and sums;
`/seed` puts the cart there. The baseline does the same sums on a cart that needs no session.
"""

from __future__ import annotations

import io
from asyncio import Runner
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from http.cookies import SimpleCookie
from itertools import cycle
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from .measure import Block

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

ACTIONS: Final = ("none", "read", "write")
ITEMS: Final = 20
USER: Final = 4711
HOST: Final = "shop.example"
QUANTITY_MAX: Final = 9
SESSIONS: Final = 64  # of an app that makes its own


def cart() -> list[dict[str, Any]]:
    return [{"sku": f"B07XJ8C{number:03}", "qty": 1, "cents": 1450 + number} for number in range(ITEMS)]


CART: Final = cart()


def values() -> dict[str, Any]:
    """What a session of the comparison holds."""
    return {"user": USER, "cart": cart()}


def seed(session: MutableMapping[str, Any]) -> str:
    session.update(values())
    return str(ITEMS)


def read(session: Mapping[str, Any]) -> str:
    assert session["user"] == USER
    return total(session["cart"])


def write(session: MutableMapping[str, Any]) -> str:
    items = session["cart"]
    found = change(items)
    session["cart"] = items  # ours would see the change without it, the others not
    return found


def total(items: list[dict[str, Any]]) -> str:
    return str(sum(item["qty"] for item in items))


def change(items: list[dict[str, Any]]) -> str:
    first = items[0]
    first["qty"] = first["qty"] % QUANTITY_MAX + 1
    return total(items)


def is_right(body: bytes) -> bool:
    """Whether a body is the sum of the cart that every session has."""
    return ITEMS <= int(body) < ITEMS + QUANTITY_MAX


class WrongAnswer(Exception):
    """An app did not do what is being timed."""

    def __init__(self, path: str, status: object, body: bytes, log: str = "") -> None:
        super().__init__(f"{path} was answered with {status}: {body[:200]!r}\n{log}")


# --- WSGI ------------------------------------------------------------------------------------------------------------


class WsgiApp:
    """Calls a WSGI app as a server does, once for each of `cookies` in turn (none given: of some new sessions).

    Its paths are `under` that prefix. Raises `WrongAnswer`.
    """

    def __init__(self, app: WSGIApplication, cookies: Sequence[str | None] = (), under: str = "") -> None:
        self.app, self._under = app, under
        self._cookies: Iterator[str | None] = cycle(cookies or [self.seeded() for _ in range(SESSIONS)])

    def seeded(self) -> str:
        """The Cookie header of a new session with the cart."""
        headers: list[tuple[str, str]] = []
        self._call(self._environ("/seed", None), headers)
        return cookie_of([value for name, value in headers if name.lower() == "set-cookie"])

    def block(self, action: str) -> Block:
        path = f"{self._under}/{action}"

        def calls(count: int) -> list[int]:
            return [self._call(self._environ(path, next(self._cookies)), []) for _ in range(count)]

        return calls

    def _call(self, environ: dict[str, Any], headers: list[tuple[str, str]]) -> int:
        status = ""

        def start_response(line: str, found: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
            nonlocal status
            status = line
            headers.extend(found)
            return sent.append

        sent: list[bytes] = []
        starter: StartResponse = start_response
        began = perf_counter_ns()
        body = self.app(environ, starter)
        sent.extend(body)
        close = getattr(body, "close", None)
        if close is not None:
            close()
        took = perf_counter_ns() - began
        content = b"".join(sent)
        if not status.startswith("200") or not is_right(content):
            raise WrongAnswer(environ["PATH_INFO"], status, content, environ["wsgi.errors"].getvalue())
        return took

    @staticmethod
    def _environ(path: str, cookie: str | None) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": HOST,
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.7",
            "HTTP_HOST": HOST,
            "HTTP_ACCEPT": "text/html,application/xhtml+xml",
            "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        if cookie is not None:
            environ["HTTP_COOKIE"] = cookie
        return environ


# --- ASGI ------------------------------------------------------------------------------------------------------------

AsgiCallable = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class AsgiApp:
    """Calls an ASGI app in the loop of `runner`, once for each of `cookies` in turn (none given: of some new sessions).

    Raises `WrongAnswer`.
    """

    def __init__(self, app: AsgiCallable, runner: Runner, cookies: Sequence[str | None] = ()) -> None:
        self.app, self._runner = app, runner
        self._cookies: Iterator[str | None] = cycle(cookies or [self.seeded() for _ in range(SESSIONS)])

    def seeded(self) -> str:
        """The Cookie header of a new session with the cart."""
        headers: list[tuple[bytes, bytes]] = []
        self._runner.run(self._call(self._scope("/seed", None), headers))
        return cookie_of([value.decode() for name, value in headers if name.lower() == b"set-cookie"])

    def block(self, action: str) -> Block:
        path = f"/{action}"

        async def calls(count: int) -> list[int]:
            return [await self._call(self._scope(path, next(self._cookies)), []) for _ in range(count)]

        return lambda count: self._runner.run(calls(count))

    async def _call(self, scope: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> int:
        status, sent = 0, []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers.extend(message["headers"])
            else:
                sent.append(message.get("body", b""))

        began = perf_counter_ns()
        await self.app(scope, receive, send)
        took = perf_counter_ns() - began
        body = b"".join(sent)
        if status != 200 or not is_right(body):
            raise WrongAnswer(scope["path"], status, body)
        return took

    @staticmethod
    def _scope(path: str, cookie: str | None) -> dict[str, Any]:
        headers = [
            (b"host", HOST.encode()),
            (b"accept", b"text/html,application/xhtml+xml"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers if cookie is None else [*headers, (b"cookie", cookie.encode())],
            "client": ("192.0.2.7", 50123),
            "server": (HOST, 443),
            "state": {},
        }


def cookie_of(set_cookies: Sequence[str]) -> str:
    """The Cookie header that a browser sends after these Set-Cookie headers."""
    parsed: SimpleCookie = SimpleCookie()
    for header in set_cookies:
        parsed.load(header)
    if not parsed:
        raise ValueError("the app has set no cookie")
    return "; ".join(f"{name}={morsel.coded_value}" for name, morsel in parsed.items())
