"""The wall clocks of hosts are wrong by an hour, and step while they serve. Only cookies carry wall-clock time, in minutes."""

from __future__ import annotations

import shutil
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.servers import FLASK, gunicorn

from .calling import Caller
from .crowd import Load, logged_in, lost

HOUR_S: Final = 3600
NEAR_S: Final = 60.0
LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def set_clock(host: Host, offset_s: int) -> None:
    """The wall clock of all processes of the host is off by so much from now on; others of its clocks stay."""
    (host.directory / "clock").write_text(f"{offset_s:+d}\n")


def serve(host: Host) -> None:
    """By workers of one thread each: a thread that waits for the GIL waits by a deadline, which libfaketime takes for one that
    has passed, so it spins, and a request takes a second."""
    host.run(gunicorn(FLASK, host.app, "--worker-class", "sync", workers=4))


def offset_of(host: Host) -> float:
    """How wrong the clock of the host's app server is, as its Date header says."""
    with Caller() as caller:
        date = caller.look(host.app, "/look", []).header("Date")
    assert date is not None
    return parsedate_to_datetime(date).timestamp() - time.time()


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Cluster:
    if LIBRARY is None:
        pytest.skip("NO CLOCK IS STEPPED HERE: libfaketime is not installed (Debian's package faketime)")
    made = new_cluster(3, PROFILE="strict", COOKIE_MAX_AGE="2h")
    for host in made:
        set_clock(host, 0)
        host.environ["LD_PRELOAD"] = str(LIBRARY)
        host.environ["PYTHONPATH"] = f"{Path(__file__).with_name('wrong_clock')}:{host.environ['PYTHONPATH']}"
        host.environ["FAKETIME_TIMESTAMP_FILE"] = str(host.directory / "clock")
        host.environ["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        host.environ["FAKETIME_NO_CACHE"] = "1"
        serve(host)
    made.await_whole()
    return made


def test_clocks_that_step_by_an_hour_log_nobody_out(cluster: Cluster) -> None:
    """One host an hour ahead, one behind, then the other way round, under load, with half an hour's idle limit: no session
    ends early or is lost, and a host that starts with a wrong clock is taken in again, also without its files."""
    users = logged_in(cluster.hosts, 60)
    load = Load(logged_in(cluster.hosts, 6, "active"), cluster.hosts, pause_s=0.03)
    ahead, behind, right = cluster
    with load.running():
        for first, second in ((HOUR_S, -HOUR_S), (-HOUR_S, HOUR_S), (0, 0)):
            set_clock(ahead, first)
            set_clock(behind, second)
            for host, wanted in ((ahead, first), (behind, second), (right, 0)):
                assert abs(offset_of(host) - wanted) < NEAR_S, "the clock did not step"
            load.await_more(100)
            users += logged_in(cluster.hosts, 30, f"{first}.")
            assert lost(users, cluster.hosts) == []
        for files in ("kept", "lost"):
            load.take_out(ahead)
            set_clock(ahead, -HOUR_S)
            assert ahead.end() == 0
            if files == "lost":
                shutil.rmtree(ahead.place)
            serve(ahead)
            cluster.await_whole()
            assert abs(offset_of(ahead) + HOUR_S) < NEAR_S
            load.put_back(ahead)
            load.await_more(100)
            assert lost(users, cluster.hosts) == []
            set_clock(ahead, HOUR_S)
    print(f"{load.done.total()} requests with wrong clocks, {len(load.refused)} to be repeated")
    load.assert_fine(at_least=200)
    assert cluster.complaints() == []
