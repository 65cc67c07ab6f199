"""A host stands still, or is killed, while its sessions are ended elsewhere: what is replayed there when it is back is gone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from tests.end_to_end.cluster import Host
from tests.end_to_end.processes import state_of, until
from tests.faults.calling import in_parallel
from tests.faults.crowd import at_once, lost, owned

from .fleet import STARTED_S, Fleet
from .kills import await_served, launch
from .report import Row
from .sizes import Sizes

EACH: Final = 40
BLOCKED_MS: Final = 350.0


def replayed(sizes: Sizes, directory: Path) -> list[Row]:
    with Fleet(directory, 3) as fleet:
        for host in fleet:
            launch(host)
        for host in fleet:
            await_served(host)
        fleet.await_settled()
        return [*_paused(sizes, fleet), *_restarted(fleet)]


def _paused(sizes: Sizes, fleet: Fleet) -> list[Row]:
    paused, other, third = fleet
    ended, written, idle = (owned([paused, other], {"n1", "n2"}, EACH, kind) for kind in ("ended", "written", "idle"))
    stolen = [user.browser.copy().cookies for user in ended]
    stopped = paused.pause()
    began = time.monotonic()
    first = at_once(idle, third, "/look")
    logouts = [answer.status for answer in at_once(ended, third, "/end")]
    writes = [answer.status for answer in at_once(written, third, "/set", cart="pear")]
    for user in written:
        user.items["cart"] = "pear"
    time.sleep(max(0.0, sizes.pause_s - (time.monotonic() - began)))
    assert {state_of(pid) for pid in stopped} == {"T"}
    paused.resume()
    undone = _alive(paused, stolen)
    fleet.await_settled()
    later = sum(_alive(host, stolen) for host in fleet)
    missing = lost([*written, *idle], [paused]) + lost([*written, *idle], [other, third])
    slowest = max(answer.seconds for answer in first) * 1e3
    acked = (logouts.count(200), writes.count(200))
    print(*missing[:5], sep="\n")
    return [
        Row(
            f"cookie of a session logged out during a pause of {sizes.pause_s:.0f} s, replayed at the host the moment it goes on",
            "gone",
            f"{undone} of {EACH} alive, {later} alive on any host afterwards",
            undone + later == 0,
        ),
        Row(
            "acked writes and sessions lost by that pause",
            "0",
            f"{len(missing)} of {2 * EACH}; {EACH} logouts and {EACH} writes meanwhile: {acked[0]} and {acked[1]} acked",
            not missing and acked == (EACH, EACH),
        ),
        Row(
            "first request for a session of a host that stands still",
            f"at most {BLOCKED_MS:.0f} ms",
            f"at most {slowest:.0f} ms, {EACH} of them at once",
            slowest <= BLOCKED_MS,
            clocked=True,
        ),
    ]


def _restarted(fleet: Fleet) -> list[Row]:
    killed, other, third = fleet
    ended = owned([killed, other], {"n1", "n2"}, EACH, "restart")
    stolen = [user.browser.copy().cookies for user in ended]
    killed.kill()
    logouts = [answer.status for answer in at_once(ended, third, "/end")]
    assert killed.place.exists()
    launch(killed)
    until(killed.serves, "it does not serve", STARTED_S)
    undone = _alive(killed, stolen)
    fleet.await_settled()
    later = sum(_alive(host, stolen) for host in fleet)
    return [
        Row(
            "the same after kill -9 and a restart from its old files",
            "gone",
            f"{undone} of {EACH} alive, {later} alive on any host afterwards",
            undone + later == 0 and logouts == [200] * EACH,
        )
    ]


def _alive(host: Host, stolen: list[list[str]]) -> int:
    """How many of these cookies still open a session there. A 503 opens none."""
    answers = in_parallel(lambda caller, cookies: caller.look(host.app, "/look", cookies), stolen, threads=12)
    assert {answer.status for answer in answers} <= {200, 503}
    return sum(answer.status == 200 and answer.items != {} for answer in answers)
