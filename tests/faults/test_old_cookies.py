"""Cookies of a former system, replayed after a logout: on every host, while one is cut off, and after all have been killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.browser import Browser
from tests.end_to_end.cluster import Host
from tests.end_to_end.processes import until
from tests.end_to_end.servers import APPS, uvicorn

from .apart import ApartCluster, namespaces
from .calling import in_parallel

USERS: Final = 10
SECOND_S: Final = 1.05  # signed cookies know no shorter time, and what is stamped in the second of a logout is refused too
CUT_S: Final = 5.0  # longer than it takes to count a host as dead


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ApartCluster]:
    with namespaces("n1", "n2", "n3") as network, ApartCluster(tmp_path, network, MODE="mirror") as made:
        for host in made:
            start(host)
        made.await_whole()
        yield made
        assert made.complaints() == []


def start(host: Host) -> None:
    host.run(uvicorn(f"{APPS}.adopting_starlette:app", host.app))


def logged_in(host: Host) -> list[Browser]:
    browsers = [Browser() for _ in range(USERS)]
    for number, browser in enumerate(browsers):
        assert browser.get(host.app, "/login", user=f"user{number}").status == 200
    return browsers


def old_only(browser: Browser) -> list[str]:
    """What a thief has who knows the former system only."""
    fields = [each for field in browser.cookies for each in field.split("; ") if each.startswith("session=")]
    assert len(fields) == 1, browser.cookies
    return fields


def users_on(host: Host, stolen: list[list[str]]) -> list[str | None]:
    """Whom the old cookies open there; a 503 opens nobody."""
    answers = in_parallel(lambda caller, cookies: caller.look(host.app, "/look", cookies), stolen)
    assert {answer.status for answer in answers} <= {200, 503}, answers
    return [answer.seen["user"] if answer.status == 200 else None for answer in answers]


def test_old_cookies_of_who_has_logged_out_stay_dead(cluster: ApartCluster) -> None:
    """And those of who has not open their session, wherever a host can know it."""
    one, two, three = cluster
    leaving, staying = logged_in(one), logged_in(two)
    stolen, kept = [old_only(each) for each in leaving], [old_only(each) for each in staying]
    names = [f"user{number}" for number in range(USERS)]
    assert users_on(three, kept) == names, "the old cookies do not open anything anyway"
    time.sleep(SECOND_S)
    assert {browser.get(two.app, "/logout").status for browser in leaving} == {200}
    assert [users_on(host, stolen) for host in cluster] == [[None] * USERS] * 3

    for peer in ("n2", "n3"):
        cluster.cut("n1", peer)
        cluster.cut(peer, "n1")
    until(lambda: one.member_states().get("n2") != "alive", "the fault did not happen")
    began = time.monotonic()
    while time.monotonic() < began + CUT_S:
        assert [users_on(host, stolen) for host in cluster] == [[None] * USERS] * 3
    dropped = cluster.mend()
    assert dropped["n1", "n2"] + dropped["n2", "n1"] > 10
    cluster.await_whole()

    for host in cluster:
        host.kill()
    for host in cluster:
        start(host)
    cluster.await_whole()
    assert [users_on(host, stolen) for host in cluster] == [[None] * USERS] * 3
    assert users_on(one, [old_only(each) for each in logged_in(three)]) == names
