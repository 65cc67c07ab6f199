"""Hosts that come and go as they are told to, while nobody asks for any session: restarted, replaced, more, fewer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.end_to_end.processes import until

from . import idle
from .fleet import STARTED_S, Fleet, ended, start, told_to_end
from .report import Row, spread
from .sizes import Sizes

TO_LIVE_S: Final = 30.0


def rolling_restart(sizes: Sizes, directory: Path) -> list[Row]:
    """Each of three nodes in turn ends with 0 and starts again on its files, as soon as its /readyz says so."""
    with Fleet(directory, 3, MAX_BYTES="64MiB").start() as fleet:
        cookies = idle.made(fleet.hosts, sizes.idle)
        began, codes = time.monotonic(), list[int]()
        for host in fleet:
            codes.append(ended(told_to_end(host), 60.0))
            start([host])
            until(lambda host=host: host.ask_admin("/readyz")[0] == 200, "it is not ready", STARTED_S)  # type: ignore[misc]
        took = time.monotonic() - began
        found = idle.checked(fleet.hosts, cookies)
        measured = f"{_lost(found, sizes)}; {took:.0f} s for all three{_owing(codes)}"
        print(*found.wrong[:5], sep="\n")
        held = not found.wrong and not any(codes)
        return [Row("sessions lost, rolling restart of all nodes without traffic", "0; all end with 0", measured, held)]


def replaced(sizes: Sizes, directory: Path) -> list[Row]:
    """Node by node under a new name, address and empty files; then many more, then three of the newest."""
    with Fleet(directory, 3, MAX_BYTES="64MiB").start() as fleet:
        cookies = idle.made(fleet.hosts, sizes.idle)
        began = time.monotonic()
        retired = []
        for number, host in enumerate(list(fleet)):
            retired.append(fleet.retire(host))
            start([fleet.add(f"m{number}")])
            fleet.await_settled()
        rolled = time.monotonic() - began
        start([fleet.add(f"k{number}") for number in range(sizes.grown - 3)])
        fleet.await_settled()
        most = len(fleet.hosts)
        assert most == sizes.grown
        leaving = fleet.hosts[:-3]
        retired += [fleet.retire(host) for host in leaving]
        fleet.await_settled()
        assert {host.name for host in fleet}.isdisjoint({"n1", "n2", "n3", "m0", "m1", "m2"})
        found = idle.checked(fleet.hosts, cookies, at_once=False)
    print(*found.wrong[:5], sep="\n")
    lost = _lost(found, sizes)
    cost = spread(found.seconds)
    return [
        Row(
            f"sessions lost, all nodes replaced by new names, addresses and empty files, then 3 to {most} to 3, old cookies",
            "0; all end with 0",
            f"{lost}; {rolled:.0f} s for the replacement, {max(each.seconds for each in retired):.1f} s at most for a node"
            f"{_owing([each.code for each in retired])}",
            not found.wrong and all(each.code == 0 for each in retired),
        ),
        Row("first read with such an old cookie", "stated", str(cost), cost.requests == sizes.idle, clocked=True),
    ]


def stopped_together(sizes: Sizes, directory: Path) -> list[Row]:
    """Half of all nodes are sent SIGTERM in the same second, and SIGKILL if they are still there 30 s later."""
    total = 2 * sizes.stopping
    with Fleet(directory, total, MAX_BYTES="64MiB").start() as fleet:
        cookies = idle.made(fleet.hosts, sizes.idle)
        leaving, staying = fleet.hosts[: sizes.stopping], fleet.hosts[sizes.stopping :]
        began = time.monotonic()
        programs = [told_to_end(host) for host in leaving]
        told_s = time.monotonic() - began
        until(
            lambda: time.monotonic() - began > TO_LIVE_S or all(program.poll() is not None for program in programs),
            "unreachable",
            TO_LIVE_S + 5.0,
        )
        took = time.monotonic() - began
        codes = [program.poll() for program in programs]
        for host in leaving:
            if host.pids:
                host.kill()
        for program in programs:
            ended(program, 30.0)
        found = idle.checked(staying, cookies)
    print(f"exit codes {codes}", *found.wrong[:5], sep="\n")
    assert told_s < 1.0
    measured = f"{_lost(found, sizes)}; the last one ended after {took:.1f} s{_owing(codes)}"
    return [
        Row(
            f"sessions lost, {total} to {total - sizes.stopping} nodes told to end in one second with {TO_LIVE_S:.0f} s to live",
            "0",
            measured,
            not found.wrong,
        )
    ]


def _lost(found: idle.Checked, sizes: Sizes) -> str:
    return f"{len(found.wrong)} of {sizes.idle:,}, {found.refused} requests repeated"


def _owing(codes: Sequence[int | None]) -> str:
    """Of nodes that have not ended with 0 by themselves."""
    owing = [code for code in codes if code != 0]
    return f"; {len(owing)} of {len(codes)} nodes ended with {', '.join(sorted(map(str, owing)))}" if owing else ""
