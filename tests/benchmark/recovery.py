"""What the loss of a host costs, and its end: `python -m tests.benchmark.recovery [--sessions 100000] [--json FILE]`.

Three nodes hold that many idle sessions of 2 KB, two copies each, while a worker of one host reads and writes sessions of its
own. Then one node is killed, and comes back empty; then another one is told to end, and hands over all it has. Printed are the
seconds of both, and how long the requests took before and meanwhile.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any, Final, NamedTuple

from clustersession.errors import ClusterSessionError
from clustersession.middleware.assembly import EngineSource
from clustersession.node.launch import node_environ
from clustersession.runtime.engine import Engine

from .cluster import NAMES, PATIENT, Cluster, running, store_session, until
from .measure import Times, times_of

ROOT: Final = Path(__file__).parents[2]
VALUE_BYTES: Final = 2000
FOREGROUND_SESSIONS: Final = 300
REQUESTS_A_SECOND: Final = 200
QUIET_S: Final = 10.0
LIMIT_S: Final = 600.0
KILLED, DRAINED, WATCHED = NAMES
GONE: Final = {"dead", "left"}


class Phase(NamedTuple):
    """A stretch of time, and how the requests of the foreground fared in it: of all sessions, and of those not struck."""

    name: str
    seconds: float
    sessions: int
    all: Times
    others: Times | None
    errors: int


def values() -> dict[str, Any]:
    return {"user": 4711, "data": random.randbytes(VALUE_BYTES // 2).hex()}


# --- requests of an app, in a process of their own ---------------------------------------------------------------------


def foreground() -> None:
    """As a worker of the host in the environment: makes sessions, and uses them until standard input ends; prints what it saw."""
    logging.getLogger("clustersession").setLevel(logging.ERROR)
    engine = EngineSource(framework="benchmark")()
    kept = [store_session(engine, values()) for _ in range(FOREGROUND_SESSIONS)]
    cookies = [each.cookie for each in kept]
    owners = [[owner for owner in each.owners if owner is not None] for each in kept]
    print("ready", flush=True)
    seen: list[tuple[float, float, list[str], bool]] = []
    number, next_at = 0, monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, next_at - monotonic()))[0]:
        next_at = max(next_at + 1 / REQUESTS_A_SECOND, monotonic() - 0.1)
        number += 1
        place = random.randrange(len(cookies))
        began = perf_counter()
        try:
            cookies[place] = _request(engine, cookies[place], number)
            fine = True
        except ClusterSessionError:
            fine = False
        seen.append((monotonic(), perf_counter() - began, owners[place], fine))
    json.dump(seen, sys.stdout)


def _request(engine: Engine, cookie: str, number: int) -> str:
    """A read, or every other time a write; the cookie to send next."""
    visit = engine.visit((cookie,), blocking=True)
    assert visit.session["user"] == 4711
    if number % 2:
        visit.session["count"] = number
        engine.blocking.run(visit.save(), visit.budget)
    issued = visit.headers().cookies
    visit.close()
    return issued[0].partition(";")[0] if issued else cookie


# --- what happens to the nodes -----------------------------------------------------------------------------------------


def run(sessions: int) -> list[Phase]:
    with running(replace(PATIENT, drain_s=LIMIT_S)) as nodes:
        _fill(nodes, sessions)
        app = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmark.recovery", "--foreground"],
            cwd=ROOT,
            env=node_environ(nodes.configs[WATCHED]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert app.stdout is not None
        assert app.stdout.readline() == "ready\n"
        try:
            marks = [("before", 0, monotonic(), monotonic() + QUIET_S)]
            sleep(QUIET_S)
            marks.append(_killed(nodes))
            _back_empty(nodes)
            begin = monotonic()
            sleep(QUIET_S)
            marks.append(("before", 0, begin, monotonic()))
            marks.append(_drained(nodes))
        finally:
            said, _ = app.communicate()
    return [_phase(mark, json.loads(said)) for mark in marks]


def _fill(nodes: Cluster, sessions: int) -> None:
    for number in range(sessions):
        store_session(nodes.engine(NAMES[number % 3]), values())
        if number % 10_000 == 0:
            print(f"... {number:,} sessions", file=sys.stderr, flush=True)


def _killed(nodes: Cluster) -> tuple[str, int, float, float]:
    """kill -9 of one node, until the two others owe no session a second copy."""
    held = sum(nodes.status(name)["store"]["entries"] for name in NAMES)
    struck = nodes.status(KILLED)["store"]["entries"]
    began = monotonic()
    nodes.processes[KILLED].send_signal(signal.SIGKILL)
    nodes.processes[KILLED].wait()
    others = [name for name in NAMES if name != KILLED]

    def mended(name: str) -> bool:
        said = nodes.status(name)
        return said["debt"] == 0 and any(each["identity"] == KILLED and each["state"] in GONE for each in said["members"])

    until(lambda: all(map(mended, others)), "the sessions don't get their second copy", LIMIT_S)
    ended = monotonic()
    copies = sum(nodes.status(name)["store"]["entries"] for name in others)
    if copies < held:
        raise RuntimeError(f"there were {held:,} copies, and now there are {copies:,}")
    return "repair after a kill", struck, began, ended


def _back_empty(nodes: Cluster) -> None:
    data = nodes.configs[KILLED].data_dir
    assert data is not None
    shutil.rmtree(data)
    nodes.restart(KILLED)
    until(lambda: _sees_all(nodes, DRAINED) and _sees_all(nodes, KILLED), "the killed node does not come back")


def _sees_all(nodes: Cluster, name: str) -> bool:
    try:
        said = nodes.status(name)
    except OSError:
        return False
    return bool(said["synced"]) and sum(each["state"] == "alive" for each in said["members"]) == len(NAMES)


def _drained(nodes: Cluster) -> tuple[str, int, float, float]:
    """SIGTERM to one node, until it has ended with 0."""
    held = nodes.status(DRAINED)["store"]["entries"]
    began = monotonic()
    nodes.processes[DRAINED].send_signal(signal.SIGTERM)
    code = nodes.processes[DRAINED].wait(LIMIT_S)
    if code:
        raise RuntimeError(f"the drained node ended with {code}")
    return "drain", held, began, monotonic()


# --- the report --------------------------------------------------------------------------------------------------------


def _phase(mark: tuple[str, int, float, float], seen: list[tuple[float, float, list[str], bool]]) -> Phase:
    name, sessions, began, ended = mark
    within = [each for each in seen if began <= each[0] <= ended]
    others = [seconds for _, seconds, owners, _ in within if KILLED not in owners]
    return Phase(
        name,
        ended - began,
        sessions,
        times_of(round(seconds * 1e9) for _, seconds, _, _ in within),
        times_of(round(seconds * 1e9) for seconds in others) if others else None,
        sum(not fine for *_, fine in within),
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.recovery", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--foreground", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.foreground:
        foreground()
        return 0
    logging.getLogger("clustersession").setLevel(logging.ERROR)
    phases = run(options.sessions)
    print(f"{options.sessions:,} sessions of {VALUE_BYTES} bytes; load of the machine at the end {os.getloadavg()[0]:.1f}")
    for phase in phases:
        others = "" if phase.others is None else f"; sessions without a copy on {KILLED}: p99 {phase.others.p99 / 1e3:.2f} ms"
        print(
            f"{phase.name}: {phase.seconds:.1f} s for {phase.sessions:,} sessions; {phase.all.calls} requests, "
            f"p50 {phase.all.p50 / 1e3:.2f} ms, p99 {phase.all.p99 / 1e3:.2f} ms{others}; {phase.errors} errors"
        )
    if options.json:
        Path(options.json).write_text(json.dumps([phase._asdict() for phase in phases], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
