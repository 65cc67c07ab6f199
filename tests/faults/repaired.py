"""When a cluster has repaired what a fault has done, as its nodes say it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from tests.end_to_end.cluster import Host

GONE: Final = {"dead", "left"}


def mended(hosts: Iterable[Host], gone: Host) -> bool:
    """Whether every one of `hosts` knows that `gone` is, and owes no session a second copy."""
    for host in hosts:
        code, body = host.ask_admin("/status")
        if code != 200:
            return False
        said = json.loads(body)
        states = {member["identity"]: member["state"] for member in said["members"]}
        if said["debt"] != 0 or states.get(gone.name) not in GONE:
            return False
    return True
