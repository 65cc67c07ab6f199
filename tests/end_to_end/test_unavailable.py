"""Every owner of a session is out of reach: no integration takes that for an empty session, and none waits for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from clustersession.testing.in_process import InProcessCluster

from .browser import Answer, Browser, send
from .cluster import Cluster, Host, free_port, session_of
from .conftest import NewCluster
from .processes import state_of, until
from .servers import ASGI, DJANGO, DJANGO_ASYNC, FLASK, STARLETTE, WSGI, Address, clustersession, gunicorn, uvicorn

ANSWERED_S = 1.5  # 0.6 s for all calls to peers; six servers and a fault on one test machine
LOST_KEPT_S = 10.0  # so long a worker remembers that a session was lost
SERVED = {
    "flask": (FLASK, gunicorn, ""),
    "wsgi": (WSGI, gunicorn, ""),
    "django": (DJANGO, gunicorn, ""),
    "starlette": (STARLETTE, uvicorn, ""),
    "asgi": (ASGI, uvicorn, ""),
    "django async": (DJANGO_ASYNC, uvicorn, "/async"),
}


class Site(NamedTuple):
    """Two hosts that own the sessions; a third where every integration has an app of its own; two that only make the
    others a majority."""

    cluster: Cluster
    apps: dict[str, Address]

    @property
    def owners(self) -> tuple[Host, Host]:
        return self.cluster["n1"], self.cluster["n2"]

    def whole(self) -> None:
        for host in self.owners:
            host.resume()
            if not host.pids:
                host.run()
        names = {host.name for host in self.cluster}
        for host in self.cluster:
            until(lambda host=host: host.sees(names), f"{host.name} does not see all")  # type: ignore[misc]
        for host in self.owners:
            until(host.serves, f"{host.name} does not serve")

    def session(self) -> Browser:
        """A session of the two owners."""
        master, backup = self.owners
        return session_of(master, backup)

    def ask_all(self, browser: Browser, path: str, **query: object) -> dict[str, Answer]:
        """The same request to every integration at once."""
        with ThreadPoolExecutor(len(self.apps)) as pool:
            asked = {
                name: pool.submit(send, at, SERVED[name][2] + path, browser.cookies, **query) for name, at in self.apps.items()
            }
            return {name: each.result() for name, each in asked.items()}


@pytest.fixture(scope="module")
def running(module_cluster: NewCluster) -> Site:
    cluster = module_cluster(5)
    served = cluster["n3"]
    site = Site(cluster, {name: (cluster.address, free_port(cluster.address)) for name in SERVED})
    for host in (served, cluster["n4"], cluster["n5"]):
        host.launch("node", clustersession("node"))
    for name, (app, server, _) in SERVED.items():
        served.launch(name, server(app, site.apps[name], workers=1), CLUSTERSESSION_SPAWN="0")
    site.whole()
    for name, at in site.apps.items():
        until(lambda name=name, at=at: served.serves(at, SERVED[name][2]), f"{name} does not serve")  # type: ignore[misc]
    return site


@pytest.fixture
def site(running: Site) -> Site:
    running.whole()
    return running


def assert_refused(answers: dict[str, Answer]) -> None:
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(SERVED, 503)
    for name, answer in answers.items():
        assert int(answer.header("Retry-After") or -1) >= 0, name
        assert answer.set_cookies == [], name
        assert b"n1" not in answer.body, name
        assert b"n2" not in answer.body, name
        assert answer.seconds <= ANSWERED_S, (name, answer.seconds)


def assert_there(site: Site, browser: Browser) -> None:
    for name, answer in site.ask_all(browser, "/look").items():
        assert answer.items == {"_user_id": "u", "cart": "apple"}, name


def test_owners_that_are_stopped_give_503_and_the_session_once_they_go_on(site: Site) -> None:
    """Read or write: 503 with Retry-After, the cookie left alone; then the session is there, and nothing was written."""
    browser = site.session()
    assert_there(site, browser)
    stopped = [pid for host in site.owners for pid in host.pause()]
    assert_refused(site.ask_all(browser, "/look"))
    assert_refused(site.ask_all(browser, "/set", cart="pear"))
    assert {state_of(pid) for pid in stopped} == {"T"}
    site.whole()
    assert_there(site, browser)


def test_owners_that_were_killed_give_503_and_the_session_once_they_are_back(site: Site) -> None:
    """Both owners at once: their files outlive them, and until they are back nobody takes the session for empty."""
    browser = site.session()
    for host in site.owners:
        host.kill()
    assert_refused(site.ask_all(browser, "/look"))
    site.whole()
    until(lambda: site.ask_all(browser, "/look")["flask"].status == 200, "it did not come back")
    assert_there(site, browser)


@pytest.mark.slow
def test_owners_that_stay_away_are_given_up(site: Site) -> None:
    """Once the cluster agrees that both owners are dead, the session is lost: said in the log, empty, and not a 503 for
    ever. It is there again if they return after all."""
    browser = site.session()
    served = site.cluster["n3"]
    for host in site.owners:
        host.kill()
    assert_refused(site.ask_all(browser, "/look"))
    until(lambda: [served.member_states().get(host.name) for host in site.owners] == ["dead", "dead"], "they live on")
    until(lambda: all(answer.status == 200 for answer in site.ask_all(browser, "/look").values()), "still unavailable", 10.0)
    answers = site.ask_all(browser, "/look")
    assert {name: (answer.items, answer.set_cookies) for name, answer in answers.items()} == dict.fromkeys(SERVED, ({}, []))
    for name, text in served.logs().items():
        assert "is lost" in text or name == "node.log", name
    site.whole()
    until(
        lambda: all(answer.items for answer in site.ask_all(browser, "/look").values()), "it did not come back", LOST_KEPT_S + 5.0
    )
    assert_there(site, browser)


def test_nothing_of_it_is_seen_in_the_logs(site: Site) -> None:
    """An owner out of reach is no exception: no integration printed a traceback above."""
    assert site.cluster.complaints() == []


def test_a_minority_waits_for_a_minute_and_not_longer() -> None:
    """Where nobody can tell whether the owners are gone, 503 ends after 60 s too (in process, so that a minute is nothing)."""
    now = [1000.0]
    cluster = InProcessCluster(clock=lambda: now[0])
    browser = cluster["a"].engine.visit((), blocking=True)
    browser.session["cart"] = "apple"
    cluster["a"].engine.blocking.run(browser.save(), browser.budget)
    cookie = browser.headers().cookies[0].partition(";")[0]
    assert browser.session.placement is not None
    third = next(node for node in cluster if node.name not in browser.session.placement[:2])
    cluster.paused(*(node.name for node in cluster if node is not third))

    def look() -> str:
        visit = third.engine.visit((cookie,), blocking=True)
        third.engine.blocking.run(visit.load(), visit.budget)
        return "unavailable" if visit.unavailable else "empty" if not visit.session else "there"

    assert look() == "unavailable"
    now[0] += 59.0
    assert look() == "unavailable"
    now[0] += 2.0
    assert look() == "empty"
    cluster.back("a", "b", "c")
    now[0] += LOST_KEPT_S + 1.0
    assert look() == "there"
