"""`python -m demo_app check`: 200 users click while hosts die, fall silent and are restarted; nobody may notice.

Prints one JSON line with the numbers of `tally.Tally` and, as the users saw their requests, with all repeats: p50_ms and p99_ms
of all, slowest_after_kill_ms, slowest_after_silence_ms and slowest_in_restarts_ms of those that were under way at that fault or
began within 3 s of it. Exits with 1, and says why on standard error, if anything was lost or if too little was done to tell.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from .balancer import TOKEN
from .cluster import ROOT, Cluster, FaultFailed
from .crowd import Crowd
from .faults import Faults
from .network import open_network
from .processes import end_with_parent
from .tally import LOGOUTS_MIN, REQUESTS_MIN, WRITES_MIN, Tally
from .visitors import Shop

_BALANCER_STOP_S = 5.0
_VOLUME_TIMEOUT_S = 120.0
_MARGIN = 1.05  # above the least numbers, so that the last answers do not decide


def run(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if every run passed, 1 if one did not, 2 if one could not be carried out."""
    reports: list[dict[str, Any]] = []
    for number in range(options.runs):
        seed = options.seed + number if options.seed is not None else random.SystemRandom().randrange(1 << 32)
        code = _run_once(options, seed, reports)
        if code != 0:
            return code
    if options.runs > 1:
        _say(_summary(reports))
    return 0


def _run_once(options: argparse.Namespace, seed: int, reports: list[dict[str, Any]]) -> int:
    names = [f"app{number}" for number in range(1, options.nodes + 1)]
    network = open_network(names, loopback=options.loopback)
    cluster = Cluster(options.framework, network, names)
    try:
        with network.inside():
            tally, numbers = asyncio.run(_check(cluster, options, seed))
        reports.append(numbers)
        print(json.dumps(numbers), flush=True)
        for shortcoming in tally.shortcomings():
            _say(f"FAILED: {shortcoming}")
        if tally.shortcomings():
            _say_logs(cluster)
        return 1 if tally.shortcomings() else 0
    except FaultFailed as failure:
        _say(f"the check could not be carried out: {failure}")
        _say_logs(cluster)
        return 2
    finally:
        cluster.close()


def _say_logs(cluster: Cluster) -> None:
    for name in cluster.names:
        _say(f"--- the log of {name} ends with:\n{cluster.log_end(name)}")


def _summary(reports: list[dict[str, Any]]) -> str:
    names = ("p50_ms", "p99_ms", "slowest_after_kill_ms", "slowest_after_silence_ms", "slowest_in_restarts_ms")
    parts = [f"{name} {median(report[name] for report in reports)} / {max(report[name] for report in reports)}" for name in names]
    return f"{len(reports)} runs passed; median / worst: {', '.join(parts)}"


async def _check(cluster: Cluster, options: argparse.Namespace, seed: int) -> tuple[Tally, dict[str, Any]]:
    _say(f"{cluster.framework}, {len(cluster.names)} hosts in {type(cluster.network).__name__.lower()}, seed {seed}")
    for name in cluster.names:
        cluster.start(name)
    await cluster.all_ready()
    with _balancer(cluster) as shop:
        tally = Tally()
        crowd = Crowd(shop, tally, users=options.users, rate=options.rate, seed=seed)
        faults = Faults(cluster, crowd, tally, shop, random.Random(seed))
        await faults.all_in_turn()
        begun = time.monotonic()
        crowd.start()
        await faults.run()
        await _enough(crowd, tally, begun + options.seconds)
        await crowd.stop()
    setting = {"users": options.users, "framework": cluster.framework, "network": type(cluster.network).__name__, "seed": seed}
    return tally, {**_report(tally, faults), **setting}


async def _enough(crowd: Crowd, tally: Tally, until: float) -> None:
    """Go on clicking until the time is over and the volume is there."""
    deadline = time.monotonic() + _VOLUME_TIMEOUT_S
    while time.monotonic() < deadline:
        crowd.check()
        wanted = ((tally.requests, REQUESTS_MIN), (tally.writes, WRITES_MIN), (tally.logouts, LOGOUTS_MIN))
        if all(done >= least * _MARGIN for done, least in wanted) and time.monotonic() >= until:
            return
        await asyncio.sleep(0.1)


def _report(tally: Tally, faults: Faults) -> dict[str, Any]:
    slowest = {"slowest_after_kill_ms": faults.kill_at, "slowest_after_silence_ms": faults.silent_at}
    return {
        **tally.counters(),
        "p50_ms": tally.percentile_ms(0.50),
        "p99_ms": tally.percentile_ms(0.99),
        **{name: tally.slowest_ms(at) for name, at in slowest.items() if at is not None},
        "slowest_in_restarts_ms": max(map(tally.slowest_ms, faults.restarts_at), default=0.0),
    }


@contextmanager
def _balancer(cluster: Cluster) -> Iterator[Shop]:
    """The balancer as a process of its own, as in real life, so that it does not share the users' processor time."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        port = int(listening.getsockname()[1])
        hosts = [f"{name}={address}" for name, address in cluster.network.addresses.items()]
        command = [sys.executable, "-m", "demo_app.balancer", str(listening.fileno()), *hosts]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, TOKEN: cluster.admin_token},
            pass_fds=[listening.fileno()],
            preexec_fn=end_with_parent,  # noqa: PLW1509  (the demo has no other thread)
        )
    try:
        yield Shop("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(timeout=_BALANCER_STOP_S)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
