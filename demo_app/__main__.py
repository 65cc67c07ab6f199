"""`python -m demo_app`: the shop to click in, with a button for every fault. `python -m demo_app check`: the same, headless."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import NoReturn

from . import check, interactive
from .commands import FRAMEWORKS


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _ended)
    return check.run(options) if options.command == "check" else interactive.run(options)


def _ended(number: int, frame: object) -> NoReturn:
    """As with Ctrl-C: what was started is ended on the way out."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo_app", description=__doc__)
    _common(parser, framework="flask", nodes=3, loopback=False)
    parser.add_argument("--port", type=int, default=8080, help="where the page is; 0 takes any free one (default: 8080)")
    commands = parser.add_subparsers(dest="command")
    checking = commands.add_parser("check", help="200 users click while hosts fail; prints one JSON line")
    _common(checking)
    checking.add_argument("--users", type=int, default=200, help="logged-in users, two tabs each (default: 200)")
    checking.add_argument("--rate", type=float, default=150.0, help="requests a second of all users together (default: 150)")
    checking.add_argument("--seconds", type=float, default=45.0, help="click at least that long (default: 45)")
    checking.add_argument("--seed", type=int, help="of what the users do and which hosts fail (default: by chance)")
    checking.add_argument("--runs", type=int, default=1, help="that often, until one fails (default: 1)")
    return parser


def _common(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """The options of both commands; where `check` leaves one out, what stands before it counts."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("--framework", choices=FRAMEWORKS, help="which of the three shops (default: flask)")
    add("--nodes", type=_at_least_two, help="app hosts (default: 3)")
    add("--loopback", action="store_true", help="make no network namespaces, even as root")
    parser.set_defaults(**defaults)


def _at_least_two(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 9:
        raise argparse.ArgumentTypeError("2 to 9 hosts")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
