"""A hundred thousand sessions that have to move: repaired after a kill, handed over in a drain, and both at once."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Final

from tests.end_to_end.cluster import Host
from tests.end_to_end.processes import until
from tests.faults.repaired import mended

from . import idle
from .fleet import Fleet, copies, ended, said_by, start, told_to_end
from .idle import Click, between
from .report import Row, Spread, change, spread
from .sizes import Sizes

PER_SECOND: Final = 200
USERS: Final = 300
REPAIRED_S: Final = 15.0  # for 100,000 of 2 KB
DRAINED_S: Final = 20.0  # the same
P99_MORE: Final = 25.0  # percent
GIVEN_UP_S: Final = 600.0


def crowd(sizes: Sizes, directory: Path) -> list[Row]:
    """Three nodes; users click on one of them all the time. n1 is killed and comes back empty, n2 is drained and comes back
    empty, n1 is killed in the middle of its drain."""
    killed, _, watching = "n1", "n2", "n3"
    with Fleet(directory, 3, MAX_BYTES="768MiB", DRAIN_TIMEOUT=f"{GIVEN_UP_S:.0f}s").start() as fleet:
        cookies = idle.made(fleet.hosts, sizes.crowd, sizes.crowd_bytes)
        with idle.clicking(fleet[watching], f"{USERS}:{PER_SECOND}:") as seen:
            quiet = _quiet(sizes)
            repair, held = _repaired(fleet, fleet[killed])
        [clicks] = seen
        lost = idle.checked(fleet.others(killed), cookies)
        rows = _repair_rows(sizes, held, clicks, quiet, repair)
        rows.append(_lost_row("sessions lost by the kill", sizes, lost))
        rows += _drain_rows(sizes, fleet, cookies)
        return rows


def _quiet(sizes: Sizes) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(sizes.quiet_s)
    return began, time.monotonic()


def _repaired(fleet: Fleet, killed: Host) -> tuple[tuple[float, float], int]:
    """kill -9, until the others owe no session a second copy; when that was, and how many had one copy."""
    before = copies(fleet.hosts)
    struck = copies([killed])
    began = time.monotonic()
    killed.kill()
    others = fleet.others(killed.name)
    until(lambda: mended(others, killed), "the sessions don't get their second copy", GIVEN_UP_S)
    over = time.monotonic()
    assert copies(others) >= before, "debt is 0, and there are fewer copies than before"
    return (began, over), struck


def _repair_rows(
    sizes: Sizes, struck: int, clicks: list[Click], quiet: tuple[float, float], repair: tuple[float, float]
) -> list[Row]:
    took = repair[1] - repair[0]
    before, meanwhile = between(clicks, *quiet), between(clicks, *repair)
    assert len(before) > sizes.quiet_s * PER_SECOND / 2
    more = change(_times(before), _times(meanwhile))
    untouched = _times([each for each in meanwhile if "n1" not in each.owners])
    errors = idle.worst(clicks)
    print(*errors[:5], sep="\n")
    return [
        Row(
            f"one of three nodes killed with {sizes.crowd:,} sessions of {sizes.crowd_bytes} bytes: every session on two again",
            f"at most {REPAIRED_S:.0f} s",
            f"{took:.1f} s after the kill, until it counts as dead included, for {struck:,} sessions",
            took <= REPAIRED_S,
            clocked=True,
        ),
        Row(
            "p99 of requests meanwhile",
            f"at most +{P99_MORE:.0f} %",
            f"{more:+.0f} %: {_times(meanwhile)}, before {_times(before)}; of sessions that the kill did not strike {untouched}",
            more <= P99_MORE,
            clocked=True,
        ),
        Row(
            "requests meanwhile that found nothing, or not what was acked",
            "0",
            f"{len(errors)} of {len(meanwhile):,}, {idle.refused(meanwhile)} to be repeated",
            not errors,
        ),
    ]


def _times(clicks: list[Click]) -> Spread:
    return spread([each.seconds for each in clicks])


def _lost_row(claim: str, sizes: Sizes, found: idle.Checked) -> Row:
    print(*found.wrong[:5], sep="\n")
    return Row(claim, "0", f"{len(found.wrong)} of {sizes.crowd:,}, {found.refused} requests repeated", not found.wrong)


# --- drain ---------------------------------------------------------------------------------------------------------------


def _drain_rows(sizes: Sizes, fleet: Fleet, cookies: Path) -> list[Row]:
    first, second, third = fleet
    with idle.clicking(third, f"{USERS}:{PER_SECOND}:") as seen:
        quiet = _quiet(sizes)
        back = _returned(sizes, fleet, first)
        held = copies([second])
        drain, code = _drained(second)
    [clicks] = seen
    rows = [_drain_row(sizes, held, drain, code), *_felt_rows(clicks, quiet, back, drain)]
    gone = _lost_row("sessions lost by the drain, without the files of who left", sizes, idle.checked([first, third], cookies))
    _back_empty(fleet, second)
    before, left = _killed_in_the_middle(first)
    lost = _lost_row(
        f"sessions lost by kill -9 of a node in the middle of its drain ({left:,} of {before:,} to go)",
        sizes,
        idle.checked([second, third], cookies),
    )
    until(lambda: mended([second, third], first), "the sessions don't get their second copy", GIVEN_UP_S)
    third.kill()
    again = _lost_row("sessions lost by a second kill once debt is 0", sizes, idle.checked([second], cookies))
    return [*rows, gone, lost, again]


def _returned(sizes: Sizes, fleet: Fleet, host: Host) -> tuple[float, float]:
    """From its start until the others have long compared what they hold with it."""
    began = time.monotonic()
    _back_empty(fleet, host)
    time.sleep(sizes.quiet_s)
    return began, time.monotonic()


def _drained(host: Host) -> tuple[tuple[float, float], int]:
    began = time.monotonic()
    code = ended(told_to_end(host), GIVEN_UP_S)
    return (began, time.monotonic()), code


def _drain_row(sizes: Sizes, held: int, drain: tuple[float, float], code: int) -> Row:
    took = drain[1] - drain[0]
    return Row(
        f"drain of a node with {held:,} sessions of {sizes.crowd_bytes} bytes",
        f"exit code 0 within {DRAINED_S:.0f} s per 100,000",
        f"exit code {code} after {took:.1f} s",
        code == 0 and took <= DRAINED_S * max(1.0, held / 100_000),
        clocked=True,
    )


def _felt_rows(
    clicks: list[Click], quiet: tuple[float, float], back: tuple[float, float], drain: tuple[float, float]
) -> list[Row]:
    before = _times(between(clicks, *quiet))
    errors = idle.worst(clicks)
    print(*errors[:5], sep="\n")
    rows = []
    for what, when in (("that drain", drain), ("the return of the killed node, without its files", back)):
        meanwhile = between(clicks, *when)
        assert meanwhile
        measured = f"{change(before, _times(meanwhile)):+.0f} %: {_times(meanwhile)}, before {before}"
        rows.append(Row(f"p99 of requests during {what}", "stated", measured, True, clocked=True))
    found = f"{len(errors)} of {len(clicks):,}, {idle.refused(clicks)} to be repeated"
    rows.append(Row("requests during both that found nothing, or not what was acked", "0", found, not errors))
    return rows


def _back_empty(fleet: Fleet, host: Host) -> None:
    shutil.rmtree(host.place)
    start([host])
    fleet.await_settled(GIVEN_UP_S)


def _killed_in_the_middle(host: Host) -> tuple[int, int]:
    """What it owed at first, and when it was killed."""
    program = told_to_end(host)

    def owed() -> int:
        said = said_by(host)
        debt: int | None = None if said is None else said["debt"]
        return debt or 0

    before = until(owed, "it does not say what it owes")
    until(lambda: 0 < owed() < before * 0.6, "the drain does not get on", GIVEN_UP_S)
    left = owed()
    assert host.kill()
    assert ended(program, 30.0) == -signal.SIGKILL, "the drain was over before the kill"
    assert 0 < left < before
    return before, left
