"""kill -9 of a random host at a random moment, again and again, under load: nothing acked is lost, and no logout is undone."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.end_to_end.cluster import Host
from tests.end_to_end.processes import until
from tests.end_to_end.servers import WSGI, clustersession, gunicorn
from tests.faults.crowd import logged_in, lost
from tests.faults.repaired import mended

from .fire import Leavers, Target, UnderFire, targets, wait_at_random
from .fleet import STARTED_S, Fleet
from .report import Row, spread
from .sizes import Sizes

ACTIVE: Final = 8
IDLE: Final = 200
AT_RANDOM_S: Final = 0.6  # longer than a heartbeat
LEFT_DEAD: Final = 8  # every so many kills the host stays away until the others have taken over
IDLE_EVERY: Final = 20
AFTERMATH_S: Final = 1.0
LATER_MS: Final = 20.0


class Shots:
    """What has been done to the hosts."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.at: list[float] = []
        self.without_files = self.left_dead = 0
        self.repaired: list[float] = []

    def one(self, fleet: Fleet, load: UnderFire) -> None:
        wait_at_random(self.chance, AT_RANDOM_S)
        host = self.chance.choice(fleet.hosts)
        self.at.append(time.monotonic())
        assert load.shoot(host)
        if self.chance.random() < 0.5:
            shutil.rmtree(host.place)
            self.without_files += 1
        if len(self.at) % LEFT_DEAD == 0:
            self.left_dead += 1
            until(lambda: mended(fleet.others(host.name), host), "the others don't take over", STARTED_S)
        launch(host)
        await_served(host)
        fleet.await_settled()
        load.put_back(host)
        self.repaired.append(time.monotonic() - self.at[-1])


def launch(host: Host) -> None:
    """Its node and its app, beside each other, so that neither waits for the other to be imported."""
    host.launch("node", clustersession("node"))
    flags = ("--worker-class", "gthread", "--threads", "6")
    host.launch("app", gunicorn(WSGI, host.app, *flags, workers=1), CLUSTERSESSION_SPAWN="0")


def await_served(host: Host) -> None:
    until(host.serves, f"{host.name} does not serve", STARTED_S)


def acked(users: Sequence[Target]) -> int:
    """Writes."""
    return sum(user.acked for user in users)


def kills(sizes: Sizes, directory: Path) -> list[Row]:
    with Fleet(directory, 3, MAX_BYTES="128MiB") as fleet:
        for host in fleet:
            launch(host)
        for host in fleet:
            await_served(host)
        fleet.await_settled()
        idle = logged_in(fleet.hosts, IDLE)
        users = targets(fleet.hosts, ACTIVE)
        load, shots = UnderFire(users, fleet.hosts), Shots(1)
        leavers, missing = Leavers(load), list[str]()
        with load.running(), leavers.running():
            load.await_more(50)
            while len(shots.at) < sizes.kills or acked(users) < sizes.writes or len(leavers.ended) < sizes.logouts:
                shots.one(fleet, load)
                if len(shots.at) % IDLE_EVERY == 0:
                    missing += lost(idle, fleet.hosts)
                    print(f"... {len(shots.at)} kills, {acked(users):,} acked writes", flush=True)
        missing += lost([*idle, *users], fleet.hosts)
        tried = sum(leavers.try_all(host, leavers.ended) for host in fleet)
        return _rows(shots, load, leavers, missing, acked(users), tried)


def _rows(shots: Shots, load: UnderFire, leavers: Leavers, missing: list[str], writes: int, tried: int) -> list[Row]:
    wrong = [*load.errors, *load.logged_out, *missing]
    print(*wrong[:10], *leavers.undone[:5], sep="\n")
    print(f"{dict(load.done)}, {len(load.broken)} broken by a kill, {len(load.refused)} refused")
    count = len(shots.at)
    after = [seconds for at, seconds in load.seconds if any(0.0 <= at - kill <= AFTERMATH_S for kill in shots.at)]
    quiet = [seconds for at, seconds in load.seconds if not any(0.0 <= at - kill <= AFTERMATH_S for kill in shots.at)]
    more = spread(after).p99_ms - spread(quiet).p99_ms
    return [
        Row(
            f"acked writes lost, and sessions, in {count} kills -9 of a host under load "
            f"({shots.without_files} came back without files, {shots.left_dead} only after they had been given up)",
            "0",
            f"{len(wrong)} of {writes:,} acked writes and {IDLE} idle sessions; "
            f"two copies of all after {sum(shots.repaired) / count:.1f} s, at most {max(shots.repaired):.1f} s",
            not wrong,
        ),
        Row(
            "logouts undone meanwhile",
            "0",
            f"{len(leavers.undone)} of {len(leavers.ended):,}, {tried:,} replays on all hosts at the end",
            not leavers.undone and tried >= len(leavers.ended),
        ),
        Row(
            "5xx of hosts that were not killed",
            "0",
            f"{len(load.refused)} of {sum(load.done.values()):,}; {len(load.broken)} broken by the kill of their own host",
            not load.refused,
        ),
        Row(
            f"p99 in the {AFTERMATH_S:.0f} s after a kill",
            f"at most +{LATER_MS:.0f} ms",
            f"{more:+.0f} ms: {spread(after)}, else {spread(quiet)}",
            more <= LATER_MS,
            clocked=True,
        ),
    ]
