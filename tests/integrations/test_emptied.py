"""A request that leaves nothing in its session: what each framework makes of it, and that nobody else's write is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from clustersession.core.session import Session
from clustersession.integrations.django import source
from clustersession.testing.in_process import InProcessCluster
from tests.integrations.apps import FRAMEWORKS, Site, meanwhile, pair, session_cookies

ENDING = ("fastapi", "flask", "starlette")
"""Where an emptied session is removed, cookie and all."""


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


@pytest.fixture(params=ENDING)
def site(request: pytest.FixtureRequest, cluster: InProcessCluster) -> Site:
    return Site(request.param, cluster)


@pytest.fixture(params=sorted(set(FRAMEWORKS) - set(ENDING)))
def keeping(request: pytest.FixtureRequest, cluster: InProcessCluster) -> Iterator[Site]:
    yield Site(request.param, cluster)
    source._current = None


def elsewhere(cluster: InProcessCluster, host: str, cookie: str, change: Callable[[Session], None]) -> Callable[[], None]:
    """Another request, on `host`, from beginning to end."""

    def request() -> None:
        engine = cluster[host].engine
        visit = engine.visit((cookie,), blocking=True)
        change(visit.session)
        engine.blocking.run(visit.save(), visit.budget)

    return request


@pytest.mark.parametrize("path", ["/clear", "/pop/k"])
def test_an_emptied_session_is_over(site: Site, path: str) -> None:
    """As in Flask and Starlette the cookie is removed; here its ID is dead too, on every host."""
    cookie = pair(site.get("a", "/set/k/v"))
    answer = site.get("b", path, cookie)
    (deletion,) = session_cookies(answer)
    assert (answer.status, deletion.startswith("cs=; "), "Max-Age=0" in deletion) == (200, True, True)
    assert answer.one("Cache-Control") == "no-store"
    late = site.get("c", "/set/k/w", cookie)
    assert pair(late) != cookie
    assert [site.values(host, cookie) for host in "abc"] == [{}] * 3
    assert site.cluster.counted("session_ended") == 1


def test_clearing_a_login_is_a_logout(site: Site) -> None:
    """It is ended, not given a new ID."""
    cookie = pair(site.get("a", "/login/7"))
    (deletion,) = session_cookies(site.get("b", "/clear", cookie))
    assert deletion.startswith("cs=; ")
    assert site.cluster.counted("session_rotated") == 0
    assert [site.values(host, cookie) for host in "abc"] == [{}] * 3


def test_what_was_emptied_before_it_was_stored_is_nothing(site: Site) -> None:
    """No entry and no cookie."""
    assert session_cookies(site.get("a", "/clear")) == []
    assert site.cluster.entries() == 0


def test_what_another_request_wrote_meanwhile_keeps_the_session(site: Site, cluster: InProcessCluster) -> None:
    """Only what this request has seen is deleted: no lost update."""
    cookie = pair(site.get("a", "/set/k/v"))
    meanwhile.append(elsewhere(cluster, "c", cookie, lambda session: session.update(other="w")))
    answer = site.get("b", "/interrupted_clear", cookie)
    assert (answer.status, session_cookies(answer)) == (200, [])
    assert [site.values(host, cookie) for host in "abc"] == [{"other": "w"}] * 3


def test_what_another_request_writes_later_is_refused(site: Site, cluster: InProcessCluster) -> None:
    """Not lost silently: 409, to be repeated."""
    cookie = pair(site.get("a", "/set/k/v"))
    with ThreadPoolExecutor(1) as other:
        meanwhile.append(lambda: other.submit(site.get, "c", "/clear", cookie).result())
        answer = site.get("b", "/interrupted/k/w", cookie)
    assert (answer.status, session_cookies(answer)) == (409, [])


def test_with_an_owner_down_the_values_are_deleted_all_the_same(site: Site, cluster: InProcessCluster) -> None:
    """The session then goes on, empty."""
    cookie = pair(site.get("a", "/set/k/v"))
    backup = next(each.target for each in cluster.sent if each.source == "a")
    cluster.down(backup)
    answer = site.get("a", "/clear", cookie)
    assert (answer.status, pair(answer) != cookie) == (200, True)
    assert site.values("a", cookie) == {}


def test_a_session_that_is_kept_when_it_is_empty(keeping: Site) -> None:
    """Django's ends with `flush`; plain WSGI and ASGI apps call `end`."""
    cookie = pair(keeping.get("a", "/set/k/v"))
    answer = keeping.get("b", "/clear", cookie)
    assert (answer.status, session_cookies(answer)) == (200, [])
    assert session_cookies(keeping.get("c", "/set/k/w", cookie)) == []
    assert keeping.values("a", cookie) == {"k": "w"}


def test_a_cookie_of_our_name_that_is_no_session_is_removed_by_a_logout(cluster: InProcessCluster) -> None:
    """In every framework; otherwise it is left alone."""
    for framework in FRAMEWORKS:
        each = Site(framework, cluster)
        (deletion,) = session_cookies(each.get("a", "/logout", "cs=abc; other=1"))
        assert deletion.startswith("cs=; "), framework
        assert session_cookies(each.get("a", "/", "cs=abc")) == []
        assert session_cookies(each.get("a", "/logout", "acs=abc")) == []
    source._current = None
