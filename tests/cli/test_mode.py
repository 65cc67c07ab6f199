"""`clustersession mode`, asked on the hosts of a real cluster."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until
from tests.end_to_end.servers import clustersession


@pytest.fixture
def cluster(module_cluster: NewCluster) -> Cluster:
    made = module_cluster(3, MODE_SWITCH="1", MODE="off")
    for host in made:
        host.launch("node", clustersession("node"))
    until(lambda: all(host.sees({"n1", "n2", "n3"}) for host in made), "the nodes don't see each other")
    return made


def asked(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    command = clustersession("mode", *words)
    return subprocess.run(command, env=host.environ, cwd=host.directory, capture_output=True, text=True, check=False)


def shown(host: Host) -> tuple[str, int, str]:
    """The mode that holds there, the per cent, and on which host it was ordered."""
    found = json.loads(asked(host, "--json").stdout)
    switch = found["switch"] or {"percent": 100, "by": ""}
    return found["mode"], switch["percent"], switch["by"]


def test_an_order_reaches_every_host_and_outlives_a_restart(cluster: Cluster) -> None:
    """Given on one host, followed on all of them without a restart; the next one given elsewhere replaces it; a host that was
    down hears of it when it is back."""
    one, two, three = cluster
    assert [shown(host) for host in cluster] == [("off", 100, "")] * 3
    done = asked(one, "mirror", "--percent", "30")
    assert (done.returncode, done.stdout.splitlines()[0].partition(";")[0]) == (0, "switched to mirror, 30 per cent")
    until(lambda: all(shown(host) == ("mirror", 30, "n1") for host in cluster), "not all hosts follow")
    assert "mode mirror on n2" in asked(two).stdout
    assert "30 per cent, at 20" in asked(two).stdout
    three.kill()
    assert asked(two, "on").returncode == 0
    until(lambda: shown(one) == ("on", 100, "n2"), "it does not follow")
    three.launch("node", clustersession("node"))
    until(lambda: three.sees({"n1", "n2", "n3"}), "it is not back")
    until(lambda: shown(three) == ("on", 100, "n2"), "it does not follow")
    for wrong in (("dev",), ("mirror", "--percent", "101"), ("mirror", "--percent", "-1")):
        assert asked(one, *wrong).returncode == 2
    assert cluster.complaints() == []
