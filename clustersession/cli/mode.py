"""`clustersession mode`: what the hosts that follow it do with sessions of before, for all of them at once."""

from __future__ import annotations

import argparse
import json
import time
from typing import Final

from ..core.switch import ALL, MODES
from .show import asked, asked_status

FOLLOW: Final = (
    "Hosts with CLUSTERSESSION_MODE_SWITCH=1 follow within a second or two, without a restart; others keep their own mode."
)


def add_mode(parser: argparse.ArgumentParser) -> None:
    """What `mode` takes."""
    parser.add_argument("mode", nargs="?", choices=MODES, help="without it, what holds on this host")
    parser.add_argument(
        "--percent", type=_percent, default=ALL, help="of the sessions of before, by their old cookies; the others stay off (100)"
    )
    parser.add_argument("--json", action="store_true", help="what holds, as JSON")
    parser.set_defaults(run=mode)


def mode(options: argparse.Namespace) -> int:
    """Switches the cluster, or says to what it was switched."""
    if options.mode is not None:
        print(asked(f"/mode/{options.mode}/{options.percent}", method="POST").text.strip())
        print(FOLLOW)
        return 0
    found = asked_status()
    if options.json:
        print(json.dumps({"mode": found["mode"], "switch": found["switch"]}, indent=2))
        return 0
    print(f"mode {found['mode']} on {found['node']}")
    switch = found["switch"]
    if switch is not None:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(switch["at"]))
        print(f"the cluster was switched to {switch['mode']}, {switch['percent']} per cent, at {at} on {switch['by']}")
    return 0


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > ALL:
        raise argparse.ArgumentTypeError(f"a number from 0 to {ALL}")
    return int(text)
