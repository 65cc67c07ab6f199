"""Claims whose faults have tests of their own: they are run as they are, and what they print is what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tests.end_to_end.servers import TOP

from .report import Row
from .sizes import Sizes

LIMIT_S: Final = 300.0


class Tested(NamedTuple):
    """A claim, the test of it, and what of its output says how it went."""

    claim: str
    claimed: str
    test: str
    said: str


TESTS: Final = (
    Tested(
        "acked writes lost, sessions lost and logouts undone, one direction of one link cut",
        "0; a logout is known on the other side within 2 s",
        "tests/faults/test_partition.py::test_one_direction_of_one_link",
        r"logouts are known.*|\{.*packets dropped.*",
    ),
    Tested(
        "the same, one host cut off from the two others",
        "0 once the link is back",
        "tests/faults/test_partition.py::test_a_host_cut_off_from_the_others",
        r"the host that is alone after.*|both histories.*",
    ),
    Tested(
        "sessions lost or ended early, wall clocks that step by up to two hours under load",
        "0",
        "tests/faults/test_clock.py",
        r"\d+ requests with wrong clocks.*",
    ),
)


def elsewhere(_: Sizes, __: Path) -> list[Row]:
    return [_tested(each) for each in TESTS]


def _tested(claim: Tested) -> Row:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", claim.test]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    said = "; ".join(re.findall(claim.said, done.stdout))
    passed = done.returncode == 0 and " skipped" not in done.stdout
    measured = f"the test passes: {said}"
    if not passed:
        print(done.stdout[-4000:], done.stderr[-1000:])
        measured = f"the test does not pass here: {done.stdout.strip().splitlines()[-1]}"
    return Row(claim.claim, claim.claimed, measured, passed)
