"""A user's own source: Pyramid's signed cookie in twenty lines, against Pyramid itself."""

from __future__ import annotations

import hmac
import json
import time
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustersession.sources import Legacy, Source
from tests.sources.libraries import cookie_value
from tests.sources.values import flipped, json_items, typed

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # it imports the module cgi
    from pyramid.request import Request
    from pyramid.response import Response
    from pyramid.session import SignedCookieSessionFactory

SECRET = "the key of the old system"
TIMEOUT_S = 1200


# The example begins.
class PyramidCookie:
    name, cookie_name, keyless, timeout_s = "pyramid-cookie", "session", True, 1200

    def __init__(self, secret: str) -> None:
        self._key = f"pyramid.session.{secret}".encode()

    def read(self, cookie: str, now: float) -> Legacy | None:
        try:
            data = urlsafe_b64decode(cookie.encode("ascii") + b"=" * (-len(cookie) % 4))
            genuine = hmac.compare_digest(data[:64], hmac.digest(self._key, data[64:], "sha512"))
            at, created, items = json.loads(data[64:]) if genuine else (0, 0, {})
        except ValueError:
            return None
        return Legacy(items, None, at, created, at + self.timeout_s) if now <= at + self.timeout_s else None

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        before = self.read(cookie, now) if cookie else None
        data = json.dumps([int(now), before.created if before else int(now), dict(items)]).encode()
        return urlsafe_b64encode(hmac.digest(self._key, data, "sha512") + data).rstrip(b"=").decode()

    def end(self, cookie: str) -> None: ...


# The example ends.


def request_with(cookie: str | None) -> Any:
    request = Request.blank("/", headers={} if cookie is None else {"Cookie": f"session={cookie}"})
    request._response_callbacks = None
    return request


def load(cookie: str) -> dict[str, Any]:
    return dict(SignedCookieSessionFactory(SECRET)(request_with(cookie)))


def save(items: Mapping[str, Any]) -> str:
    request, response = request_with(None), Response()
    session = SignedCookieSessionFactory(SECRET)(request)
    session.update(items)
    request._process_response_callbacks(response)
    return cookie_value(response.headers["Set-Cookie"])


@settings(max_examples=50)
@given(items=json_items, later=json_items)
def test_there_and_back(items: dict[str, Any], later: dict[str, Any]) -> None:
    """What Pyramid wrote is read with its types, and what is written here is read by Pyramid."""
    ours: Source = PyramidCookie(SECRET)
    items, later = {**items, "user": "ann"}, {**later, "user": "bob"}
    cookie, now = save(items), time.time()
    legacy = ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(load(cookie)) == typed(items)
    assert legacy.expires == pytest.approx(now + TIMEOUT_S, abs=1.1)
    written = ours.write(cookie, later, None, now)
    assert written is not None
    assert typed(load(written)) == typed(later)


@given(st.text(max_size=60))
def test_any_text_is_read_as_nothing(cookie: str) -> None:
    """No text of a browser raises."""
    assert PyramidCookie(SECRET).read(cookie, time.time()) is None


def test_forged_and_old_cookies_are_nothing() -> None:
    """Changed, cut, signed with another key, or older than its timeout."""
    cookie, now = save({"user": "ann"}), time.time()
    assert PyramidCookie(SECRET).read(cookie, now) is not None
    for forged in (*(flipped(cookie, place) for place in range(len(cookie) - 1)), cookie[:-4], cookie[:20]):
        assert PyramidCookie(SECRET).read(forged, now) is None
    assert PyramidCookie("another key").read(cookie, now) is None
    assert PyramidCookie(SECRET).read(cookie, now + TIMEOUT_S + 2) is None


def test_the_documentation_shows_this_source_of_twenty_lines() -> None:
    """Word for word."""
    text = Path(__file__).read_text(encoding="utf-8")
    example = text.partition("# The example begins.\n")[2].partition("# The example ends.")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    page = Path(__file__).parents[2] / "docs" / "reference" / "sources.md"
    assert example.strip() in page.read_text(encoding="utf-8")
