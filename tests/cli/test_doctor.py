"""`clustersession doctor`, asked on the hosts of a real cluster."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clustersession.core import findings, symptoms
from clustersession.core.diagnosis import Diagnosis
from clustersession.core.facts import CanaryFacts, Checked, Examination, LinkFacts, NodeFacts
from clustersession.core.findings import Finding
from clustersession.core.reasons import REASONS
from clustersession.core.symptoms import OldCookies
from tests.end_to_end.browser import Browser
from tests.end_to_end.cluster import Cluster, Host, session_of
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import state_of, until
from tests.end_to_end.servers import WSGI, clustersession, gunicorn

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "doctor.md"
HOLDER = """
import sys, time
from pathlib import Path
from clustersession import hostclock
from clustersession.ports import Change
from clustersession.store import LmdbStore

def rule(_):
    print("holding", flush=True)
    while True:
        time.sleep(0.1)

LmdbStore(Path(sys.argv[1]), cluster="default", node=sys.argv[2], now=hostclock.now).change(bytes([0x50]) + bytes(15), rule)
"""


@pytest.fixture(scope="module")
def running(module_cluster: NewCluster) -> Cluster:
    cluster = module_cluster(4)
    for host in cluster:
        host.run(gunicorn(WSGI, host.app, workers=1))
    cluster.await_whole()
    return cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    for host in running:
        host.resume()
        if not host.pids:
            host.run(gunicorn(WSGI, host.app, workers=1))
    running.await_whole()
    return running


def begun(host: Host, *flags: str) -> subprocess.Popen[str]:
    command = clustersession("doctor", *flags)
    return subprocess.Popen(command, env=host.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(asked: subprocess.Popen[str]) -> tuple[int, str]:
    out, errors = asked.communicate(timeout=30)
    assert errors == ""
    return asked.returncode, out


def ask(host: Host, *flags: str) -> tuple[int, str]:
    return said(begun(host, *flags))


def diagnosed(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(host, "--json")[1])
    return found


def test_a_healthy_cluster_is_said_to_be(cluster: Cluster) -> None:
    """In one sentence, and a line for each host."""
    code, text = ask(cluster["n2"])
    first, about, *rows = text.splitlines()
    assert code == 0, text
    assert first == "Healthy. 4 hosts answer, and a new session went through 12 of 12 pairs of them and back."
    assert re.fullmatch(r"cluster default, asked on n2, in \d\.\d s", about)
    assert [row.split()[:2] for row in rows] == [[host.name, "alive"] for host in cluster]
    assert all("canaries 3 of 3" in row for row in rows)


def test_it_leaves_nothing_behind(cluster: Cluster) -> None:
    """No entry, no hint, no line in a log and no count of a refusal, however many ask at once and wherever."""
    session_of(cluster["n1"])
    entries, logs = cluster.entries(), {host.name: host.logs() for host in cluster}
    several = [begun(host, "--json") for host in cluster for _ in range(2)]
    for asked in several:
        code, text = said(asked)
        assert (code, json.loads(text)["pairs"]) == (0, [12, 12]), text
    assert cluster.entries() == entries
    status = [host.status() for host in cluster]
    assert [(each["store"]["hints"], each["refused"]) for each in status] == [(0, {})] * 4
    assert {host.name: host.logs() for host in cluster} == logs


def test_sessions_are_as_they_were(cluster: Cluster) -> None:
    """Those of users are served meanwhile as before, with the owners that they had."""
    browser = session_of(cluster["n1"])
    before = cluster["n1"].look(browser).seen
    assert ask(cluster["n3"])[0] == 0
    after = cluster["n1"].look(browser).seen
    assert (after["items"], after["owners"], after["epoch"]) == (before["items"], before["owners"], before["epoch"])


def test_a_host_that_is_down_is_named(cluster: Cluster) -> None:
    """Trouble, but new sessions stick."""
    cluster["n4"].kill()
    until(lambda: cluster["n1"].member_states()["n4"] == "dead", "it lives on")
    found = diagnosed(cluster["n1"])
    assert (found["verdict"], found["cause"], found["findings"][0]["where"]) == ("impaired", "down", ["n4"])
    code, text = ask(cluster["n2"])
    assert code == 1
    assert text.startswith("New sessions stick, but something is wrong. No host reaches n4 (nothing listens there)")
    assert "\n  -> Start it, or take it out of the balancer" in text
    assert "  n4  dead     no answer: nothing listens there" in text


@contextmanager
def stopped_writer(host: Host) -> Iterator[int]:
    """A process that was stopped while it wrote to a sixteenth of the host's store."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(host.place), host.name], env=host.environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        holder.send_signal(signal.SIGSTOP)
        until(lambda: state_of(holder.pid) == "T", "it did not stop")
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def test_a_sixteenth_that_is_down_is_named_with_its_process(cluster: Cluster) -> None:
    """Also from another host; and it is well again when the process has gone."""
    with stopped_writer(cluster["n2"]) as pid:
        found = diagnosed(cluster["n1"])
        shard = next(each for each in found["findings"] if each["code"] == "shard")
        assert shard["where"] == ["n2"]
        assert f"Sixteenth 5 of the store of n2 cannot be written: process {pid} (python" in shard["words"]
        assert "stopped)" in shard["words"]
        assert found["verdict"] != "healthy"
    until(lambda: diagnosed(cluster["n1"])["verdict"] == "healthy", "it is not well again")


def test_without_a_node_nothing_can_be_said(tmp_path: Path) -> None:
    """Exit code 2, words for people, and JSON for machines."""
    host = Cluster(tmp_path, 1).hosts[0]
    code, text = ask(host)
    assert code == 2
    assert text.startswith("unknown: no node answers on ")
    assert "`clustersession check` says" in text
    code, text = ask(host, "--json")
    assert (code, json.loads(text)["verdict"]) == (2, "unknown")


def test_nothing_of_a_session_is_in_what_it_says(cluster: Cluster) -> None:
    """No value, no user, no handle and no cookie."""
    browser = Browser()
    browser.get(cluster["n1"].app, "/set", _user_id="alice-in-no-log", cart="secret-apple")
    text = ask(cluster["n1"], "--json")[1]
    secret = cluster["n1"].environ["CLUSTERSESSION_SECRET"].partition(":")[2]
    for hidden in ("alice-in-no-log", "secret-apple", browser.jar["cs"][-40:], secret):
        assert hidden not in text


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Diagnosis", Diagnosis),
        ("Finding", Finding),
        ("Old cookies", OldCookies),
        ("Examination", Examination),
        ("Member", Checked),
        ("Facts", NodeFacts),
        ("Link", LinkFacts),
        ("Canary", CanaryFacts),
    ],
)
def test_every_field_is_in_the_table(title: str, kind: type[msgspec.Struct]) -> None:
    """Of the JSON, in the order of the code."""
    table = PAGE.read_text().partition(f"### {title}\n")[2].partition("\n#")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    more = ["examination"] if kind is Diagnosis else []
    assert named == [*kind.__struct_fields__, *more]


def rows_under(title: str) -> list[list[str]]:
    table = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]


def test_every_reason_is_in_the_table() -> None:
    """With the level and the words of the log."""
    assert rows_under("The log of refused sessions") == [
        [f"`{code}`", "warning" if reason.warns else "info", reason.words] for code, reason in REASONS.items()
    ]


def test_every_finding_is_in_the_table() -> None:
    """With how grave it is at first."""
    sources = [Path(str(module.__file__)).read_text() for module in (findings, symptoms)]
    found = {each for text in sources for each in re.findall(r'code="(\w+)"', text)} | {symptoms.TOO_SOON}
    rows = rows_under("Findings")
    assert {row[0].strip("`") for row in rows} == found
    assert {row[1] for row in rows} == {"breaks", "trouble", "note"}
