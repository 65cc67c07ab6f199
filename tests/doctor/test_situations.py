"""`clustersession doctor` names the situation that was made, on whichever host it is asked.

DOCTOR_ROUNDS: how often each is made anew; 2 without it, and 10 is what is claimed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.cluster import Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.servers import clustersession

from .situations import FAKETIME, IMPAIRED, NOT_STICKING, OLD_COOKIES, Situation, all_is_well, made, told

ROUNDS = int(os.environ.get("DOCTOR_ROUNDS", "2"))
SITUATIONS = (all_is_well, *OLD_COOKIES, *IMPAIRED, *NOT_STICKING)


def ask(host: Host, *flags: str) -> tuple[int, str]:
    """Exit code and what it prints."""
    asked = subprocess.run(
        clustersession("doctor", *flags), env=host.environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert asked.stderr == ""
    return asked.returncode, asked.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_the_doctor_names_it(new_cluster: NewCluster, tmp_path: Path, situation: Situation, number: int) -> None:
    """The verdict, its cause, and the hosts to blame; nothing else is called a cause."""
    if "clock" in situation.__name__ and FAKETIME is None:
        pytest.skip("NO CLOCK IS WRONG HERE: libfaketime is not installed (Debian's package faketime)")
    with made(situation, new_cluster, tmp_path) as (cluster, expected):
        host = cluster.hosts[number % len(cluster.hosts)]
        began = time.monotonic()
        code, text = ask(host, "--json")
        seconds = time.monotonic() - began
        said: dict[str, Any] = json.loads(text)
        print(f"{situation.__name__}, asked on {host.name}, {seconds:.1f} s: {told(said)}")
        assert (said["verdict"], said["cause"]) == (expected.verdict, expected.cause), text
        assert code == (1 if expected.cause else 0)
        first = said["findings"][0] if expected.cause else {"where": []}
        blamed = {*first["where"], *_addresses(said, first["where"])}
        assert set(expected.where) <= blamed, text
        assert set(expected.codes) <= set((said["old_cookies"] or {"by": {}})["by"]), text
        complaints = cluster.complaints()
        if expected.complaint is not None:
            assert len(complaints) == len(cluster.hosts)
            complaints = [line for line in complaints if expected.complaint not in line]
        assert complaints == []


def _addresses(said: dict[str, Any], names: list[str]) -> list[str]:
    return [each["address"] for each in said["examination"]["members"] if each["node"] in names]
