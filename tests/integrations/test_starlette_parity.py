"""Starlette's habits that an app may rely on: a session that is a dict, its middleware's arguments, everywhere a request goes."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from clustersession.errors import ChangeAfterResponse, ConfigError, SessionUnavailable, ValueNotSupported
from clustersession.integrations.starlette import SessionMiddleware, StarletteSession, session_of
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import answer_of

with warnings.catch_warnings(action="ignore"):  # it would rather have another HTTP client than the one that is installed
    from starlette.testclient import TestClient


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


def with_cookie(client: TestClient, cookie: str) -> TestClient:
    client.cookies.set("cs", cookie, domain="testserver.local", path="/")  # where a new one replaces it
    return client


def client_of(endpoint: Any, cluster: InProcessCluster | None = None, host: str = "a", *, cs: str | None = None) -> TestClient:
    """For an app whose every path is `endpoint`."""
    config = None if cluster is None else cluster[host].engine
    app = Starlette(routes=[Route("/{path:path}", endpoint)], middleware=[Middleware(SessionMiddleware, config=config)])
    return TestClient(app) if cs is None else with_cookie(TestClient(app), cs)


def stored(cluster: InProcessCluster, cookie: str, host: str = "b") -> dict[str, Any]:
    return dict(cluster[host].engine.visit((f"cs={cookie}",), blocking=True).session)


def begun(cluster: InProcessCluster, **values: Any) -> str:
    """The cookie of a session with these values."""

    async def begin(request: Request) -> Response:
        request.session.update(values)
        return PlainTextResponse("ok")

    client = client_of(begin, cluster)
    client.get("/")
    return str(client.cookies["cs"])


# --- a dict ----------------------------------------------------------------------------------------------------------------

VALUES = {"a": 1, "list": [1, 2], "b": "x"}


def test_it_is_a_dict_for_whoever_looks_closely(cluster: InProcessCluster) -> None:
    """`json`, copies, comparisons, unpacking: the values as they are, in their order."""
    seen: dict[str, Any] = {}

    async def look(request: Request) -> Response:
        session = request.session
        seen["looks"] = [
            isinstance(session, dict),
            json.loads(json.dumps(session)) == VALUES,
            dict(session) == {**session} == session == VALUES,
            session == VALUES,
            list(session) == list(session.keys()) == ["a", "list", "b"],
            list(reversed(session)) == ["b", "list", "a"],
            list(session.items()) == list(VALUES.items()),
            list(session.values()) == list(VALUES.values()),
            session | {"c": 2} == {**VALUES, "c": 2},
            {"c": 2} | session == {"c": 2, **VALUES},
            type(session.copy()) is type(copy.copy(session)) is type(copy.deepcopy(session)) is dict,
            pickle.loads(pickle.dumps(session)) == VALUES,
            (len(session), bool(session), "a" in session, "z" in session, session != {}) == (3, True, True, False, True),
            (session.get("z"), session.get("z", 1), session["a"]) == (None, 1, 1),
            "x" not in repr(session),
        ]
        return JSONResponse(session)

    client = client_of(look, cluster, "b", cs=begun(cluster, **VALUES))
    for _ in range(2):  # the second time its values come decoded
        answer = client.get("/")
        assert seen["looks"] == [True] * 15
        assert (answer.json(), "set-cookie" in answer.headers) == (VALUES, False)


OPERATIONS: dict[str, Any] = {
    "setitem": (lambda session: session.__setitem__("a", 2), {**VALUES, "a": 2}),
    "delitem": (lambda session: session.__delitem__("a"), {"list": [1, 2], "b": "x"}),
    "pop": (lambda session: session.pop("list"), {"a": 1, "b": "x"}),
    "pop default": (lambda session: session.pop("z", None), VALUES),
    "popitem": (lambda session: session.popitem(), {"a": 1, "list": [1, 2]}),
    "update": (lambda session: session.update({"a": 3}, c=4), {**VALUES, "a": 3, "c": 4}),
    "ior": (lambda session: session.__ior__({"c": 4}), {**VALUES, "c": 4}),
    "setdefault": (lambda session: session.setdefault("c", []).append(1), {**VALUES, "c": [1]}),
    "setdefault of one that is there": (lambda session: session.setdefault("list", []).append(3), {**VALUES, "list": [1, 2, 3]}),
    "in place": (lambda session: session["list"].append(3), {**VALUES, "list": [1, 2, 3]}),
    "in place, of get": (lambda session: session.get("list").append(3), {**VALUES, "list": [1, 2, 3]}),
    "in place, of values": (lambda session: list(session.values())[1].append(3), {**VALUES, "list": [1, 2, 3]}),
    "in place, of items": (lambda session: dict(session.items())["list"].append(3), {**VALUES, "list": [1, 2, 3]}),
    "in place, of a copy": (lambda session: session.copy()["list"].append(3), {**VALUES, "list": [1, 2, 3]}),
    "in place, unpacked": (lambda session: {**session}["list"].append(3), {**VALUES, "list": [1, 2, 3]}),
    "replaced, then in place": (
        lambda session: (session.update(list=[9]), session["list"].append(3)),
        {**VALUES, "list": [9, 3]},
    ),
    "clear": (lambda session: (session.clear(), session.update(c=1)), {"c": 1}),
    "end": (lambda session: (session.end(), session.update(c=1)), {"c": 1}),
    "rotate": (lambda session: session.rotate(), VALUES),
    "nothing": (list, VALUES),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_changes_it_is_saved(cluster: InProcessCluster, name: str) -> None:
    """And the dict shows it at once. Also with the values of an earlier request at hand, which it must not change."""
    change, expected = OPERATIONS[name]
    shown: list[dict[str, Any]] = []

    async def act(request: Request) -> Response:
        if "look" in request.url.path:
            shown.append(dict(request.session))
        else:
            change(request.session)
            shown.append(dict(request.session))
        return PlainTextResponse("ok")

    client = client_of(act, cluster, "a", cs=begun(cluster, **VALUES))
    for path in ("/look", "/act", "/look"):
        client.get(path)
    assert shown == [VALUES, expected, expected]
    assert stored(cluster, client.cookies["cs"]) == expected


def test_reading_writes_nothing(cluster: InProcessCluster) -> None:
    """Not even a session with lists in it that were looked at."""

    async def read(request: Request) -> Response:
        return JSONResponse({"list": request.session["list"], "all": request.session})

    cookie = begun(cluster, **VALUES)
    before = len(cluster.sent)
    client_of(read, cluster, "a", cs=cookie).get("/")
    assert [each for each in cluster.sent[before:] if type(each.call).__name__ in ("Apply", "Deliver")] == []


def test_a_value_that_cannot_be_kept_is_refused_where_it_is_set(cluster: InProcessCluster) -> None:
    """A key that is no text at once; a value when the request ends."""

    async def wrong(request: Request) -> Response:
        with pytest.raises(ValueNotSupported):
            request.session[1] = "x"  # type: ignore[index]
        assert dict(request.session) == {}
        return PlainTextResponse("ok")

    assert client_of(wrong, cluster).get("/").status_code == 200


def test_a_value_of_another_release_is_missing_and_kept(cluster: InProcessCluster) -> None:
    """To the app it is not there; it is there for the release that knows it."""
    cookie = begun(cluster, a=1)
    engine = cluster["a"].engine
    visit = engine.visit((f"cs={cookie}",), blocking=True)
    visit.session["newer"] = "x"
    assert visit.pending()
    visit._changes = {"newer": b"\xc1"}  # no MessagePack
    engine.blocking.run(visit.carry_out(), visit.budget)

    async def look(request: Request) -> Response:
        request.session["b"] = request.session.get("newer", "missing")
        return JSONResponse(request.session)

    client = client_of(look, cluster, "a", cs=cookie)
    for _ in range(2):
        assert client.get("/").json() == {"a": 1, "b": "missing"}
    record = engine.host.record(visit.ticket.sid.key)  # type: ignore[union-attr]
    assert record is not None
    assert record.items["newer"][1] == b"\xc1"


def test_what_it_has_beyond_a_dict(cluster: InProcessCluster) -> None:
    """Handle, ages, placement; `session_of` for type checkers and as a dependency."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(SessionMiddleware, config=cluster["a"].engine)

    @app.get("/")
    def index(session: Annotated[StarletteSession, Depends(session_of)]) -> dict[str, Any]:
        session["n"] = session.get("n", 0) + 1
        session.set_lifetime(60, None)
        master = None if session.placement is None else session.placement.master
        known = session.created_age_s is not None
        return {"id": session.id, "new": session.is_new, "master": master, "known": known, "auth": session.auth_age_s}

    client = TestClient(app)
    assert client.get("/").json() == {"id": None, "new": True, "master": None, "known": False, "auth": None}
    second = client.get("/").json()
    assert (len(second["id"]), second["new"], second["master"], second["known"]) == (32, False, "a", True)


# --- sessions that cannot be reached -------------------------------------------------------------------------------------


@pytest.fixture
def unreachable(cluster: InProcessCluster) -> tuple[str, str]:
    """A cookie, and the host that is no owner of its session, whose owners are both down."""
    cookie = begun(cluster, k="v")
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down("a", backup)
    return cookie, next(name for name in "bc" if name != backup)


class Model(BaseModel):
    k: str = "unknown"


def test_an_unknown_session_is_never_shown_as_an_empty_one(cluster: InProcessCluster, unreachable: tuple[str, str]) -> None:
    """Not even to code that looks into the dict behind its back."""
    cookie, host = unreachable

    async def behind(request: Request) -> Response:
        return JSONResponse({"model": Model.model_validate(dict.copy(request.session)).k})

    answer = client_of(behind, cluster, host, cs=cookie).get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    cluster.back("a", "b", "c")
    assert client_of(behind, cluster, host, cs=cookie).get("/").json() == {"model": "v"}


def test_an_app_that_has_been_told_may_go_on(cluster: InProcessCluster, unreachable: tuple[str, str]) -> None:
    """It serves a page without the session."""
    cookie, host = unreachable

    async def careful(request: Request) -> Response:
        try:
            who = request.session["k"]
        except SessionUnavailable:
            who = "unknown"
        return PlainTextResponse(who)

    answer = client_of(careful, cluster, host, cs=cookie).get("/")
    assert (answer.status_code, answer.text, "set-cookie" in answer.headers) == (200, "unknown", False)


# --- the middleware's arguments --------------------------------------------------------------------------------------------


def attributes(**arguments: Any) -> list[str]:
    """Of the Set-Cookie header: the name, and what comes after the value."""

    async def begin(request: Request) -> Response:
        request.session["k"] = "v"
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", begin)], middleware=[Middleware(SessionMiddleware, **arguments)])
    pair, *rest = TestClient(app).get("/").headers["set-cookie"].split("; ")
    return [pair.partition("=")[0], *rest]


def test_starlettes_arguments() -> None:
    """Its defaults, and each of its arguments; `secret_key` is taken and not used."""
    assert attributes() == ["cs", "Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=1209600"]
    found = attributes(
        secret_key="unused",
        session_cookie="shop",
        max_age=None,
        path="/shop",
        same_site="strict",
        https_only=True,
        domain="example.org",
        partitioned=True,
    )
    assert found == ["shop", "Path=/shop", "HttpOnly", "SameSite=Strict", "Domain=example.org", "Secure", "Partitioned"]
    assert attributes(https_only=True, max_age=60) == [
        "__Host-cs",
        "Path=/",
        "HttpOnly",
        "SameSite=Lax",
        "Secure",
        "Max-Age=60",
    ]


def test_the_environment_goes_before_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's word counts more than the code's."""
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_NAME", "ours")
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_MAX_AGE", "1h")
    monkeypatch.setenv("CLUSTERSESSION_IDLE_TIMEOUT", "5m")
    assert attributes(session_cookie="shop", max_age=60) == ["ours", "Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=3600"]
    middleware = SessionMiddleware(lambda scope, receive, send: None, max_age=60)  # type: ignore[arg-type, return-value]
    assert middleware._engine.config.lifetimes.idle_s == 300


def test_sessions_live_as_long_as_the_argument_says() -> None:
    """14 days unless something else is said; what has no life at all is over at once."""

    def idle(**arguments: Any) -> float | None:
        middleware = SessionMiddleware(lambda scope, receive, send: None, **arguments)  # type: ignore[arg-type, return-value]
        assert middleware._engine.config.lifetimes.absolute_s is None
        return middleware._engine.config.lifetimes.idle_s

    assert [idle(), idle(max_age=60), idle(max_age=None)] == [1209600, 60, 1209600]
    assert (idle(max_age=0) or 1) < 0.001


def test_a_wrong_argument_is_named() -> None:
    """With the stack, before the first request."""
    with pytest.raises(ConfigError, match="same_site: 'never'"):
        attributes(same_site="never")


# --- everywhere a request goes -------------------------------------------------------------------------------------------


def test_dependencies_of_all_kinds_see_one_session(cluster: InProcessCluster) -> None:
    """Sync ones run in threads, those with `yield` end after the response has started: what they change then is saved."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(SessionMiddleware, config=cluster["a"].engine)

    def sync(request: Request) -> None:
        request.session["sync"] = request.session.get("sync", 0) + 1

    async def asynchronous(request: Request) -> None:
        request.session["async"] = request.session["sync"]

    def around(request: Request) -> Iterator[None]:
        request.session["before"] = "yes"
        yield
        request.session["after"] = "yes"

    @app.get("/", dependencies=[Depends(sync), Depends(asynchronous), Depends(around)])
    async def index(request: Request) -> dict[str, Any]:
        return dict(request.session)

    client = TestClient(app)
    assert client.get("/").json() == {"sync": 1, "async": 1, "before": "yes"}
    assert client.get("/").json() == {"sync": 2, "async": 2, "before": "yes", "after": "yes"}


def test_mounted_apps_share_the_session(cluster: InProcessCluster) -> None:
    """A sub-app sees what the app around it sees; one with a middleware and a cookie of its own has its own."""

    async def count(request: Request) -> Response:
        request.session["n"] = request.session.get("n", 0) + 1
        return JSONResponse(dict(request.session))

    own = Starlette(routes=[Route("/", count)], middleware=[Middleware(SessionMiddleware, session_cookie="own", path="/own")])
    app = Starlette(
        routes=[Route("/", count), Mount("/sub", Starlette(routes=[Route("/", count)])), Mount("/own", own)],
        middleware=[Middleware(SessionMiddleware, config=cluster["a"].engine)],
    )
    client = TestClient(app)
    assert [client.get(path).json()["n"] for path in ("/", "/sub/", "/own/", "/sub/", "/own/", "/")] == [1, 2, 1, 3, 2, 4]


def test_streaming_bodies_and_background_tasks(cluster: InProcessCluster) -> None:
    """What they change is saved, also in lists; what would need a new cookie raises."""

    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "one "
            request.session["list"].append("streamed")
            yield "two"

        return StreamingResponse(body())

    async def background(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(lambda: request.session["list"].append("later")))

    async def too_late(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(lambda: request.session.update(k="v")))

    async def in_hand(request: Request) -> Response:
        mine = request.session["list"]
        return PlainTextResponse("ok", background=BackgroundTask(mine.append, "in hand"))

    routes = [Route("/stream", stream), Route("/background", background), Route("/hand", in_hand), Route("/late", too_late)]
    app = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, config=cluster["a"].engine)])
    cookie = begun(cluster, list=[])
    client = with_cookie(TestClient(app), cookie)
    assert client.get("/stream").text == "one two"
    client.get("/background")
    client.get("/hand")
    assert stored(cluster, cookie) == {"list": ["streamed", "later", "in hand"]}
    with pytest.raises(ChangeAfterResponse):
        TestClient(app).get("/late")


def test_web_sockets(cluster: InProcessCluster) -> None:
    """The handshake carries the cookie and may set one; what is changed later is saved when the socket closes, key by key."""

    async def talk(websocket: WebSocket) -> None:
        websocket.session["seen"] = websocket.session.get("seen", 0) + 1
        await websocket.accept()
        websocket.session["said"] = await websocket.receive_text()
        await websocket.send_json(dict(websocket.session))
        await websocket.close()

    async def write(request: Request) -> Response:
        request.session["meanwhile"] = "kept"
        return PlainTextResponse("ok")

    routes = [WebSocketRoute("/ws", talk), Route("/write", write)]
    app = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, config=cluster["a"].engine)])
    client = with_cookie(TestClient(app), begun(cluster, k="v"))
    with client.websocket_connect("/ws") as socket:
        client.get("/write")
        socket.send_text("hello")
        assert socket.receive_json() == {"k": "v", "seen": 1, "said": "hello"}
    assert stored(cluster, client.cookies["cs"]) == {"k": "v", "seen": 1, "said": "hello", "meanwhile": "kept"}


def test_a_response_from_a_middleware_inside_carries_the_session(cluster: InProcessCluster) -> None:
    """Errors made into responses, and short cuts before the endpoint, save it too."""

    async def fail(request: Request) -> Response:
        request.session["failed"] = True
        raise KeyError("x")

    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 418)

    app = Starlette(
        routes=[Route("/", fail)],
        middleware=[Middleware(SessionMiddleware, config=cluster["a"].engine)],
        exception_handlers={KeyError: answer},
    )
    client = TestClient(app)
    assert client.get("/").status_code == 418
    assert stored(cluster, client.cookies["cs"]) == {"failed": True}


def test_frameworks_that_hand_the_scope_on_see_a_dict_too(cluster: InProcessCluster) -> None:
    """`scope["session"]` is what `request.session` is."""
    import asyncio

    from tests.middleware.calling import acall, http_scope

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["session"].get("k") == "v"
        assert isinstance(scope["session"], dict)
        await PlainTextResponse("ok")(scope, receive, send)

    wrapped = SessionMiddleware(app, config=cluster["a"].engine)
    messages = asyncio.run(acall(wrapped, http_scope("/", f"cs={begun(cluster, k='v')}")))
    assert answer_of(messages).varies
