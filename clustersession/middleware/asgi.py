"""ASGI 3: the session of a request under `scope["session"]`, saved before its response starts."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from ..errors import ClusterSessionError, LateWrite, SessionUnavailable
from ..runtime.engine import Engine
from ..runtime.giving_up import UNHARMED, left_to_store, not_stored
from ..runtime.headers import Header, SessionHeaders, is_plain, joined
from ..runtime.looking_again import Watch
from ..runtime.pipeline import Visit
from ..runtime.refusal import refusal
from ..runtime.session import RequestSession
from ..sources.source import Source
from .assembly import EngineSource, OldSessions, Settings
from .old_side import OLD, OldSide, Shadowed

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

TRY_AGAIN_LATER: Final = 1013  # WebSocket close codes, IANA registry
POLICY_VIOLATION: Final = 1008
_DISCONNECT: Final[Message] = {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": "the session has ended"}
RESPONSES: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class SessionMiddleware:
    """Wraps an ASGI app. `config` None: from the environment. Raises `ConfigError` here and now for settings that are wrong.

    `scope["session"]` is a `Session`, loaded before the app runs if the request has a cookie of ours. Saved when the response
    starts (a WebSocket: when it is accepted), and once more when the app has returned, if it has looked at the session since
    or holds a value of it that it can change in place. If the app fails before its response, changes are dropped, but a logout
    counts and locks are given up. An app that lets `SessionUnavailable` and `LateWrite` pass is answered for: 503 and 409, to
    be repeated.

    `adopt`: sessions of this source are taken over when their cookies come, until CLUSTERSESSION_ADOPT_UNTIL. `before` makes
    the session middleware that the app had; it decides where CLUSTERSESSION_MODE is off or shadow.
    """

    session_type: type[RequestSession] = RequestSession

    def __init__(
        self,
        app: App,
        config: Settings = None,
        *,
        adopt: Source | None = None,
        before: Callable[[App], App] | None = None,
    ) -> None:
        self.app = app
        self._engine = EngineSource(config, framework="ASGI", old=None if adopt is None else OldSessions(adopt))
        self._old = OldSide.of(self._engine.config, app, before, adopts=adopt is not None)

    def engine(self) -> Engine:
        """Opened now if there was no request yet in this process; that may take a moment."""
        return self._engine()

    def in_scope(self, session: RequestSession) -> Any:
        """What the app gets to see of it: for frameworks that want another type."""
        return session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        old = self._old
        if old is not None and old.always_off:
            await old.app(scope, receive, send)
            return
        engine = self._engine() if self._engine.is_open else await self._engine.opened()
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        if old is not None and (mode := engine.mode_of(cookies)) in OLD:
            if mode == "off" or scope["type"] != "http":
                await old.app(scope, receive, send)
            else:
                await _shadowed(old.app, Shadowed(engine, cookies), scope, receive, send)
            return
        visit = engine.visit(cookies, blocking=False, session_type=self.session_type)
        visit.origin = scope
        if not visit.load_here():
            await engine.asynchronous.run(visit.load(), visit.budget)
        scope["session"] = self.in_scope(visit.session)
        exchange = _Exchange(engine, visit, scope, receive, send)
        try:
            await exchange.run(self.app)
            await exchange.finish()
        except (SessionUnavailable, LateWrite) as error:
            await exchange.replace(error)
        finally:
            visit.close()


class _Exchange:
    """The messages of one request. Saves the session before the one that starts the response."""

    __slots__ = (
        "_engine",
        "_face",
        "_looked",
        "_over",
        "_receive",
        "_replaced",
        "_scope",
        "_send",
        "_started",
        "_visit",
        "_watch",
    )

    def __init__(self, engine: Engine, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        self._engine, self._visit, self._scope, self._receive, self._send = engine, visit, scope, receive, send
        self._started = self._replaced = self._looked = self._over = False
        self._face = scope["session"]
        self._watch = Watch(engine, visit.session) if scope["type"] == "websocket" else None

    async def run(self, app: App) -> None:
        """The app; if it fails, with what must be stored all the same."""
        try:
            await app(self._scope, self.receive, self.send)
        except UNHARMED:
            raise
        except BaseException as error:
            await self._give_up(error)
            raise

    async def receive(self) -> Message:
        """The app's `receive`."""
        if self._replaced:
            return {"type": f"{self._scope['type']}.disconnect", "code": TRY_AGAIN_LATER}
        message = {**_DISCONNECT} if self._over else await self._receive()
        if self._watch is None or message["type"] != "websocket.receive" or not self._watch.is_due:
            return message
        return message if await self._may_go_on(self._watch) else {**_DISCONNECT}

    async def _may_go_on(self, watch: Watch) -> bool:
        """A socket stays open for hours. One whose app has looked at the session is closed when that has ended elsewhere."""
        if not (self._looked or self._visit.session.accessed) or not await watch.is_over():
            return True
        self._over = True
        self._face.show_ended()
        await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "the session has ended"})
        return False

    async def send(self, message: Message) -> None:
        """The app's `send`."""
        if self._replaced or self._over:
            return  # the client has its answer: what the app says now is nobody's
        if message["type"] in RESPONSES and not self._started:
            try:
                self._visit.check_answer(message.get("status", 0))
                headers = await self._saved()
            except (SessionUnavailable, LateWrite) as error:
                await self.replace(error)
                return
            except CancelledError as cancelled:
                if isinstance(cancelled.__cause__, SessionUnavailable | LateWrite):  # an answer that is still to come won't save
                    await self.replace(cancelled.__cause__)
                raise
            self._started = True
            self._looked = self._visit.session.accessed
            if not self._visit.session.is_lent:
                self._visit.session.accessed = False  # from here on it counts anew
            if headers.vary:
                message = {**message, "headers": _joined(message.get("headers", ()), headers)}
        await self._send(message)

    async def _saved(self) -> SessionHeaders:
        visit = self._visit
        if visit.pending():
            await self._engine.asynchronous.complete(visit.carry_out(), visit.budget)
        return visit.headers(self._is_plain)

    def _is_plain(self) -> bool:
        fields: Iterable[tuple[bytes, bytes]] = self._scope["headers"]
        forwarded = next((value.decode("latin-1") for name, value in fields if name == b"x-forwarded-proto"), None)
        return is_plain(self._scope.get("scheme", "http"), forwarded)

    async def finish(self) -> None:
        """The app has returned: save what it has changed since the response started."""
        visit = self._visit
        if not self._replaced and visit.pending():
            visit.start()
            await self._engine.asynchronous.complete(visit.carry_out(), visit.budget)

    async def _give_up(self, error: BaseException) -> None:
        visit = self._visit
        if self._replaced:
            return
        try:
            if left_to_store(visit, started=self._started):
                await self._engine.asynchronous.complete(visit.carry_out(), visit.budget)
        except ClusterSessionError as problem:
            not_stored(error, problem, started=self._started)

    async def replace(self, error: SessionUnavailable | LateWrite) -> None:
        """The answer in place of the app's, if nothing has been sent. Raises `error` if something has."""
        if self._started or self._replaced:
            raise error
        self._replaced = True
        answer = refusal(error, self._visit.refusal_headers())
        if self._scope["type"] == "http":
            await self._respond("http.response", answer.status, answer.headers, answer.body)
        elif "websocket.http.response" in self._scope.get("extensions", {}):
            await self._respond("websocket.http.response", answer.status, answer.headers, answer.body)
        else:
            await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": answer.phrase})

    async def _respond(self, kind: str, status: int, headers: list[Header], body: bytes) -> None:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": f"{kind}.start", "status": status, "headers": raw})
        await self._send({"type": f"{kind}.body", "body": body})


def _joined(headers: Iterable[tuple[bytes, bytes]], session: SessionHeaders) -> list[tuple[bytes, bytes]]:
    raw = list(headers)
    if not session.cookies and b"vary" not in [name.lower() for name, _ in raw]:
        return [*raw, (b"vary", b"Cookie")]
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in joined(pairs, session)]


async def _shadowed(app: App, shadowed: Shadowed, scope: Scope, receive: Receive, send: Send) -> None:
    """The app of before, with a copy of its session in the cluster when its response has been sent."""

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            for name, value in message.get("headers", ()):
                if name.lower() == b"set-cookie":
                    shadowed.note(value.decode("latin-1"))
        await send(message)

    await shadowed.abefore()
    await app(scope, receive, noting)
    await shadowed.aafter()
