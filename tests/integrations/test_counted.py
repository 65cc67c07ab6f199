"""What is counted about cookies in every framework: which went out, whether a browser can keep them, and which came back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from clustersession.config import CookieConfig
from clustersession.integrations.django import source
from clustersession.runtime import cookies
from clustersession.runtime.headers import is_plain
from clustersession.testing.in_process import InProcessCluster
from tests.integrations.apps import FRAMEWORKS, Site, pair
from tests.middleware import calling


@pytest.fixture(params=sorted(FRAMEWORKS))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    yield Site(request.param, InProcessCluster())
    source._current = None


def test_a_new_cookie_is_counted_once_when_it_goes_out_and_once_when_it_is_back(site: Site) -> None:
    """On each host that it comes to for the first time; later requests count nothing."""
    cookie = pair(site.get("a", "/set/theme/dark"))
    for _ in range(3):
        site.get("b", "/", cookie)
        site.get("c", "/set/theme/light", cookie)
    counted = site.cluster.counted
    assert (counted("id_sent"), counted("id_returned")) == (1, 2)
    assert counted("id_sent_plain") == 0, "it is not Secure here"


def test_an_old_cookie_that_comes_back_is_no_news(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the last minutes show that browsers keep what they are given; one from the future, that a clock is wrong."""
    cookie = pair(site.get("a", "/set/theme/dark"))
    for host, moved, name in (("b", 400.0, "id_returned"), ("c", -400.0, "id_from_future")):
        monkeypatch.setattr(cookies, "time", lambda moved=moved: time.time() + moved)
        site.get(host, "/", cookie)
        assert site.cluster.counted(name) == (name == "id_from_future")


@pytest.mark.parametrize(("said", "plain"), [(None, 1), ("http", 1), ("https", 0)])
def test_a_secure_cookie_over_plain_http_is_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch, said: str | None, plain: int
) -> None:
    """Whoever asked so cannot keep it. A proxy that ends TLS says how the browser has asked."""
    for node in site.cluster:
        node.engine.cookies._config = CookieConfig(names=("cs",))
    if said is not None:
        _forwarded(monkeypatch, said)
    site.get("a", "/set/theme/dark")
    assert (site.cluster.counted("id_sent"), site.cluster.counted("id_sent_plain")) == (1, plain)


def _forwarded(monkeypatch: pytest.MonkeyPatch, proto: str) -> None:
    """Every request comes with that X-Forwarded-Proto."""
    environ_of, http_scope = calling.environ_of, calling.http_scope

    def environ(path: str, cookie: str | None = None, **more: Any) -> Any:
        return environ_of(path, cookie, HTTP_X_FORWARDED_PROTO=proto, **more)

    def scope(*given: Any, **more: Any) -> Any:
        made = http_scope(*given, **more)
        return {**made, "headers": [*made["headers"], (b"x-forwarded-proto", proto.encode())]}

    monkeypatch.setattr(calling, "environ_of", environ)
    monkeypatch.setattr(calling, "http_scope", scope)


@pytest.mark.parametrize(
    ("scheme", "forwarded", "plain"),
    [
        ("http", None, True),
        ("https", None, False),
        ("http", "https", False),
        ("http", "https, http", False),
        ("https", "http", True),
        ("http", "HTTPS", False),
        ("ws", None, True),
        ("wss", None, False),
        ("http", "", True),
    ],
)
def test_what_a_proxy_says_of_the_browser_goes_before(scheme: str, forwarded: str | None, plain: bool) -> None:
    """The first of several is the browser's own."""
    assert is_plain(scheme, forwarded) is plain
