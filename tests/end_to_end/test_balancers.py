"""HAProxy and nginx with what `clustersession lb` writes: reads stay on their host, and no host is missed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .balanced import Balancer, Crowd, User, click_of, share_local, spread, start
from .browser import post, send
from .cluster import Cluster, refuses
from .conftest import NewCluster
from .processes import DEADLINE_S, until

COOKIE = "shop-cs"  # with a '-': nginx has no variable for such a cookie
USERS = 6
READS = 200
NOTICE = "3s"  # HAProxy needs less than one
SHARE_AFTER_A_KILL = 0.8  # of 30 requests each: whose master is gone asks a peer once, whose backup is gone not at all


@pytest.fixture(scope="module")
def running(module_cluster: NewCluster) -> Cluster:
    cluster = spread(module_cluster(3, COOKIE_NAME=f"{COOKIE},cs", NOTICE=NOTICE))
    for host in cluster:
        start(host)
    cluster.await_whole()
    return cluster


@pytest.fixture(params=["haproxy", "nginx"])
def balancer(request: pytest.FixtureRequest, running: Cluster, tmp_path: Path) -> Iterator[Balancer]:
    with_checks = ["--health", "/healthz", "--node-port", str(running["n1"].admin[1])] if request.param == "haproxy" else []
    made = Balancer(request.param, tmp_path, running.address)
    made.configure(running["n1"], "--app-port", str(running["n1"].app[1]), *with_checks)
    with made:
        until(lambda: made.serves("n1", "n2", "n3"), "not all hosts are up")
        yield made
    assert running.complaints() == []


def test_reads_stay_on_the_host_that_has_the_session(balancer: Balancer, running: Cluster) -> None:
    """From the answer to its login on, every read of a user goes to the master of the session, who asks nobody."""
    users = [User(f"u{number}", balancer.at).log_in() for number in range(USERS)]
    for number in range(READS):
        users[number % USERS].click()
    clicks = [click for user in users for click in user.clicks]
    print(f"{balancer.kind}: {share_local(clicks):.3f} of {len(clicks)} reads local, by {Counter(c.served for c in clicks)}")
    assert [error for user in users for error in user.errors] == []
    assert len(clicks) == READS
    assert [click for click in clicks if not click.local or click.served != click.owners[0]] == []
    assert len({click.served for click in clicks}) == 3, "all sessions are on one host, so nothing was shown"
    [third] = running.others(*users[0].clicks[-1].owners)
    assert not click_of(0, third.look(users[0].browser)).local, "a read that must ask a peer passes for a local one"


def test_a_session_without_a_known_master_goes_to_its_backup(balancer: Balancer) -> None:
    """The backup's tag counts where that of the master is of no host; where neither is, any host does."""
    user = User("u", balancer.at).log_in()
    value = user.browser.jar[COOKIE]
    [master, backup] = send(balancer.at, "/look", user.browser.cookies).seen["owners"]

    def served(cookie: str, name: str = COOKIE) -> set[str | None]:
        answers = [send(balancer.at, "/look", [f"a=b; {name}={cookie}; c=d"]) for _ in range(9)]
        assert {answer.status for answer in answers} == {200}
        return {answer.header("X-Served-By") for answer in answers}

    unknown = "f" * 8
    assert served(value) == {master}
    assert served(value, "cs") == {master}, "the second name is not read"
    assert served(unknown + value[8:]) == {backup}
    assert served(unknown + value[8:18] + unknown + value[26:]) == {"n1", "n2", "n3"}
    for strange in ("", "x", value[:7], f"x{value}", "'\"", value[:8].upper() + "-"):
        assert served(strange) == {"n1", "n2", "n3"}, strange


@pytest.mark.slow
def test_nobody_misses_a_host_that_is_killed_drained_or_restarted(balancer: Balancer, running: Cluster) -> None:
    """Users who click all the time see no error and none of their writes undone, and their reads are local soon after.

    Behind HAProxy the writes are POSTs, which it never repeats: a host that drains gets no requests any more before its app is
    told to end. nginx asks no node, and learns from failing requests.
    """
    checks = balancer.kind == "haproxy"
    shares: list[str] = []

    def goes_on(when: str, clicks: int = 30) -> float:
        share = share_local(crowd.more(clicks))
        shares.append(f"{when} {share:.3f}")
        return share

    def comes_back(name: str) -> None:
        start(running[name])
        running.await_whole()
        until(lambda: balancer.serves("n1", "n2", "n3"), f"{name} gets no requests")

    def drained(name: str) -> int:
        host = running[name]
        host.programs["run"].send_signal(signal.SIGTERM)
        if checks:
            until(lambda: name not in {click.served for click in crowd.more(5)}, f"{name} still gets requests")
            assert not refuses(host.app), "it ended before the balancer sent its users elsewhere"
        return host.programs.pop("run").wait(DEADLINE_S)

    with Crowd(balancer.at, USERS, posts=checks) as crowd:
        assert goes_on("at first") == 1.0
        with crowd.quiet():
            running["n1"].kill()
        assert refuses(running["n1"].app)
        assert goes_on("after a kill") >= SHARE_AFTER_A_KILL
        assert goes_on("then") == 1.0
        comes_back("n1")
        goes_on("when it is back")

        assert drained("n2") == 0
        assert refuses(running["n2"].app)
        goes_on("after a drain")
        assert goes_on("then") == 1.0
        comes_back("n2")
        goes_on("when it is back")
    print(f"{balancer.kind}: {crowd.answered} requests, {len(crowd.errors)} errors; local reads:", ", ".join(shares))
    assert crowd.errors == []


def test_what_a_host_has_accepted_is_sent_to_no_other(balancer: Balancer, running: Cluster) -> None:
    """A host is killed while it works on a POST: the client is told with 502, and no other host ever sees the request."""
    mark = f"{balancer.kind} began"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, balancer.at, "/slow", [], seconds=20, mark=mark)
        [host] = until(lambda: [each for each in running if mark in each.logs().get("run.log", "")], "no host began")
        host.kill()
        assert asked.result().status == 502
    assert send(balancer.at, "/look", []).status == 200
    assert [each.logs()["run.log"].count(mark) for each in running] == [each is host for each in running]
    start(host)
    running.await_whole()


def test_a_read_that_its_host_did_not_answer_is_answered_by_another(balancer: Balancer, running: Cluster, tmp_path: Path) -> None:
    """A host is killed while it works on a GET: another host does it, and the client sees nothing of that."""
    mark = f"{balancer.kind} reads"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(send, balancer.at, "/slow", [], seconds=20, mark=mark, once=tmp_path / "once")
        [host] = until(lambda: [each for each in running if mark in each.logs().get("run.log", "")], "no host began")
        until((tmp_path / "once").exists, "it does not work on it")
        host.kill()
        answer = asked.result()
    assert (answer.status, answer.body) == (200, b"ended")
    [other] = [each for each in running if each is not host and mark in each.logs()["run.log"]]
    assert answer.header("X-Served-By") == other.name
    assert [each.logs()["run.log"].count(mark) for each in (host, other)] == [1, 1]
    start(host)
    running.await_whole()


def test_the_file_is_known_to_be_up_to_date_or_not(balancer: Balancer, running: Cluster) -> None:
    """`--check` on any host finds nothing in the file as it was made, and says what would be different now."""
    checked = balancer.asked(running["n3"], "--check", str(balancer.made))
    assert (checked.returncode, checked.stdout) == (0, "")
    checked = balancer.asked(running["n3"], "--check", str(balancer.made), "--app", "n9=10.0.0.9:8000")
    assert checked.returncode == 1
    assert "10.0.0.9:8000" in checked.stdout
    assert "out of date" in checked.stderr
