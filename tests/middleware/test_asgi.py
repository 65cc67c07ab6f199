"""The ASGI middleware: http and websocket scopes, and what is changed while a response is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from clustersession.core.calls import Apply, Fetch, Unreachable
from clustersession.errors import ChangeAfterResponse, LateWrite, LoginTooOld, SessionUnavailable
from clustersession.integrations.starlette import SessionMiddleware as StarletteMiddleware
from clustersession.middleware.asgi import SessionMiddleware
from clustersession.testing.clock import ManualClock
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import Answer, AsgiApp, Message, acall, answer_of, call_asgi, http_scope


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


@pytest.fixture
def cookie(cluster: InProcessCluster) -> str:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = 1
        await respond(send)

    return call(cluster, app).pair


@pytest.fixture
def unreachable(cluster: InProcessCluster, cookie: str) -> str:
    """The host that is no owner of the session, both of whose owners are down."""
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down("a", backup)
    return next(name for name in "bc" if name != backup)


class Slow:
    """Holds the answers back that `host` gets to anything but reads, until `go_on` is set; `waiting` is set when there is one."""

    def __init__(self, cluster: InProcessCluster, host: str) -> None:
        driver = cluster[host].engine.asynchronous
        self._transport, driver.transport = driver.transport, cast(Any, self)
        self.waiting, self.go_on = asyncio.Event(), asyncio.Event()
        self.lost = False  # what was asked is done, but the answers are lost

    async def ask(self, member: Any, call: Any, deadline: float) -> Any:
        reply = await self._held([call], await self._transport.ask(member, call, deadline))
        return Unreachable("timeout") if self.lost else reply

    async def exchange(self, batch: Any, *more: Any) -> Any:
        return await self._held([each.call for each in batch], await self._transport.exchange(batch, *more))

    async def _held(self, calls: list[Any], replies: Any) -> Any:
        if not all(isinstance(call, Fetch) for call in calls):
            self.waiting.set()
            await self.go_on.wait()
        return replies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def respond(send: Any, body: bytes = b"x", headers: Any = (), **more: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, **more})


def call(cluster: InProcessCluster, app: AsgiApp, cookie: str | list[str] | None = None, host: str = "a") -> Answer:
    return call_asgi(SessionMiddleware(app, cluster[host].engine), "/", cookie)


def values(cluster: InProcessCluster, cookie: str, host: str = "b") -> dict[str, Any]:
    return dict(cluster[host].engine.visit((cookie,), blocking=True).session)


# --- http ------------------------------------------------------------------------------------------------------------------


def test_other_scopes_are_passed_through() -> None:
    """Lifespan events reach the app as they are, and open nothing."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, await receive()))
        await send({"type": "lifespan.startup.complete"})

    wrapped = SessionMiddleware(app)  # settings of dev mode
    sent = asyncio.run(acall(wrapped, {"type": "lifespan"}, [{"type": "lifespan.startup"}]))
    assert sent == [{"type": "lifespan.startup.complete"}]
    assert seen == [({"type": "lifespan"}, {"type": "lifespan.startup"})]
    assert not wrapped._engine.is_open


def test_the_cookie_is_found_in_several_fields(cluster: InProcessCluster, cookie: str) -> None:
    """HTTP/2 clients may send one field for each cookie."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, str(scope["session"]["n"]).encode())

    assert call(cluster, app, ["a=1", cookie, "b=2"], "c").body == b"1"


def test_the_apps_messages_are_not_changed(cluster: InProcessCluster) -> None:
    """A constant message of the app would carry one user's cookie to the next."""
    start: Message = {"type": "http.response.start", "status": 200, "headers": ((b"Vary", b"Accept"), (b"x-mine", b"1"))}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = 1
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    first, second = call(cluster, app), call(cluster, app)
    assert first.headers[:2] == [("vary", "Accept, Cookie"), ("x-mine", "1")]
    assert len(first.cookies) == len(second.cookies) == 1
    assert first.pair != second.pair
    assert start["headers"] == ((b"Vary", b"Accept"), (b"x-mine", b"1"))


def test_a_streaming_body_that_begins_a_session_raises(cluster: InProcessCluster) -> None:
    """No cookie can be sent any more, and the change must not be lost silently."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, more_body=True)
        scope["session"]["n"] = 1
        await send({"type": "http.response.body", "body": b"y"})

    with pytest.raises(ChangeAfterResponse):
        call(cluster, app)


@pytest.mark.parametrize("looks", [True, False])
def test_what_changes_between_the_start_and_a_body_of_one_piece_is_saved(
    cluster: InProcessCluster, cookie: str, looks: bool
) -> None:
    """A change in time for the record is stored, and a logout is one, whatever was looked at before the start."""

    def app_that(change: Callable[[Any], object]) -> AsgiApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert not looks or scope["session"]["n"] == 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            change(scope["session"])
            await send({"type": "http.response.body", "body": b"x"})

        return app

    call(cluster, app_that(lambda session: session.update(late=1)), cookie, "b")
    assert values(cluster, cookie, "c") == {"n": 1, "late": 1}
    call(cluster, app_that(lambda session: session.end()), cookie, "b")
    assert values(cluster, cookie, "c") == {}


def test_a_session_that_is_begun_between_the_start_and_the_body_raises(cluster: InProcessCluster) -> None:
    """Its cookie can't go out any more, also if the body comes in one piece."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["n"] = 1
        await send({"type": "http.response.body", "body": b"x"})

    with pytest.raises(ChangeAfterResponse):
        call(cluster, app)


def test_a_change_after_the_request_raises_at_once(cluster: InProcessCluster, cookie: str) -> None:
    """A task that outlives its request is told where the mistake is."""
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(scope["session"])
        await respond(send)

    call(cluster, app, cookie)
    with pytest.raises(ChangeAfterResponse):
        kept[0]["n"] = 2


def test_what_a_background_task_changes_is_saved(cluster: InProcessCluster, cookie: str) -> None:
    """Starlette runs it after the response, before the app returns."""

    async def page(request: Request) -> PlainTextResponse:
        session = request.session

        async def task() -> None:
            session["n"] = 2

        return PlainTextResponse("ok", background=BackgroundTask(task))

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(SessionMiddleware, config=cluster["b"].engine)])
    answer = call_asgi(app, "/", cookie)
    assert (answer.status, answer.cookies) == (200, [])
    assert values(cluster, cookie, "c") == {"n": 2}


def test_the_session_is_loaded_before_the_app_runs(cluster: InProcessCluster, cookie: str) -> None:
    """No look at it needs an await, and no request without our cookie costs a call."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["session"].loaded
        await respond(send)

    call(cluster, app, cookie, "b")
    with cluster.silence():
        call(cluster, app, "other=1", "b")


def test_a_session_that_cannot_be_reached_is_a_503_only_for_who_looks(
    cluster: InProcessCluster, cookie: str, unreachable: str
) -> None:
    """A page that does not need it is served, and one that can do without decides for itself."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    async def careful(scope: Any, receive: Any, send: Any) -> None:
        try:
            scope["session"]["n"]
        except SessionUnavailable:
            await respond(send, b"without")

    async def looks(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, str(scope["session"]["n"]).encode())

    assert call(cluster, plain, cookie, unreachable).status == 200
    assert call(cluster, careful, cookie, unreachable).body == b"without"
    answer = call(cluster, looks, cookie, unreachable)
    assert (answer.status, answer.one("retry-after"), answer.cookies) == (503, "1", [])


def test_what_an_app_says_after_its_answer_was_replaced_is_dropped(cluster: InProcessCluster, cookie: str) -> None:
    """One response for one request; the app hears that its client has gone."""
    heard: list[str] = []
    engine = cluster["b"].engine

    async def app(scope: Any, receive: Any, send: Any) -> None:
        other = engine.visit((cookie,), blocking=True)
        other.session.end()
        scope["session"]["n"] = 2
        engine.blocking.run(other.save(), other.budget)
        await respond(send, more_body=True)
        heard.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"late"})

    messages = asyncio.run(acall(SessionMiddleware(app, engine), http_scope("/", cookie)))
    answer = answer_of(messages)
    assert (answer.status, answer.one("retry-after")) == (409, "0")
    assert b"late" not in answer.body
    assert heard == ["http.disconnect"]
    assert [each["type"] for each in messages] == ["http.response.start", "http.response.body"]


def test_two_requests_at_once_never_see_each_others_session(cluster: InProcessCluster) -> None:
    """A hundred users on one loop: each request has its own session, from the first byte to the save."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        user = scope["path"]
        assert scope["session"].get("user", user) == user
        await asyncio.sleep(0)
        scope["session"]["user"] = user
        await asyncio.sleep(0)
        await respond(send, scope["session"]["user"].encode())

    async def crowd() -> None:
        wrapped = SessionMiddleware(app, cluster["a"].engine)
        cookies: dict[str, str | None] = {f"/{n}": None for n in range(100)}
        for _ in range(5):
            pages = await asyncio.gather(*(acall(wrapped, http_scope(path, cookies[path])) for path in cookies))
            for path, answer in zip(cookies, map(answer_of, pages), strict=True):
                assert answer.body == path.encode()
                cookies[path] = cookies[path] or answer.pair

    asyncio.run(crowd())


# --- an app that fails ---------------------------------------------------------------------------------------------------


def test_an_error_of_the_app_stays_what_it_is_where_its_logout_cannot_be_stored(
    cluster: InProcessCluster, cookie: str, unreachable: str
) -> None:
    """The error handlers outside get the app's own error, with a note."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].end()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        call(cluster, app, cookie, unreachable)
    (note,) = caught.value.__notes__
    assert "end or lock could not be stored" in note


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_or_the_coroutine_waits_for_nothing(
    cluster: InProcessCluster, cookie: str, error: type[BaseException]
) -> None:
    """It passes at once: no call is sent for a request that ends like that."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].end()
        raise error

    request = SessionMiddleware(app, cluster["a"].engine)(http_scope("/", cookie), nothing, nothing)
    with cluster.silence(), pytest.raises(error):
        request.send(None)


async def nothing(*message: Any) -> Any:
    raise AssertionError("the app neither receives nor sends")


def test_a_logout_counts_also_if_its_request_is_cancelled(cluster: InProcessCluster, cookie: str) -> None:
    """By a client that has gone or a time-out outside of the middleware, however often; the one that cancels is told."""
    ended = asyncio.Event()
    peers = Slow(cluster, "a")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].end()
        ended.set()
        await asyncio.Event().wait()

    async def main() -> None:
        request = asyncio.create_task(acall(SessionMiddleware(app, cluster["a"].engine), http_scope("/", cookie)))
        await ended.wait()
        request.cancel()
        await peers.waiting.wait()
        request.cancel()
        peers.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(main())
    assert [values(cluster, cookie, host) for host in "abc"] == [{}] * 3


def in_time(time_up: Callable[[], asyncio.Event], app: AsgiApp, change: Callable[[Any], object]) -> AsgiApp:
    """A time-out inside of our middleware: when the event is set the app is cancelled, and answered for with a 504."""

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        request = asyncio.ensure_future(app(scope, receive, send))
        waiting = asyncio.ensure_future(time_up().wait())
        await asyncio.wait((request, waiting), return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), "the time was up while the save waited for a peer"
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        change(scope["session"])
        await send({"type": "http.response.start", "status": 504, "headers": []})
        await send({"type": "http.response.body", "body": b"slow"})

    return limited


@pytest.mark.parametrize("host", ["a", "b", "c"])
def test_a_save_that_is_cancelled_and_repeated_counts_once(cluster: InProcessCluster, cookie: str, host: str) -> None:
    """A time-out inside cancels while a peer is slow, and the same request answers again: each operation, and what is changed
    between the two, is stored once."""
    peers = Slow(cluster, host)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].incr("n")
        scope["session"].append("log", "first")
        await respond(send)

    def more(session: Any) -> None:
        session.incr("n", 10)
        session["late"] = 1

    async def main() -> Answer:
        limited = SessionMiddleware(in_time(lambda: peers.waiting, app, more), cluster[host].engine)
        request = asyncio.create_task(acall(limited, http_scope("/", cookie)))
        await peers.waiting.wait()
        for _ in range(5):
            await asyncio.sleep(0)  # the one that cancels gets its turns
        peers.go_on.set()
        return answer_of(await request)

    assert asyncio.run(main()).status == 504
    assert values(cluster, cookie, "b") == {"n": 12, "log": ["first"], "late": 1}


def test_a_login_whose_save_is_cancelled_goes_out_with_the_next_answer(cluster: InProcessCluster, cookie: str) -> None:
    """The new ID is made once, and the browser gets it."""
    peers = Slow(cluster, "a")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["_user_id"] = "7"
        await respond(send)

    async def main() -> Answer:
        limited = SessionMiddleware(in_time(lambda: peers.waiting, app, lambda session: None), cluster["a"].engine)
        request = asyncio.create_task(acall(limited, http_scope("/", cookie)))
        await peers.waiting.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        peers.go_on.set()
        return answer_of(await request)

    answer = asyncio.run(main())
    assert answer.status == 504
    assert values(cluster, answer.pair, "c") == {"n": 1, "_user_id": "7"}


def test_a_save_that_is_cancelled_and_fails_is_not_tried_again(cluster: InProcessCluster, cookie: str) -> None:
    """A peer that fell silent may have it: the client hears the 503, whatever the app would answer after its cancellation."""
    backup = next(each.target for each in cluster.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)
    peers = Slow(cluster, third)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].incr("n")
        await respond(send)

    async def main() -> Answer:
        limited = SessionMiddleware(in_time(lambda: peers.waiting, app, lambda session: None), cluster[third].engine)
        request = asyncio.create_task(acall(limited, http_scope("/", cookie)))
        await peers.waiting.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        cluster.paused("a", backup)
        peers.lost = True
        peers.go_on.set()
        return answer_of(await request)

    assert asyncio.run(main()).status == 503
    assert len({each.call.patch.id for each in cluster.sent if isinstance(each.call, Apply)}) == 1


@pytest.mark.parametrize("error", [OSError("client disconnected"), asyncio.CancelledError()], ids=["error", "cancelled"])
def test_what_a_body_has_changed_is_saved_also_if_it_is_given_up(
    cluster: InProcessCluster, cookie: str, error: BaseException
) -> None:
    """A client that goes away in the middle, or a task after the response that fails: as when all went well."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, more_body=True)
        scope["session"]["sent"] = 1
        raise error

    with pytest.raises(type(error)):
        call(cluster, app, cookie, "b")
    assert values(cluster, cookie, "c") == {"n": 1, "sent": 1}


def test_a_late_change_that_cannot_be_saved_is_told_also_if_the_app_fails(cluster: InProcessCluster) -> None:
    """Servers say little or nothing of a client that has gone, so its error is only the cause."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, more_body=True)
        scope["session"]["n"] = 1
        raise OSError("client disconnected")

    with pytest.raises(ChangeAfterResponse) as caught:
        call(cluster, app)
    assert isinstance(caught.value.__cause__, OSError)


# --- websocket -----------------------------------------------------------------------------------------------------------


def websocket_scope(cookie: str | None = None, **more: Any) -> dict[str, Any]:
    return {**http_scope("/", cookie), "type": "websocket", "subprotocols": [], "scheme": "ws", **more}


def connect(cluster: InProcessCluster, app: AsgiApp, cookie: str | None, host: str = "a", **more: Any) -> list[Message]:
    incoming = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    return asyncio.run(acall(SessionMiddleware(app, cluster[host].engine), websocket_scope(cookie, **more), incoming))


async def chat(scope: Any, receive: Any, send: Any) -> None:
    session = scope["session"]
    assert (await receive())["type"] == "websocket.connect"
    session["before"] = "accept"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        session["said"] = message["text"]


def test_a_websocket_has_the_session_and_its_changes_are_saved(cluster: InProcessCluster, cookie: str) -> None:
    """What it changes before it is accepted and while it is open, key by key."""
    (accept,) = connect(cluster, chat, cookie, "b")
    assert b"set-cookie" not in dict(accept["headers"])
    assert values(cluster, cookie, "c") == {"n": 1, "before": "accept", "said": "hello"}


def test_a_websocket_may_begin_a_session_before_it_is_accepted(cluster: InProcessCluster) -> None:
    """The handshake's answer carries the cookie."""
    (accept,) = connect(cluster, chat, None)
    new = dict(accept["headers"])[b"set-cookie"].decode().partition(";")[0]
    assert values(cluster, new) == {"before": "accept", "said": "hello"}


def test_a_closing_websocket_does_not_undo_a_logout(cluster: InProcessCluster, cookie: str) -> None:
    """It has been open since before the logout; what it changes then is refused, not written back."""
    engine = cluster["b"].engine

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        assert scope["session"]["n"] == 1
        other = engine.visit((cookie,), blocking=True)
        other.session.end()
        engine.blocking.run(other.save(), other.budget)
        scope["session"]["seen"] = 1

    with pytest.raises(LateWrite):
        connect(cluster, app, cookie)
    assert values(cluster, cookie, "c") == {}


def logs_out(cluster: InProcessCluster, cookie: str) -> None:
    engine = cluster["a"].engine
    visit = engine.visit((cookie,), blocking=True)
    visit.session.end()
    engine.blocking.run(visit.save(), visit.budget)


def ends_all(cluster: InProcessCluster, cookie: str) -> None:
    assert cluster["a"].engine.users.end_all("7") == 1


def rotates(cluster: InProcessCluster, cookie: str) -> None:
    engine = cluster["a"].engine
    visit = engine.visit((cookie,), blocking=True)
    visit.session.rotate()
    engine.blocking.run(visit.save(), visit.budget)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(clock: ManualClock) -> InProcessCluster:
    return InProcessCluster(clock=clock)


def logged_in(cluster: InProcessCluster) -> str:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["_user_id"] = "7"
        await respond(send)

    return call(cluster, app).pair


def talk(
    cluster: InProcessCluster,
    app: AsgiApp,
    cookie: str,
    *between: Callable[[], object],
    host: str = "b",
    middleware: type[SessionMiddleware] = SessionMiddleware,
) -> list[Message]:
    """A WebSocket on `host` that gets a message after each of `between` has happened. Every message that was sent."""
    happens, sent = iter(between), list[Message]()
    incoming = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        for happening in happens:
            happening()
            return {"type": "websocket.receive", "text": "hello"}
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(middleware(app, config=cluster[host].engine)(websocket_scope(cookie), receive, send))
    return sent


def echo(looks: bool, ends: list[int]) -> AsgiApp:
    """Says who it is with each message, and notes the code it is closed with."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        who = session["_user_id"] if looks else "somebody"
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": session["_user_id"] if looks else who})
        ends.append(message["code"])
        if ends == [1008]:
            assert (dict(session), session.id, session.auth_age_s) == ({}, None, None)
        await send({"type": "websocket.send", "text": "too late"})

    return app


@pytest.mark.parametrize("host", ["a", "b", "c"])
@pytest.mark.parametrize("elsewhere", [logs_out, ends_all, rotates])
@pytest.mark.parametrize("middleware", [SessionMiddleware, StarletteMiddleware])
def test_an_open_websocket_is_closed_when_its_session_has_ended(
    timed: InProcessCluster,
    clock: ManualClock,
    elsewhere: Callable[[InProcessCluster, str], None],
    host: str,
    middleware: type[SessionMiddleware],
) -> None:
    """With the first message after the lease, which is not handed on: the app and the client are told 1008, and whatever of
    the app still runs sees an empty session."""
    cookie, ends = logged_in(timed), list[int]()

    def much_later() -> None:
        elsewhere(timed, cookie)
        clock.advance(2.0)

    sent = talk(timed, echo(True, ends), cookie, lambda: None, much_later, lambda: None, host=host, middleware=middleware)
    assert [each["type"] for each in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[-1]["code"] == 1008
    assert ends == [1008]


def test_an_open_websocket_looks_again_once_a_lease(timed: InProcessCluster, clock: ManualClock) -> None:
    """A message within 2 s costs no look, and none after it costs a call on an owner's host; the values stay as they were."""
    cookie, ends = logged_in(timed), list[int]()
    calls: list[int] = []

    def noted(seconds: float) -> Callable[[], None]:
        def happen() -> None:
            calls.append(sum(isinstance(each.call, Fetch) for each in timed.sent))
            clock.advance(seconds)

        return happen

    steps = [noted(1.5), noted(0.5), noted(1.5), noted(0.5), noted(0.0)]
    backup = next(each.target for each in timed.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)
    assert len(talk(timed, echo(True, ends), cookie, *steps, host=third)) == 7
    assert [each - calls[0] for each in calls] == [0, 0, 1, 1, 2]
    calls.clear()
    assert len(talk(timed, echo(True, ends), cookie, *steps, host="a")) == 7
    assert len(set(calls)) == 1
    assert ends == [1000, 1000]


def test_an_open_websocket_that_has_not_looked_stays_open(timed: InProcessCluster, clock: ManualClock) -> None:
    """What needs no session is no business of its end."""
    cookie, ends = logged_in(timed), list[int]()

    def much_later() -> None:
        logs_out(timed, cookie)
        clock.advance(60.0)

    assert len(talk(timed, echo(False, ends), cookie, much_later, lambda: None)) == 4
    assert ends == [1000]


def test_an_open_websocket_stays_open_while_nobody_can_say(timed: InProcessCluster, clock: ManualClock) -> None:
    """Silence is no logout; it is asked again with the next message, and then it is closed."""
    cookie, ends = logged_in(timed), list[int]()
    backup = next(each.target for each in timed.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)

    def silence() -> None:
        logs_out(timed, cookie)
        clock.advance(2.0)
        timed.down("a", backup)

    sent = talk(timed, echo(True, ends), cookie, silence, lambda: timed.back("a", backup), host=third)
    assert [each["type"] for each in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert ends == [1008]


def test_an_open_websocket_that_has_changed_an_ended_session_hears_of_it(timed: InProcessCluster, clock: ManualClock) -> None:
    """What it changed can't be saved any more, and is not forgotten without a word."""
    cookie = logged_in(timed)

    def much_later() -> None:
        logs_out(timed, cookie)
        clock.advance(2.0)

    with pytest.raises(LateWrite):
        talk(timed, chat_open, cookie, lambda: None, much_later)
    assert values(timed, cookie, "c") == {}


async def chat_open(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        scope["session"]["said"] = message["text"]


def test_the_age_of_a_login_goes_on_in_an_open_websocket(timed: InProcessCluster, clock: ManualClock) -> None:
    """`require_fresh` asks how old it is now, not how old it was when the socket was opened."""
    cookie, ages = logged_in(timed), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            ages.append((session.auth_age_s, session.created_age_s))
            session.require_fresh(300)

    with pytest.raises(LoginTooOld):
        talk(timed, app, cookie, lambda: clock.advance(300), lambda: clock.advance(1))
    assert ages == [(300.0, 300.0), (301.0, 301.0)]


def test_a_websocket_may_look_again_itself(timed: InProcessCluster) -> None:
    """`arefresh` shows what others have changed, in plain ASGI and in Starlette; and that nobody is logged in any more."""
    cookie, seen = logged_in(timed), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session["_user_id"]
        await send({"type": "websocket.accept"})
        engine = timed["a"].engine
        other = engine.visit((cookie,), blocking=True)
        other.session["role"] = "admin"
        engine.blocking.run(other.save(), other.budget)
        seen.append(dict(session))
        await session.arefresh()
        seen.append(dict(session))
        logs_out(timed, cookie)
        await session.arefresh()
        seen.append((dict(session), session.id, session.auth_age_s))

    for middleware in (SessionMiddleware, StarletteMiddleware):
        cookie, seen[:] = logged_in(timed), []
        engine = timed["b"].engine
        asyncio.run(acall(middleware(app, config=engine), websocket_scope(cookie), []))
        assert seen == [{"_user_id": "7"}, {"_user_id": "7", "role": "admin"}, ({}, None, None)]


def test_a_websocket_without_its_session_is_told_to_try_again(cluster: InProcessCluster, cookie: str, unreachable: str) -> None:
    """Close code 1013, or a whole 503 where the server can send one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"]

    (closed,) = connect(cluster, app, cookie, unreachable)
    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
    start, body = connect(cluster, app, cookie, unreachable, extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert dict(start["headers"])[b"retry-after"] == b"1"
    assert body["type"] == "websocket.http.response.body"


def test_what_a_websocket_changed_is_saved_also_if_it_ends_with_an_error(cluster: InProcessCluster, cookie: str) -> None:
    """As most of Starlette's and FastAPI's do: the client closes, and `receive_text` raises `WebSocketDisconnect`."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            websocket.session["said"] = await websocket.receive_text()

    middleware = [Middleware(StarletteMiddleware, config=cluster["c"].engine)]
    app = Starlette(routes=[WebSocketRoute("/", endpoint)], middleware=middleware)
    incoming = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    with pytest.raises(WebSocketDisconnect):
        asyncio.run(acall(app, websocket_scope(cookie), incoming))
    assert values(cluster, cookie, "b") == {"n": 1, "said": "hello"}


def test_starlettes_websocket_has_it_too(cluster: InProcessCluster, cookie: str) -> None:
    """`websocket.session`, as with Starlette's own middleware."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.session["n"]))
        await websocket.close()

    middleware = [Middleware(SessionMiddleware, config=cluster["c"].engine)]
    app = Starlette(routes=[WebSocketRoute("/", endpoint)], middleware=middleware)
    sent = asyncio.run(acall(app, websocket_scope(cookie), [{"type": "websocket.connect"}]))
    assert [each.get("text") for each in sent if each["type"] == "websocket.send"] == ["1"]


def test_an_error_page_for_a_session_that_cannot_be_reached_is_a_503(
    cluster: InProcessCluster, cookie: str, unreachable: str
) -> None:
    """Frameworks that catch what an endpoint raises make a 500 of it; one of another cause stays what it is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            scope["session"]["n"]
        except SessionUnavailable:
            pass
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"oops"})

    answer = call(cluster, app, cookie, host=unreachable)
    assert (answer.status, answer.one("Retry-After")) == (503, "1")
    cluster.back("a", "b", "c")
    assert call(cluster, app, cookie, host=unreachable).status == 500
