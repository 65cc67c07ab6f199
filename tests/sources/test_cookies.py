"""Sessions in cookies, against Flask, Starlette, starsessions and Django themselves."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NamedTuple

import flask
import pytest
import starsessions
from django.contrib.sessions.backends import signed_cookies
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.middleware.sessions import SessionMiddleware
from starsessions.stores import CookieStore

from clustersession.errors import SourceRefused
from clustersession.sources.cookies import DjangoCookie, FlaskCookie, SignedCookie, StarletteCookie, StarsessionsCookie
from clustersession.sources.signing import packed
from tests.sources.libraries import AsgiLibrary, DjangoLibrary, FlaskLibrary, Library
from tests.sources.values import flask_items, flipped, json_items, typed

KEY = "the key of the old system"
FLASK_AGE_S, STARLETTE_AGE_S, DJANGO_AGE_S, STARSESSIONS_AGE_S = 31 * 86400, 14 * 86400, 14 * 86400, 3600
pytestmark = pytest.mark.usefixtures("_django_key")


@pytest.fixture(scope="module")
def _django_key() -> Any:
    with override_settings(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=["older"], SESSION_EXPIRE_AT_BROWSER_CLOSE=False):
        yield


def flask_app(key: str = KEY) -> flask.Flask:
    app = flask.Flask("shop")
    app.secret_key = key
    app.config["SECRET_KEY_FALLBACKS"] = ["older"]
    return app


def starsessions_app(app: Any) -> Any:
    auto = starsessions.SessionAutoloadMiddleware(app)
    return starsessions.SessionMiddleware(auto, store=CookieStore(KEY), lifetime=STARSESSIONS_AGE_S)


class Pair(NamedTuple):
    """A library and our reader of its cookies."""

    theirs: Library
    ours: SignedCookie
    items: st.SearchStrategy[dict[str, Any]]
    age_s: int
    of_key: Callable[[str], SignedCookie]


PAIRS = [
    Pair(FlaskLibrary(flask_app(), permanent=True), FlaskCookie(KEY, fallbacks=["older"]), flask_items, FLASK_AGE_S, FlaskCookie),
    Pair(
        AsgiLibrary(lambda app: SessionMiddleware(app, KEY)), StarletteCookie(KEY), json_items, STARLETTE_AGE_S, StarletteCookie
    ),
    Pair(
        AsgiLibrary(starsessions_app),
        StarsessionsCookie(KEY, lifetime_s=STARSESSIONS_AGE_S),
        json_items,
        STARSESSIONS_AGE_S,
        StarsessionsCookie,
    ),
    Pair(
        DjangoLibrary(signed_cookies.SessionStore), DjangoCookie(KEY, fallbacks=["older"]), json_items, DJANGO_AGE_S, DjangoCookie
    ),
]
each_pair = pytest.mark.parametrize("pair", PAIRS, ids=[each.ours.name for each in PAIRS])


def made(pair: Pair, items: dict[str, Any]) -> str:
    cookie = pair.theirs.save(None, items)
    assert cookie is not None
    return cookie


@each_pair
@settings(max_examples=40)
@given(data=st.data())
def test_there_and_back(pair: Pair, data: st.DataObject) -> None:
    """What the library wrote is read with its types, and what is written here is read by the library."""
    items, later = (data.draw(pair.items) | {"user": each} for each in ("ann", "bob"))
    cookie = made(pair, items)
    now = time.time()
    legacy = pair.ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(pair.theirs.load(cookie)) == typed(items)
    assert legacy.id is None
    assert legacy.persistent
    assert legacy.stamped == pytest.approx(now, abs=1.1)
    assert legacy.expires == pytest.approx(now + pair.age_s, abs=1.1)
    written = pair.ours.write(cookie, later, legacy.expires, now)
    assert written is not None
    assert typed(pair.theirs.load(written)) == typed(later)
    assert pair.ours.write(written, later, legacy.expires, now) is None, "the browser has it already"


@each_pair
def test_the_age_ends_it_as_it_does_there(pair: Pair, at: Callable[[float], None]) -> None:
    """A second before its end both take it, two after it neither does."""
    cookie, now = made(pair, {"user": "ann"}), time.time()
    for later, taken in ((pair.age_s - 2, True), (pair.age_s + 2, False)):
        at(now + later)
        assert (pair.theirs.load(cookie) != {}) == (pair.ours.read(cookie, now + later) is not None) == taken


@each_pair
def test_a_deadline_is_kept_by_the_library(pair: Pair, at: Callable[[float], None]) -> None:
    """What is written with an end of its own ends there then, and one with none at the library's age."""
    now = time.time()
    for expires, end in ((now + 100, now + 100), (None, now + pair.age_s)):
        written = pair.ours.write(None, {"user": "ann"}, expires, now)
        assert written is not None
        for moment, taken in ((end - 2, True), (end + 2, False)):
            at(moment)
            assert (pair.theirs.load(written) != {}) == (pair.ours.read(written, moment) is not None) == taken


@each_pair
def test_a_cookie_of_the_future_is_refused(pair: Pair) -> None:
    """A minute of difference between the clocks of hosts is let pass."""
    cookie, now = made(pair, {"user": "ann"}), time.time()
    assert pair.ours.read(cookie, now - 55) is not None
    assert pair.ours.read(cookie, now - 70) is None


@each_pair
def test_forged_cookies_are_nothing(pair: Pair) -> None:
    """Changed anywhere, cut anywhere, or signed with another key."""
    cookie, now = made(pair, {"user": "ann", "cart": list(range(50))}), time.time()
    assert pair.ours.read(cookie, now) is not None
    for place in range(len(cookie)):
        assert pair.ours.read(flipped(cookie, place), now) is None
        assert pair.ours.read(cookie[:place], now) is None
    stranger = pair.of_key("another key")
    assert stranger.read(cookie, now) is None
    assert stranger.write(cookie, {"user": "ann"}, None, now) is not None


@each_pair
@settings(max_examples=50)
@given(cookie=st.text(max_size=80) | st.sampled_from(["null", "", ".", "..", ":::", "A" * 100_000]))
def test_any_text_is_read_as_nothing(pair: Pair, cookie: str) -> None:
    """No text of a browser raises, and a new session can replace it."""
    assert pair.ours.read(cookie, time.time()) is None
    assert pair.ours.write(cookie, {"user": "ann"}, None, time.time()) is not None
    pair.ours.end(cookie)


@each_pair
def test_bodies_that_are_no_session_are_nothing(pair: Pair) -> None:
    """Though the key of the old system has signed them."""
    now = time.time()
    wrap = b64encode if pair.ours.name.startswith("star") else packed
    inner = (b"", b"null", b"[]", b"7", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000)
    for body in (b"", b".", b".AAAA", b"%%%", b"A", *map(wrap, inner)):
        assert pair.ours.read(pair.ours._signer.stamp(body, int(now)), now) is None
    assert pair.ours.read(pair.ours._signer.stamp(wrap(b'{"a":1}'), int(now)), now) is not None


@pytest.mark.parametrize(
    "text", [b'{"a":{" u":"x"}}', b'{"a":{" t":1}}', b'{"a":{" b":7}}', b'{"a":{" di":{}}}', b'{"a":{" di":3}}']
)
def test_broken_tags_of_flask_are_nothing(text: bytes) -> None:
    """Flask itself fails with them."""
    ours, now = FlaskCookie(KEY), time.time()
    assert ours.read(ours._signer.stamp(packed(text), int(now)), now) is None


@each_pair
def test_values_that_the_library_cannot_hold_are_refused(pair: Pair) -> None:
    """As its own app would fail to set them."""
    with pytest.raises(SourceRefused, match=f"{pair.ours.name} cannot hold"):
        pair.ours.write(None, {"x": {1, 2}}, None, time.time())


def test_a_retired_key_is_accepted_and_no_longer_signs() -> None:
    """SECRET_KEY_FALLBACKS of Flask and Django."""
    now = time.time()
    older = FlaskLibrary(flask_app("older")).save(None, {"user": "ann"})
    assert older is not None
    ours = FlaskCookie(KEY, fallbacks=["older"])
    assert ours.read(older, now) is not None
    again = ours.write(older, {"user": "bob"}, None, now)
    assert again is not None
    assert FlaskCookie("older").read(again, now) is None
    with override_settings(SECRET_KEY="older"):
        django_older = DjangoLibrary(signed_cookies.SessionStore).save(None, {"user": "ann"})
    assert django_older is not None
    assert DjangoCookie(KEY, fallbacks=["older"]).read(django_older, now) is not None
    assert DjangoCookie(KEY).read(django_older, now) is None


@pytest.mark.parametrize("permanent", [False, True])
def test_whether_flasks_cookie_outlives_the_browser_is_kept(permanent: bool) -> None:
    """Read, written back, and of new ones as it is set or the items say."""
    library = FlaskLibrary(flask_app(), permanent=permanent)
    cookie, now = library.save(None, {"user": "ann"}), time.time()
    assert cookie is not None
    ours = FlaskCookie(KEY)
    for each in (cookie, ours.write(cookie, {"user": "bob"}, None, now)):
        assert each is not None
        legacy = ours.read(each, now)
        assert legacy is not None
        assert legacy.persistent == permanent
        assert "_permanent" not in legacy.items
        with library.app.test_request_context(headers={"Cookie": f"session={each}"}):
            assert flask.session.permanent == permanent
    new = FlaskCookie(KEY, permanent=permanent)
    for written, expected in (
        (new.write(None, {"a": 1}, None, now), permanent),
        (new.write(None, {"_permanent": True}, None, now), True),
    ):
        assert written is not None
        legacy = new.read(written, now)
        assert legacy is not None
        assert legacy.persistent == expected


def test_a_session_that_flask_cleared_is_nothing() -> None:
    """Starlette's cookie of a cleared session is the word null."""
    library = AsgiLibrary(lambda app: SessionMiddleware(app, KEY))
    cleared = library.save(library.save(None, {"user": "ann"}), {})
    assert cleared == "null"
    assert StarletteCookie(KEY).read(cleared, time.time()) is None


def test_a_starlette_cookie_without_an_age_never_ends() -> None:
    """It ends with the browser, which is not known here."""
    ours, now = StarletteCookie(KEY, max_age_s=None), time.time()
    cookie = AsgiLibrary(lambda app: SessionMiddleware(app, KEY, max_age=None)).save(None, {"user": "ann"})
    assert cookie is not None
    legacy = ours.read(cookie, now + 400 * 86400)
    assert legacy is not None
    assert legacy.expires is None
    assert not legacy.persistent


def test_starsessions_keeps_when_a_session_was_created(at: Callable[[float], None]) -> None:
    """Through what is written here too, out of the items."""
    library, ours, now = PAIRS[2].theirs, PAIRS[2].ours, time.time()
    cookie = library.save(None, {"user": "ann"})
    assert cookie is not None
    written = ours.write(cookie, {"user": "bob"}, None, now + 60)
    assert written is not None
    at(now + 61)
    again = library.save(written, {"user": "cat"})
    assert again is not None
    legacy = ours.read(again, now + 62)
    assert legacy is not None
    assert legacy.created == pytest.approx(now, abs=1)
    assert legacy.stamped == pytest.approx(now + 61, abs=1.1)


@each_pair
def test_an_equal_value_of_another_type_is_written(pair: Pair) -> None:
    """1 and True are equal, and not the same to an app."""
    cookie, now = made(pair, {"flag": 1}), time.time()
    legacy = pair.ours.read(cookie, now)
    assert legacy is not None
    assert pair.ours.write(cookie, {"flag": 1}, legacy.expires, now) is None
    written = pair.ours.write(cookie, {"flag": True}, legacy.expires, now)
    assert written is not None
    assert pair.theirs.load(written)["flag"] is True
