"""`clustersession lb`: a balancer's configuration, from the node's members, the ring's keys and what the user says of the app."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..config import Address, Config
from ..core.keyring import KeyRing
from ..core.session_id import node_tag
from ..errors import ConfigError
from ..settings import load_settings
from ..settings.kinds import host_port
from ..settings.table import BY_FIELD
from .balancer_forms import AppHost, Check, Plan, haproxy, nginx
from .show import asked_status

STALE_EXIT: Final = 1
_OWNER_CHARS: Final = 8  # the identity's half of a tag: it stays when the peer port changes
_is_host = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*").fullmatch
_is_identity = re.compile(r"[A-Za-z0-9._:-]+").fullmatch  # a peer's word must not become a line of the configuration
_is_plain_name = re.compile(r"[A-Za-z0-9._-]+").fullmatch


def add_balancers(parser: argparse.ArgumentParser) -> None:
    """`haproxy` and `nginx`, with what each of them can be told."""
    balancers = parser.add_subparsers(required=True, metavar="BALANCER")
    one = balancers.add_parser("haproxy", help="print a backend for HAProxy")
    one.add_argument("--health", metavar="PATH", type=_path, help="a path of the app that answers 200 while it serves")
    one.add_argument(
        "--health-host", metavar="NAME", type=_plain, default="localhost", help="Host of the checks (default: %(default)s)"
    )
    one.add_argument("--node-port", metavar="PORT", type=_port, help="check /readyz too, on the control listener at this port")
    _add_common(one, haproxy)
    one = balancers.add_parser("nginx", help="print upstreams and maps for nginx")
    one.set_defaults(health=None, health_host="", node_port=None)  # it has no checks of its own
    _add_common(one, nginx)


def _add_common(one: argparse.ArgumentParser, form: object) -> None:
    one.add_argument(
        "--app",
        metavar="IDENTITY=HOST:PORT",
        type=_app,
        action="append",
        default=[],
        help="where a host's app listens; repeatable",
    )
    one.add_argument("--app-port", metavar="PORT", type=_port, help="the app's port on every member that --app does not name")
    one.add_argument(
        "--cookie", metavar="NAME", type=_plain, action="append", help="the cookie's name (default: the settings'); repeatable"
    )
    one.add_argument(
        "--check", metavar="FILE", type=Path, help="print nothing but what differs in FILE; exit with 1 if it is out of date"
    )
    one.set_defaults(run=balance, form=form, parser=one)


def balance(options: argparse.Namespace) -> int:
    """Prints the configuration, or compares it with the file of `--check`. The same cluster and options give the same text."""
    config = load_settings(under_test=False)
    if config.mode == "dev":
        raise ConfigError("CLUSTERSESSION_MODE", "dev mode has no node that could be balanced", "Unset it.")
    ring = KeyRing.parse(config.secret)
    members = asked_status()["members"]
    _check_same_keys(members, ring)
    places = _places(options, members)
    hosts = tuple(AppHost(each, places[each], _owner_tags(ring, each)) for each in sorted(places))
    checks = Check(options.health, options.health_host, options.node_port, needs_token=config.admin_token is not None)
    text = options.form(Plan(hosts, ring.kids, tuple(options.cookie or _cookies(config)), checks))
    if options.check is not None:
        return _compared(options, text)
    print(text, end="")
    return 0


def _owner_tags(ring: KeyRing, identity: str) -> tuple[str, ...]:
    keys = (ring.get(kid) for kid in ring.kids)
    return tuple(node_tag(key, identity, 0)[:_OWNER_CHARS] for key in keys if key)


def _check_same_keys(members: Sequence[Mapping[str, Any]], ring: KeyRing) -> None:
    """Tags made with other keys than the hosts have would route nothing, and nobody would notice."""
    for member in members:
        theirs = tuple(tag[:_OWNER_CHARS] for tag in member["tags"].values())
        if set(theirs) != set(_owner_tags(ring, member["identity"])):
            raise ConfigError(
                "CLUSTERSESSION_SECRET", "this host's node has other keys", "Run this with the node's own settings."
            )


def _places(options: argparse.Namespace, members: Sequence[Mapping[str, Any]]) -> dict[str, Address]:
    """Where each host's app is. A host that `--app` names is taken whether it is there now or not; of the others, one that has
    left is not."""
    places: dict[str, Address] = dict(options.app)
    if len(places) < len(options.app):
        options.parser.error("two --app name the same identity")
    for member in members:
        identity, state = member["identity"], member["state"]
        if identity in places or state == "left" or not _is_identity(identity):
            continue
        if options.app_port is not None:
            places[identity] = _beside(options, identity, member["address"])
        elif state != "dead":
            options.parser.error(f"where is the app of {identity}? Say --app {identity}=HOST:PORT, or --app-port PORT for all")
    return places


def _beside(options: argparse.Namespace, identity: str, peer_address: str) -> Address:
    """The app's address on the host whose node is at `peer_address`, which its node has told."""
    host = peer_address.rpartition(":")[0]
    if not _is_host(host) or host in ("0.0.0.0", "::"):  # noqa: S104  (not bound)
        options.parser.error(f"the node does not know an address of {identity}: say --app {identity}=HOST:PORT")
    return Address(host=host, port=options.app_port)


def _cookies(config: Config) -> tuple[str, ...]:
    for name in config.cookie.names:
        if not _is_plain_name(name):
            problem = f"{name!r} cannot be written into a balancer's configuration"
            raise ConfigError("CLUSTERSESSION_COOKIE_NAME", problem, "Use letters, digits, '-', '_' and '.' only.")
    return config.cookie.names


def _compared(options: argparse.Namespace, text: str) -> int:
    file: Path = options.check
    try:
        there = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        there = ""
    except OSError as error:
        options.parser.error(f"{file} cannot be read: {error.strerror}")
    if there == text:
        return 0
    print("\n".join(difflib.unified_diff(there.splitlines(), text.splitlines(), str(file), "now", lineterm="", n=0)))
    print(f"clustersession: {file} is out of date: write it again without --check, and reload the balancer", file=sys.stderr)
    return STALE_EXIT


# --- arguments -----------------------------------------------------------------------------------------------------------


def _app(text: str) -> tuple[str, Address]:
    identity, _, address = text.partition("=")
    try:
        BY_FIELD["node"].kind.parse(identity)
        host, port = host_port(address)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"IDENTITY=HOST:PORT is wanted, and {problem}") from None
    if not port or not _is_host(host):
        raise argparse.ArgumentTypeError(f"IDENTITY=HOST:PORT is wanted, and {address!r} is no host with a port")
    return identity, Address(host=host, port=port)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= 65535:
        raise argparse.ArgumentTypeError("a port from 1 to 65535")
    return int(text)


def _path(text: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9/._~?=&%-]*", text):
        raise argparse.ArgumentTypeError("a path that begins with '/', of letters, digits and /._~?=&%-")
    return text


def _plain(text: str) -> str:
    if not _is_plain_name(text):
        raise argparse.ArgumentTypeError("letters, digits, '-', '_' and '.' only")
    return text
