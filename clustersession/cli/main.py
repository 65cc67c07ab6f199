"""The command `clustersession`: what it takes, and what it exits with.

Exit codes: 0 all is well; 1 the node says that it is not ready; 2 the command line is wrong; 69 the node cannot be asked;
75 sessions could not be handed over; 78 a setting or the store's place is wrong. `run` exits as the app does, 126 or 127 if
there is no such command. `explain` has 0 for alive, 1 for gone, 2 for no ID of this cluster and 3 for not known, `doctor` 0 for
well, 1 for trouble and 2 for not known. `import` has 0 for all taken over or rightly left, 1 for some that were not, 2 for not
begun. No process that stays uses 3 and 4: a node that outlived its worker is a child of gunicorn's master in a container, which
takes these two for a worker that cannot start, and stops.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final

import clustersession

from ..errors import ClusterSessionError, ConfigError, StoreRefused
from ..node.spawn import SPAWNED
from . import balancer, check, doctor, explain, importing, mode, node, show

UNAVAILABLE_EXIT: Final = 69
CONFIG_EXIT: Final = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. `arguments`: without the program's name, None for this process's own."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except (ConfigError, StoreRefused) as error:
        print(f"clustersession: {error}", file=sys.stderr)
        return CONFIG_EXIT
    except ClusterSessionError as error:
        print(f"clustersession: {error}", file=sys.stderr)
        return UNAVAILABLE_EXIT
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has seen enough; Python would complain at exit
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clustersession", description="Sessions kept on the app hosts themselves.")
    parser.add_argument("--version", action="version", version=clustersession.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("run", help="run this host's node and the app beside it", usage="clustersession run -- COMMAND ...")
    one.add_argument("command", nargs=argparse.REMAINDER, help="the app's command line, such as: gunicorn app:app")
    one.set_defaults(run=_logged(node.run), parser=one)

    one = commands.add_parser("node", help="run this host's node alone")
    one.add_argument(SPAWNED, dest="spawned", action="store_true", help=argparse.SUPPRESS)
    one.set_defaults(run=_logged(node.node))

    one = commands.add_parser("check", help="say what is wrong with the settings, and how to mend it")
    one.set_defaults(run=check.check)

    one = commands.add_parser("settings", help="show every setting with its value in force")
    one.add_argument("--reference", action="store_true", help="print the reference page instead")
    one.set_defaults(run=show.settings)

    one = commands.add_parser("status", help="what this host's node knows")
    one.add_argument("--json", action="store_true", help="all of it, as JSON")
    one.set_defaults(run=show.status)

    explain.add_explain(commands.add_parser("explain", help="where a session lives, or why it is gone"))

    doctor.add_doctor(commands.add_parser("doctor", help="examine the whole cluster, and say what is wrong with it"))

    mode.add_mode(commands.add_parser("mode", help="switch all hosts that follow it: off, shadow, mirror or on"))
    importing.add_import(commands.add_parser("import", help="take over all sessions of the old store, without their users"))

    one = commands.add_parser("drain", help="have this host's node hand over its sessions; it stays until it is stopped")
    one.add_argument("--timeout", type=show.seconds, default=60.0, help="seconds to wait for that (default: 60)")
    one.set_defaults(run=show.drain)

    one = commands.add_parser("tags", help="the tags by which a balancer can route on the cookie")
    one.set_defaults(run=show.tags)

    balancer.add_balancers(commands.add_parser("lb", help="print a balancer's configuration that routes by the cookie"))

    key = commands.add_parser("key", help="keys for the ring").add_subparsers(required=True, metavar="COMMAND")
    one = key.add_parser("new", help="print a fresh key, as CLUSTERSESSION_SECRET takes it")
    one.add_argument("--kid", type=_kid, help="its number, 0 to 255 (default: the first that the ring does not have)")
    one.set_defaults(run=show.key_new)
    return parser


def _logged(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s clustersession[%(process)d] %(levelname)s %(message)s")
        return command(options)

    return run


def _kid(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError("a number from 0 to 255")
    return int(text)
