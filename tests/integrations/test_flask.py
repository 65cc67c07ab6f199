"""Flask's own ways: its test client, `session_transaction`, error handlers, `permanent`, its settings."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any
from uuid import UUID

import flask
import pytest
from flask import Flask, Response
from markupsafe import Markup

from clustersession.errors import ChangeAfterResponse, ConfigError, SessionTooLarge
from clustersession.integrations.flask import ClusterSession, ClusterSessionInterface, session
from clustersession.runtime import issuing
from clustersession.testing.in_process import InProcessCluster


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


def shop(cluster: InProcessCluster, host: str = "a") -> Flask:
    app = Flask("shop")
    app.testing = True
    ClusterSession(app, cluster[host].engine)

    @app.get("/")
    def index() -> Any:
        return {**session}

    @app.get("/set/<key>/<value>")
    def change(key: str, value: str) -> str:
        session[key] = value
        return "ok"

    @app.get("/logout")
    def logout() -> str:
        session.end()
        return "bye"

    @app.get("/permanent")
    def permanent() -> str:
        session.permanent = True
        return "ok"

    return app


def no_owner_answers(cluster: InProcessCluster) -> str:
    """Both owners of the session that host a has begun are down; the host that is left."""
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down("a", backup)
    return next(name for name in "bc" if name != backup)


def moved(client: Any, app: Flask) -> Any:
    """A client of another host's app with the cookies of this one."""
    cookie = client.get_cookie("cs")
    other = app.test_client()
    if cookie is not None:
        other.set_cookie("cs", cookie.value)
    return other


def test_the_test_client_keeps_the_session(cluster: InProcessCluster) -> None:
    """Login, reading on another host and logout with cookies as Flask's test client keeps them."""
    client = shop(cluster).test_client()
    client.get("/set/_user_id/7")
    assert client.get("/").json == {"_user_id": "7"}
    assert moved(client, shop(cluster, "b")).get("/").json == {"_user_id": "7"}
    client.get("/logout")
    assert client.get_cookie("cs") is None
    assert client.get("/").json == {}


def test_session_transaction_reads_and_writes(cluster: InProcessCluster) -> None:
    """Tests of an app prepare a session, and look into it afterwards."""
    client = shop(cluster).test_client()
    with client.session_transaction() as prepared:
        prepared["_user_id"] = "7"
    assert client.get("/").json == {"_user_id": "7"}
    client.get("/set/cart/3")
    with client.session_transaction() as found:
        assert dict(found) == {"_user_id": "7", "cart": "3"}


def test_opening_does_no_io(cluster: InProcessCluster) -> None:
    """A request that never looks at its session costs no look-up, even on a host that would have to ask others."""
    client = shop(cluster).test_client()
    client.get("/set/k/v")
    app = shop(cluster, no_owner_answers(cluster))

    @app.get("/quiet")
    def quiet() -> str:
        return "quiet"

    with cluster.silence():
        assert moved(client, app).get("/quiet").text == "quiet"


def test_a_session_that_cannot_be_reached_is_a_503_in_the_test_client(cluster: InProcessCluster) -> None:
    """Raised in the view, and at the save where the view wrote without reading; also with `testing`."""
    client = shop(cluster).test_client()
    client.get("/set/k/v")
    app = shop(cluster, no_owner_answers(cluster))
    for path in ("/", "/set/k/w", "/permanent"):
        answer = moved(client, app).get(path)
        assert (answer.status_code, answer.headers["Retry-After"], answer.headers.getlist("Set-Cookie")) == (503, "1", [])
        assert "Cookie" in answer.vary
        assert "b:" not in answer.text, "no host is named to clients"


def test_a_save_that_fails_is_answered_by_the_apps_own_error_page(cluster: InProcessCluster) -> None:
    """Raised in `save_session` it would be a 500; the handler may use the session."""
    client = shop(cluster).test_client()
    client.get("/set/k/v")
    app = shop(cluster)
    pages: list[str] = []

    @app.errorhandler(503)
    def page(error: Exception) -> tuple[str, int, dict[str, str]]:
        pages.append(str(dict(session)))
        return "please wait", 503, {"Retry-After": "7", "X-Page": "1"}

    @app.get("/half")
    def half() -> str:
        session["k"] = session["k"] + "w"
        cluster.down("b", "c")
        return "saved?"

    answer = moved(client, app).get("/half")
    assert (answer.status_code, answer.text) == (503, "please wait")
    assert (answer.headers["Retry-After"], answer.headers["X-Page"]) == ("7", "1")
    assert answer.headers.getlist("Set-Cookie") == []
    assert pages == ["{'k': 'vw'}"]


def test_a_late_write_is_a_409_with_the_apps_own_page(cluster: InProcessCluster) -> None:
    """The response of the view, and its body's close, are not lost sight of."""
    client = shop(cluster).test_client()
    client.get("/set/k/v")
    app = shop(cluster)
    closed: list[str] = []
    engine = cluster["a"].engine

    @app.get("/late")
    def late() -> Response:
        session["k"] = "w"
        other = engine.visit((flask.request.environ["HTTP_COOKIE"],), blocking=True)
        other.session.end()
        engine.blocking.run(other.save(), other.budget)
        response = Response(iter(["a", "b"]))
        response.call_on_close(lambda: closed.append("closed"))
        return response

    answer = moved(client, app).get("/late")
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "0")
    answer.close()
    assert closed == ["closed"]


def test_what_cannot_be_saved_is_the_apps_error(cluster: InProcessCluster) -> None:
    """A session too large reaches the developer as what it is, and users as a 500."""
    app = shop(cluster)

    @app.get("/large")
    def large() -> str:
        session["large"] = "x" * 100_000
        return "ok"

    with pytest.raises(SessionTooLarge):
        app.test_client().get("/large")
    app.testing = False
    app.logger.disabled = True
    assert app.test_client().get("/large").status_code == 500


def test_permanent_gives_the_cookie_a_life(cluster: InProcessCluster) -> None:
    """PERMANENT_SESSION_LIFETIME, from the response that makes it permanent on."""
    app = shop(cluster)
    app.permanent_session_lifetime = timedelta(days=3)
    client = app.test_client()
    first = client.get("/set/k/v")
    assert "Max-Age" not in first.headers["Set-Cookie"]
    assert "; Max-Age=259200" in client.get("/permanent").headers["Set-Cookie"]
    assert "Set-Cookie" not in client.get("/set/k/w").headers


def test_flasks_attributes(cluster: InProcessCluster) -> None:
    """`new`, `modified`, `accessed`, `permanent` as an app may read and set them."""
    app = shop(cluster)
    seen: list[tuple[bool, ...]] = []

    @app.get("/attributes")
    def attributes() -> str:
        seen.append((session.new, session.modified, session.accessed, session.permanent))
        session.setdefault("list", []).append(1)
        session.modified = True
        return "ok"

    client = app.test_client()
    client.get("/attributes")
    client.get("/attributes")
    assert seen == [(True, False, True, False), (False, False, True, False)]
    assert client.get("/").json == {"list": [1, 1]}


def test_an_error_in_a_view_keeps_what_was_set_before_it(cluster: InProcessCluster) -> None:
    """As Flask's own sessions do."""
    app = shop(cluster)
    app.testing = False
    app.logger.disabled = True

    @app.get("/boom")
    def boom() -> str:
        session["before"] = "boom"
        raise ZeroDivisionError

    client = app.test_client()
    assert client.get("/boom").status_code == 500
    assert client.get("/").json == {"before": "boom"}


def test_init_app_reads_flasks_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment says nothing: lifetime, SameSite, and a path that a __Host- cookie could not have."""
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_SECURE", "1")
    extension = ClusterSession()
    app = Flask("shop")
    app.config.update(PERMANENT_SESSION_LIFETIME=60, SESSION_COOKIE_SAMESITE="Strict", APPLICATION_ROOT="/shop")
    extension.init_app(app)
    config = app.extensions["clustersession"].config
    assert (config.lifetimes.idle_s, config.lifetimes.absolute_s) == (60.0, None)
    assert (config.cookie.samesite, config.cookie.path, config.cookie.names) == ("Strict", "/shop", ("__Secure-cs",))
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_SAMESITE", "Lax")
    monkeypatch.setenv("CLUSTERSESSION_IDLE_TIMEOUT", "5m")
    extension.init_app(app)
    config = app.extensions["clustersession"].config
    assert (config.cookie.samesite, config.lifetimes.idle_s) == ("Lax", 300.0)


def test_a_wrong_setting_is_told_when_the_app_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the first request."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    with pytest.raises(ConfigError, match="CLUSTERSESSION_SECRET"):
        ClusterSession(Flask("shop"))


def test_an_app_under_test_needs_no_settings() -> None:
    """Dev mode: memory, no port, a generated secret."""
    app = Flask("shop")
    ClusterSession(app)

    @app.get("/")
    def count() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]


# --- as Flask's own sessions ---------------------------------------------------------------------------------------------


def plain(**settings: Any) -> Flask:
    """An app in dev mode with these settings; `/set/k/v` and `/permanent` as above."""
    app = Flask("shop")
    app.testing = True
    app.config.update(settings)
    ClusterSession(app)

    @app.get("/set/<key>/<value>")
    def change(key: str, value: str) -> str:
        session[key] = value
        return "ok"

    @app.get("/get/<key>")
    def get(key: str) -> str:
        return str(session.get(key))

    @app.get("/permanent")
    def permanent() -> str:
        session.permanent = True
        session["k"] = "v"
        return "ok"

    return app


def test_no_secret_key_is_needed(cluster: InProcessCluster) -> None:
    """Flashing, and whatever else uses the session, works without one."""
    app = shop(cluster)
    assert app.secret_key is None

    @app.get("/flash")
    def flash() -> str:
        flask.flash("saved", "info")
        return "ok"

    @app.get("/flashed")
    def flashed() -> Any:
        return flask.get_flashed_messages(with_categories=True)

    client = app.test_client()
    client.get("/flash")
    assert client.get("/flashed").json == [["info", "saved"]]
    assert client.get("/flashed").json == []


VALUES: dict[str, Any] = {
    "tuple": (1, "2", (3,)),
    "bytes": b"\xff\x00",
    "markup": Markup("<b>bold</b>"),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "datetime": datetime(2026, 11, 22, 20, 30, 1, tzinfo=UTC),
    "nested": {"list": [(1, 2), b"x"], "text": "é"},
    "tag": {" t": "not-a-tuple"},
    "escaped": {" t__": "not-a-tuple"},
    "dict": {" di": "not-a-dict"},
    "none": None,
}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_tagged_types_stay_what_they_are(cluster: InProcessCluster, name: str) -> None:
    """All that Flask's tagged JSON keeps, and what merely looks like one of its tags."""
    client = shop(cluster).test_client()
    with client.session_transaction() as prepared:
        prepared[name] = VALUES[name]
    with moved(client, shop(cluster, "b")).session_transaction() as found:
        assert found[name] == VALUES[name]
        assert type(found[name]) is type(VALUES[name])


def test_the_attributes_can_be_read_after_the_response(cluster: InProcessCluster) -> None:
    """Tests look at `session` inside `with client`; what they set there is too late and says so."""
    client = shop(cluster).test_client()
    with client:
        client.get("/set/k/v")
        assert (session["k"], session.modified, session.accessed) == ("v", True, True)
        with pytest.raises(ChangeAfterResponse):
            session["k"] = "w"
    with client:
        client.get("/")
        assert not session.modified


def test_who_looks_first_when_the_response_is_made_sees_the_session(cluster: InProcessCluster) -> None:
    """In the signal, at the teardown and in a test, also where the view has not looked; a change is too late there too."""
    app, seen = shop(cluster, "c"), list[Any]()

    @app.get("/quiet")
    def quiet() -> str:
        return "quiet"

    @app.teardown_request
    def tell(error: BaseException | None) -> None:
        seen.append(session.get("k"))

    first = shop(cluster).test_client()
    first.get("/set/k/v")
    client = moved(first, app)
    client.get("/quiet")
    app.teardown_request_funcs.clear()
    with client:
        client.get("/quiet")
        seen.append(session.get("k"))
        with pytest.raises(ChangeAfterResponse):
            session["k"] = "w"

    def finished(sender: Flask, response: Response) -> None:
        seen.append(session.get("k"))

    with flask.request_finished.connected_to(finished, app):
        client.get("/quiet")
    assert seen == ["v"] * 3


def test_what_flask_apps_do_with_a_dict(cluster: InProcessCluster) -> None:
    """Unions from both sides, copies and pickles are dicts with its values, as with Flask's own session, which is a dict."""
    app = shop(cluster)

    @app.get("/copies")
    def copies() -> str:
        session["k"] = [1]
        own = flask.session._get_current_object()  # type: ignore[attr-defined]
        assert {"a": 1} | own == {"a": 1, "k": [1]} == {"a": 1} | session
        assert {"k": 2} | own == {"k": [1]} == own | {}
        shallow, deep, pickled = copy.copy(own), copy.deepcopy(own), pickle.loads(pickle.dumps(own))
        assert shallow == deep == pickled == {"k": [1]}
        assert shallow["k"] is own["k"] is not deep["k"]
        shallow["b"] = 2
        shallow.pop("k")
        return "ok"

    client = app.test_client()
    assert client.get("/copies").status_code == 200
    assert client.get("/").json == {"k": [1]}


def test_a_session_of_a_request_inside_another(cluster: InProcessCluster) -> None:
    """`session_transaction` around a request: each of the two has its own."""
    client = shop(cluster).test_client()
    client.get("/set/k/v")
    with client.session_transaction() as prepared:
        prepared["outer"] = "1"
        client.get("/set/inner/1")
    assert client.get("/").json == {"k": "v", "outer": "1", "inner": "1"}


def test_the_interface_alone_will_do() -> None:
    """`app.session_interface = ClusterSessionInterface()`, also on the class for all apps."""
    app = Flask("shop")
    app.session_interface = ClusterSessionInterface()

    @app.get("/")
    def count() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = app.test_client()
    assert [client.get("/").text for _ in range(2)] == ["1", "2"]


def attributes(answer: Any) -> list[str]:
    """Of the Set-Cookie header: the name, and what comes after the value."""
    pair, *rest = answer.headers["Set-Cookie"].split("; ")
    return [pair.partition("=")[0], *rest]


def test_cookie_settings_of_the_app() -> None:
    """Each of Flask's, where the app has said something."""
    answer = plain().test_client().get("/set/k/v")
    assert attributes(answer) == ["cs", "Path=/", "HttpOnly", "SameSite=Lax"]
    app = plain(
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_DOMAIN=".example.org",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="strict",
        SESSION_COOKIE_PARTITIONED=True,
    )
    expected = ["shop", "Path=/shop", "SameSite=Strict", "Domain=example.org", "Secure", "Partitioned"]
    assert attributes(app.test_client().get("/set/k/v")) == expected


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"SESSION_COOKIE_SECURE": True}, "__Host-cs"),
        ({"SESSION_COOKIE_SECURE": True, "APPLICATION_ROOT": "/shop"}, "__Secure-cs"),
        ({"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_DOMAIN": "example.org"}, "__Secure-cs"),
        ({"SESSION_COOKIE_DOMAIN": "example.org"}, "cs"),
    ],
)
def test_the_name_has_the_strictest_prefix_that_the_settings_allow(settings: dict[str, Any], name: str) -> None:
    """Browsers drop a `__Host-` cookie that has a Domain or is not Secure."""
    assert plain(**settings).extensions["clustersession"].config.cookie.names == (name,)


def test_settings_that_change_later_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """`app.config` may be filled after the extension was made, and tests change it; the environment goes before it."""
    app = plain()
    client = app.test_client()
    client.get("/set/k/v")
    app.config.update(SESSION_COOKIE_SAMESITE="Strict", PERMANENT_SESSION_LIFETIME=60)
    answer = client.get("/permanent")
    assert attributes(answer) == ["cs", "Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=60"]
    assert client.get("/get/k").text == "v"
    assert app.extensions["clustersession"].config.lifetimes.idle_s == 60
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_SAMESITE", "Lax")
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_NAME", "ours")
    app = plain(SESSION_COOKIE_SAMESITE="Strict", SESSION_COOKIE_NAME="shop")
    assert attributes(app.test_client().get("/set/k/v")) == ["ours", "Path=/", "HttpOnly", "SameSite=Lax"]


def test_a_wrong_setting_of_the_app_is_named() -> None:
    """At once, or when it has changed; to Flask's users a `ValueError`."""
    with pytest.raises(ConfigError, match="SESSION_COOKIE_SAMESITE: 'never'"):
        plain(SESSION_COOKIE_SAMESITE="never")
    app = plain()
    app.config["SESSION_COOKIE_SAMESITE"] = "never"
    with pytest.raises(ValueError, match="SESSION_COOKIE_SAMESITE"):
        app.test_client().get("/get/k")


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """For the age of cookies it is so much later."""
    now = time()
    monkeypatch.setattr(issuing, "time", lambda: now + seconds)


@pytest.mark.parametrize(
    ("days", "refresh", "path", "renewed"),
    [
        (7, True, "/get/k", False),
        (9, True, "/get/k", True),
        (9, False, "/get/k", False),
        (9, False, "/set/k/w", True),
    ],
)
def test_a_permanent_cookie_is_renewed_in_time(
    monkeypatch: pytest.MonkeyPatch, days: int, refresh: bool, path: str, renewed: bool
) -> None:
    """When a quarter of its 31 days is over; with SESSION_REFRESH_EACH_REQUEST off only if the session was changed."""
    client = plain(SESSION_REFRESH_EACH_REQUEST=refresh).test_client()
    client.get("/permanent")
    later(monkeypatch, days * 86400)
    answer = client.get(path)
    assert (answer.headers.get("Set-Cookie", "").count("Max-Age=2678400") == 1) == renewed


def test_what_is_not_permanent_any_more_ends_with_the_browser(cluster: InProcessCluster) -> None:
    """The cookie is sent again without an age."""
    app = shop(cluster)

    @app.get("/brief")
    def brief() -> str:
        session.permanent = False
        return "ok"

    client = app.test_client()
    client.get("/permanent")
    assert "Max-Age" not in client.get("/brief").headers["Set-Cookie"]


def test_streaming_and_a_session_that_nobody_has_looked_at_before(cluster: InProcessCluster) -> None:
    """A body that begins a session comes too late for its cookie, and says so; one that changes a stored one is in time."""
    app = shop(cluster)

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Any:
            yield "one "
            session["streamed"] = "yes"
            yield "two"

        return Response(flask.stream_with_context(body()))

    client = app.test_client()
    with pytest.raises(ChangeAfterResponse), client.get("/stream") as answer:
        answer.get_data()
    client.get("/set/k/v")
    with client.get("/stream") as answer:
        assert (answer.get_data(as_text=True), "Set-Cookie" in answer.headers) == ("one two", False)
    assert client.get("/").json == {"k": "v", "streamed": "yes"}


def test_apps_of_a_process_share_their_sessions_in_dev_mode() -> None:
    """As they do in the cluster."""
    client = plain().test_client()
    client.get("/set/k/v")
    assert moved(client, plain()).get("/get/k").text == "v"
