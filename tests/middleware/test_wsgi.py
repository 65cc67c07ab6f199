"""The WSGI middleware against PEP 3333: when the session is saved, and what the server gets to see."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn
from wsgiref.util import FileWrapper

import pytest

from clustersession.errors import ChangeAfterResponse, SessionUnavailable, ValueNotSupported
from clustersession.middleware.wsgi import SESSION, SessionMiddleware
from clustersession.testing.in_process import InProcessCluster
from tests.middleware.calling import Answer, call_wsgi, environ_of

App = Callable[[Any, Any], Iterable[bytes]]
OK = "200 OK"
PLAIN = [("Content-Type", "text/plain")]


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


@pytest.fixture
def cookie(cluster: InProcessCluster) -> str:
    return made(cluster, n=1)


def made(cluster: InProcessCluster, **values: object) -> str:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION].update(values)
        start_response(OK, PLAIN)
        return [b""]

    return call(cluster, app).pair


def failing() -> NoReturn:
    raise ZeroDivisionError


def call(cluster: InProcessCluster, app: App, cookie: str | None = None, host: str = "a") -> Answer:
    return call_wsgi(SessionMiddleware(app, cluster[host].engine), "/", cookie)


def values(cluster: InProcessCluster, cookie: str, host: str = "b") -> dict[str, Any]:
    return dict(cluster[host].engine.visit((cookie,), blocking=True).session)


class Server:
    """Records what a server is told, in order."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.written: list[bytes] = []

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        if self.written and exc_info:
            raise exc_info[1].with_traceback(exc_info[2])
        self.heads.append((status, headers))
        return self.written.append

    def serve(self, app: Any, cookie: str | None = None, file_wrapper: Any = None) -> Iterable[bytes]:
        more = {} if file_wrapper is None else {"wsgi.file_wrapper": file_wrapper}
        body: Iterable[bytes] = app(environ_of("/", cookie, **more), self.start_response)
        return body


# --- when it is saved ----------------------------------------------------------------------------------------------------


def test_the_response_starts_when_the_session_is_stored(cluster: InProcessCluster, cookie: str) -> None:
    """A redirect can't overtake the write: when the server hears of the response, every host reads the new value."""
    seen: list[dict[str, Any]] = []

    class Watching(Server):
        def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            seen.append(values(cluster, cookie))
            return super().start_response(status, headers, exc_info)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        environ[SESSION]["n"] = 2  # after start_response, before the return
        return [b"x"]

    Watching().serve(SessionMiddleware(app, cluster["a"].engine), cookie)
    assert seen == [{"n": 2}]


def test_an_app_that_starts_its_response_with_the_first_item(cluster: InProcessCluster, cookie: str) -> None:
    """A generator calls start_response only when it is iterated: what it changes before its first item is in time."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        environ[SESSION]["_user_id"] = "7"
        yield b"one"
        yield b"two"

    answer = call(cluster, app, cookie)
    assert answer.body == b"onetwo"
    assert values(cluster, answer.pair) == {"n": 1, "_user_id": "7"}


def test_write_starts_the_response_after_a_save(cluster: InProcessCluster, cookie: str) -> None:
    """The old callable that start_response returns."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response(OK, PLAIN)
        environ[SESSION]["_user_id"] = "7"
        write(b"one")
        return [b"two"]

    answer = call(cluster, app, cookie)
    assert answer.body == b"onetwo"
    assert values(cluster, answer.pair) == {"n": 1, "_user_id": "7"}


def test_what_changes_after_write_is_saved_also_where_a_list_is_the_rest(cluster: InProcessCluster, cookie: str) -> None:
    """A change, then a logout; a session begun there raises, since its cookie can't go out any more."""

    def app_that(change: Callable[[Any], object]) -> App:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            write = start_response(OK, PLAIN)
            write(b"one")
            change(environ[SESSION])
            return [b"two"]

        return app

    assert call(cluster, app_that(lambda session: session.update(late=1)), cookie).body == b"onetwo"
    assert values(cluster, cookie) == {"n": 1, "late": 1}
    call(cluster, app_that(lambda session: session.end()), cookie)
    assert values(cluster, cookie) == {}
    with pytest.raises(ChangeAfterResponse):
        call(cluster, app_that(lambda session: session.update(late=1)))


def test_a_body_without_items_is_saved_too(cluster: InProcessCluster, cookie: str) -> None:
    """An empty generator, as for a redirect."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ[SESSION]["n"] = 2
        start_response("303 See Other", [*PLAIN, ("Location", "/")])
        yield from ()

    assert call(cluster, app, cookie).status == 303
    assert values(cluster, cookie) == {"n": 2}


def test_what_changes_in_the_body_or_when_it_is_closed_is_saved(cluster: InProcessCluster, cookie: str) -> None:
    """Also when the client goes away in the middle: then the server only calls close()."""
    closed: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        return body(environ[SESSION])

    def body(session: Any) -> Iterator[bytes]:
        try:
            yield b"one"
            session["n"] = 2
            yield b"two"
        finally:
            session["closed"] = True
            closed.append("once")

    server = Server()
    response = server.serve(SessionMiddleware(app, cluster["a"].engine), cookie)
    iterator = iter(response)
    assert [next(iterator), next(iterator)] == [b"one", b"two"]
    response.close()  # type: ignore[attr-defined]
    assert values(cluster, cookie) == {"n": 2, "closed": True}
    assert closed == ["once"]
    assert "Set-Cookie" not in dict(server.heads[0][1])


def test_the_end_of_the_body_is_sent_after_its_changes_are_saved(cluster: InProcessCluster, cookie: str) -> None:
    """A client that has read the whole answer finds them with its next request; servers close the body only later."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        return body(environ[SESSION])

    def body(session: Any) -> Iterator[bytes]:
        yield b"one"
        session["n"] = 2

    assert list(Server().serve(SessionMiddleware(app, cluster["a"].engine), cookie)) == [b"one"]
    assert values(cluster, cookie) == {"n": 2}


def test_a_change_that_needs_a_new_cookie_raises_once_the_response_has_started(cluster: InProcessCluster) -> None:
    """A new session, and a login, in the middle of a body cannot be kept, and are not lost silently."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        return body(environ[SESSION])

    def body(session: Any) -> Iterator[bytes]:
        yield b"one"
        session["_user_id"] = "7"

    for cookie in (None, made(cluster, n=1)):
        with pytest.raises(ChangeAfterResponse):
            call(cluster, app, cookie)


def test_a_change_after_the_end_of_the_response_raises_at_once(cluster: InProcessCluster, cookie: str) -> None:
    """Whoever keeps the session for a later job is told where the mistake is."""
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        kept.append(environ[SESSION])
        start_response(OK, PLAIN)
        return [b"x"]

    call(cluster, app, cookie)
    with pytest.raises(ChangeAfterResponse):
        kept[0]["n"] = 2


def test_a_session_that_is_first_looked_at_after_the_response_shows_what_is_stored(
    cluster: InProcessCluster, cookie: str
) -> None:
    """A middleware outside of ours that logs who it was need not know whether the page has looked; a change still raises."""
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        kept.append(environ[SESSION])
        start_response(OK, PLAIN)
        return [b"x"]

    call(cluster, app, cookie, "c")
    with cluster.silence():
        assert repr(kept[0]) == "<Session not loaded>"
    assert kept[0].get("n") == 1
    with pytest.raises(ChangeAfterResponse):
        kept[0]["n"] = 2
    call(cluster, app, cookie, "c")
    with pytest.raises(ChangeAfterResponse):
        kept[1].end()
    assert values(cluster, cookie) == {"n": 1}


def test_a_late_look_that_nobody_answers_is_no_empty_session(cluster: InProcessCluster, cookie: str, unreachable: str) -> None:
    """It raises, as one in time does."""
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        kept.append(environ[SESSION])
        start_response(OK, PLAIN)
        return [b"x"]

    call(cluster, app, cookie, unreachable)
    with pytest.raises(SessionUnavailable):
        kept[0].get("n")


# --- what the server gets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [[b"x", b"y"], (b"x",)])
def test_a_complete_body_reaches_the_server_as_it_is(cluster: InProcessCluster, body: Iterable[bytes]) -> None:
    """Servers send a list of one item with its Content-Length."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["n"] = 1
        start_response(OK, PLAIN)
        return body

    assert Server().serve(SessionMiddleware(app, cluster["a"].engine)) is body


def test_a_file_reaches_the_server_as_it_is(cluster: InProcessCluster) -> None:
    """Else it could not use sendfile."""
    file = FileWrapper(io.BytesIO(b"content"))

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        return file

    assert Server().serve(SessionMiddleware(app, cluster["a"].engine), file_wrapper=FileWrapper) is file


def test_a_file_wrapper_that_is_a_function_does_no_harm(cluster: InProcessCluster) -> None:
    """uWSGI's is not a class."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        return iter([b"x"])

    body = Server().serve(SessionMiddleware(app, cluster["a"].engine), file_wrapper=lambda file: file)
    assert list(body) == [b"x"]


def test_the_apps_headers_stay_as_they_are(cluster: InProcessCluster) -> None:
    """Set-Cookie is appended, Vary and Cache-Control are merged, and nothing else is touched."""
    mine = [
        ("Set-Cookie", "a=1"),
        ("vary", "Accept"),
        ("Cache-Control", "public, max-age=60"),
        *PLAIN,
        ("Set-Cookie", "b=2"),
    ]

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["n"] = 1
        start_response(OK, mine)
        return [b"x"]

    answer = call(cluster, app)
    assert answer.headers[:5] == [
        ("Set-Cookie", "a=1"),
        ("vary", "Accept, Cookie"),
        ("Cache-Control", "max-age=60, no-store"),
        *PLAIN,
        ("Set-Cookie", "b=2"),
    ]
    assert [name for name, _ in answer.headers[5:]] == ["Set-Cookie"]
    assert len(mine) == 5, "the app's own list is not changed"


def test_close_is_passed_on_once(cluster: InProcessCluster) -> None:
    """Also for a body that is replaced by an error."""
    closed: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            closed.append("closed")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["n"] = 2
        start_response(OK, PLAIN)
        return Body()

    call(cluster, app)
    assert closed == ["closed"]
    cookie, closed[:] = made(cluster, n=1), []
    engine = cluster["a"].engine
    visit = engine.visit((cookie,), blocking=True)

    def late(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["n"] = 2
        visit.session.end()
        engine.blocking.run(visit.save(), visit.budget)
        start_response(OK, PLAIN)
        return Body()

    assert call(cluster, late, cookie).status == 409
    assert closed == ["closed"]


# --- an app that fails -----------------------------------------------------------------------------------------------------


def test_a_logout_counts_also_if_the_first_item_of_the_body_fails(cluster: InProcessCluster, cookie: str) -> None:
    """The server has not heard of a response yet, and makes the error page."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        environ[SESSION].end()
        failing()
        yield b"x"

    with pytest.raises(ZeroDivisionError):
        call(cluster, app, cookie)
    assert [values(cluster, cookie, host) for host in "abc"] == [{}] * 3


def test_a_logout_counts_also_if_what_was_set_after_it_cannot_be_held(cluster: InProcessCluster, cookie: str) -> None:
    """The error is the app's, and the session is dead."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION].end()
        environ[SESSION]["strange"] = object()
        start_response(OK, PLAIN)
        return [b"x"]

    with pytest.raises(ValueNotSupported):
        call(cluster, app, cookie)
    assert values(cluster, cookie) == {}


def test_what_changed_after_write_is_saved_also_if_the_app_fails(cluster: InProcessCluster, cookie: str) -> None:
    """And a session begun there is told, with the app's error as the cause."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response(OK, PLAIN)
        write(b"one")
        environ[SESSION]["late"] = 1
        failing()

    with pytest.raises(ZeroDivisionError):
        call(cluster, app, cookie)
    assert values(cluster, cookie) == {"n": 1, "late": 1}
    with pytest.raises(ChangeAfterResponse) as caught:
        call(cluster, app)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_the_app_stays_what_it_is_where_its_logout_cannot_be_stored(
    cluster: InProcessCluster, cookie: str, unreachable: str
) -> None:
    """The server gets the app's own error, with a note."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION].end()
        failing()

    with pytest.raises(ZeroDivisionError) as caught:
        call(cluster, app, cookie, unreachable)
    (note,) = caught.value.__notes__
    assert "end or lock could not be stored" in note


def test_what_ends_the_process_waits_for_nothing(cluster: InProcessCluster, cookie: str) -> None:
    """A worker that is told to go sends no call for the request that it leaves."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION].end()
        raise SystemExit(1)

    with cluster.silence(), pytest.raises(SystemExit):
        call(cluster, app, cookie)


# --- exc_info --------------------------------------------------------------------------------------------------------------


def test_an_error_page_replaces_a_response_that_was_not_sent(cluster: InProcessCluster, cookie: str) -> None:
    """start_response may be called again with exc_info; the session is saved once, with the second head."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["n"] = 2
        start_response(OK, PLAIN)
        try:
            failing()
        except ZeroDivisionError:
            start_response("500 Oops", [*PLAIN, ("X-Error", "1")], sys.exc_info())
        return [b"error"]

    answer = call(cluster, app, cookie)
    assert (answer.status, answer.one("X-Error"), answer.body) == (500, "1", b"error")
    assert values(cluster, cookie) == {"n": 2}


def test_an_error_after_the_save_keeps_the_new_cookie(cluster: InProcessCluster) -> None:
    """The session exists by then, so its ID must go out with the error page too."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["n"] = 1
        start_response(OK, PLAIN)
        return body(start_response)

    def body(start_response: Any) -> Iterator[bytes]:
        try:
            failing()
        except ZeroDivisionError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"error"

    server = Server()
    assert list(server.serve(SessionMiddleware(app, cluster["a"].engine))) == [b"error"]
    (first, ours), (second, replaced) = server.heads
    assert (first, second) == (OK, "500 Oops")
    assert [value for name, value in ours if name == "Set-Cookie"] == [v for name, v in replaced if name == "Set-Cookie"]


def test_an_error_after_the_first_byte_is_the_servers(cluster: InProcessCluster) -> None:
    """It raises what it is given, as PEP 3333 says."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response(OK, PLAIN)
        write(b"one")
        try:
            failing()
        except ZeroDivisionError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        return []

    with pytest.raises(ZeroDivisionError):
        Server().serve(SessionMiddleware(app, cluster["a"].engine))


def test_calling_start_response_twice_is_the_apps_mistake(cluster: InProcessCluster) -> None:
    """Without exc_info."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, PLAIN)
        start_response(OK, PLAIN)
        return []

    with pytest.raises(AssertionError, match="twice"):
        Server().serve(SessionMiddleware(app, cluster["a"].engine))


# --- sessions that cannot be reached -----------------------------------------------------------------------------------


@pytest.fixture
def unreachable(cluster: InProcessCluster, cookie: str) -> str:
    """The host that is no owner of the session, both of whose owners are down."""
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down("a", backup)
    return next(name for name in "bc" if name != backup)


def test_an_app_that_catches_the_error_goes_on(cluster: InProcessCluster, cookie: str, unreachable: str) -> None:
    """A page that can do without the session decides for itself."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            environ[SESSION]["n"]
        except SessionUnavailable:
            start_response(OK, PLAIN)
        return [b"without"]

    answer = call(cluster, app, cookie, unreachable)
    assert (answer.status, answer.body, answer.cookies, answer.varies) == (200, b"without", [], True)


def test_an_error_before_the_first_item_is_a_503(cluster: InProcessCluster, cookie: str, unreachable: str) -> None:
    """Although start_response was called: the server has not heard of it."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        yield str(environ[SESSION]["n"]).encode()

    answer = call(cluster, app, cookie, unreachable)
    assert (answer.status, answer.one("Retry-After"), answer.cookies) == (503, "1", [])


def test_an_error_after_the_first_item_cuts_the_response(cluster: InProcessCluster, cookie: str, unreachable: str) -> None:
    """It can't be an error page any more, and must not look complete."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        yield b"one"
        yield str(environ[SESSION]["n"]).encode()

    with pytest.raises(SessionUnavailable):
        call(cluster, app, cookie, unreachable)


def test_policy_anonymous_shows_an_empty_session_and_writes_nothing(
    cluster: InProcessCluster, cookie: str, unreachable: str
) -> None:
    """Reads go on without the session; a write must not begin a second one in its place."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        session = environ[SESSION]
        seen = dict(session)
        if environ["PATH_INFO"] == "/write":
            session["n"] = 2
        start_response(OK, PLAIN)
        return [repr(seen).encode()]

    wrapped = SessionMiddleware(app, cluster[unreachable].engine_with(unavailable="anonymous"))
    read, write = (call_wsgi(wrapped, path, cookie) for path in ("/read", "/write"))
    assert (read.status, read.body, read.cookies) == (200, b"{}", [])
    assert (write.status, write.cookies) == (503, [])


def test_an_error_page_for_a_session_that_cannot_be_reached_is_a_503(
    cluster: InProcessCluster, cookie: str, unreachable: str
) -> None:
    """Frameworks that catch what a view raises make a 500 of it; one of another cause stays what it is."""

    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["clustersession.session"]["n"]
        except SessionUnavailable:
            pass
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"oops"]

    answer = call(cluster, app, cookie, host=unreachable)
    assert (answer.status, answer.one("Retry-After")) == (503, "1")
    cluster.back("a", "b", "c")
    assert call(cluster, app, cookie, host=unreachable).status == 500
