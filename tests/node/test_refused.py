"""What the workers of a host have refused shows in the log, in the metrics and in the status of its node."""

from __future__ import annotations

import signal

import pytest

from clustersession.settings import new_key
from tests.end_to_end.browser import Browser, send
from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until
from tests.end_to_end.servers import FLASK, gunicorn

SHOWN_S = 10.0


@pytest.fixture(scope="module")
def cluster(module_cluster: NewCluster) -> Cluster:
    return module_cluster(1)


@pytest.fixture
def host(cluster: Cluster) -> Host:
    (host,) = cluster
    host.environ["CLUSTERSESSION_SECRET"] = new_key(1)
    if host.pids:
        host.end()
        until(lambda: not host.pids, "it stays")
    host.run(gunicorn(FLASK, host.app, workers=2))
    cluster.await_whole()
    return host


def counted(host: Host, name: str) -> int:
    lines = host.ask_admin("/metrics")[1].splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"clustersession_{name} ")), 0)


def test_what_both_workers_refuse_is_counted_for_the_host(host: Host) -> None:
    """By reason, requests in the metrics, sessions of the last hour in the status; none of the cookies is in any log."""
    foreign = "cs=" + "01234567-" * 5 + "0" * 59 + "g"
    before = counted(host, "refused_not_ours_total"), counted(host, "refused_unknown_key_total")
    for _ in range(10):
        for cookie in ("cs=old-cookie-of-before", foreign):
            assert send(host.app, "/look", [cookie]).items == {}
    wanted = before[0] + 10, before[1] + 10
    until(
        lambda: (counted(host, "refused_not_ours_total"), counted(host, "refused_unknown_key_total")) == wanted,
        "it is not shown",
        SHOWN_S,
    )
    refused = host.status()["refused"]
    assert refused["not_ours"]["requests"] == wanted[0]
    assert 1 <= refused["not_ours"]["sessions_last_hour"] <= 2, "one in each worker that it came to"
    assert refused["not_ours"]["young_last_hour"] == 0
    text = "".join(host.logs().values())
    assert "session refused: time=" not in text, "what is no warning is not shown by an app that has set up no logs"
    assert "old-cookie-of-before" not in text


def test_a_session_that_was_logged_out_a_moment_ago_is_young(host: Host) -> None:
    """Its ID is its own witness."""
    browser = Browser()
    browser.get(host.app, "/set", _user_id="alice")
    other = browser.copy()
    browser.get(host.app, "/end")
    other.get(host.app, "/look")
    until(lambda: counted(host, "refused_young_logout_total"), "it is not shown", SHOWN_S)
    assert host.status()["refused"]["logout"]["young_last_hour"] == 1
    assert counted(host, "id_sent_total") >= 1


def test_a_worker_that_ends_takes_no_count_along(host: Host) -> None:
    """It is told to end right after the requests, and the node is asked when all workers have gone."""
    before = counted(host, "refused_not_ours_total")
    for number in range(40):
        send(host.app, "/look", [f"cs=old-{number}"])
    children = [pid for pid in host.pids if pid not in host.nodes]
    server = min(children)
    workers = [pid for pid in children if pid != server]
    host.end("run", signal.SIGTERM)
    assert workers
    until(lambda: not host.pids, "it stays")
    host.run(gunicorn(FLASK, host.app, workers=2))
    until(lambda: host.ask_admin("/metrics")[0] == 200, "no node")
    assert counted(host, "refused_not_ours_total") == before + 40
