"""Idle sessions by the thousand, made and read by worker processes of the hosts, and users who click beside them."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.end_to_end.cluster import Host
from tests.end_to_end.processes import until

MADE_S: Final = 900.0
_SPAWN_NOT: Final = {"CLUSTERSESSION_SPAWN": "0"}


class Checked(NamedTuple):
    """`wrong`: sessions that are lost or not what they were. `refused`: 503s that were to be repeated."""

    wrong: list[str]
    refused: int
    seconds: list[float]


class Visited(NamedTuple):
    """How many bytes the worker has grown by, and how many sockets it has opened."""

    rss: int
    sockets: int


class Click(NamedTuple):
    """One answer. `outcome`: a word for what was wrong, or nothing."""

    at: float
    seconds: float
    outcome: str
    owners: list[str]


def _worker(host: Host, name: str, out: Path, *arguments: str) -> None:
    host.launch(name, [sys.executable, "-m", "tests.chaos.worker", *arguments, "--out", str(out)], **_SPAWN_NOT)


def _joined(host: Host, name: str) -> None:
    code = host.programs.pop(name).wait(MADE_S)
    assert code == 0, f"{host.name}: {host.log_path(name).read_text()[-2000:]}"


def made(hosts: Sequence[Host], count: int, size: int = 500) -> Path:
    """So many sessions, each host the master of as many; the file with their cookies."""
    share = -(-count // len(hosts))
    for turn, host in enumerate(hosts):
        first = turn * share
        _worker(host, "fill", host.directory / "idle", "fill", str(first), str(min(share, count - first)), str(size))
    for host in hosts:
        _joined(host, "fill")
    cookies = "".join((host.directory / "idle").read_text() for host in hosts)
    assert cookies.count("\n") == count
    path = hosts[0].directory / "all"
    path.write_text(cookies)
    return path


def checked(hosts: Sequence[Host], cookies: Path, *, at_once: bool = True) -> Checked:
    """Every session is read once by a worker of one of `hosts`; `at_once`: by all of them in parallel."""
    outs = [host.directory / "checked" for host in hosts]
    for turn, (host, out) in enumerate(zip(hosts, outs, strict=True)):
        _worker(host, "check", out, "check", str(cookies), str(turn), str(len(hosts)))
        if not at_once:
            _joined(host, "check")
    for host in hosts if at_once else ():
        _joined(host, "check")
    found = [Checked(**json.loads(out.read_text())) for out in outs]
    return Checked(
        [word for each in found for word in each.wrong],
        sum(each.refused for each in found),
        [seconds for each in found for seconds in each.seconds],
    )


def visited(host: Host, count: int) -> Visited:
    """So many visitors without a session come to a worker of `host`."""
    out = host.directory / "visited"
    _worker(host, "visit", out, "visit", str(count))
    _joined(host, "visit")
    return Visited(**json.loads(out.read_text()))


@contextmanager
def clicking(host: Host, *kinds: str) -> Iterator[list[list[Click]]]:
    """Users of these kinds (see the worker) on a worker of `host`; what they saw is in the list when the context is left."""
    out, seen = host.directory / "clicks.json", list[list[Click]]()
    _worker(host, "click", out, "click", *kinds)
    until(lambda: out.with_suffix(".ready").exists(), "the users don't come", MADE_S)
    try:
        yield seen
    finally:
        host.programs["click"].send_signal(signal.SIGTERM)
        _joined(host, "click")
        out.with_suffix(".ready").unlink()
        seen += [[Click(*each) for each in kind] for kind in json.loads(out.read_text())]


def between(clicks: Sequence[Click], began: float, ended: float) -> list[Click]:
    return [each for each in clicks if began <= each.at <= ended]


def worst(clicks: Sequence[Click]) -> list[str]:
    """What was wrong, without refusals."""
    return [each.outcome for each in clicks if each.outcome and not each.outcome.startswith("refused")]


def refused(clicks: Sequence[Click]) -> int:
    return sum(each.outcome.startswith("refused") for each in clicks)
