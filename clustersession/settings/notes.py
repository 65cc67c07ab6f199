"""What may be a mistake, but may be right too: logged once, shown by `clustersession check`, never an error."""

from __future__ import annotations

import difflib
import logging
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..config import Config
from .kinds import DNS_SCHEME, host_port, is_loopback
from .setting import PREFIX
from .table import BY_NAME

log: Final = logging.getLogger("clustersession.settings")
_said: Final[set[str]] = set()


def say(note: str) -> None:
    """Logs `note` as a warning, once in this process: an app may be wrapped for every test of a suite."""
    if note not in _said:
        _said.add(note)
        log.warning("%s", note)


def notes(environ: Mapping[str, str], config: Config) -> list[str]:
    """What looks odd in settings that are valid, one sentence each. Reads no more than file permissions."""
    found = [_unknown(name) for name in environ if name.startswith(PREFIX) and name not in BY_NAME]
    if config.mode != "dev" and config.node.startswith("localhost") and PREFIX + "NODE" not in environ:
        found.append(
            f"This host is called {config.node!r}, as others may be: set {PREFIX}NODE to a name that is unique in the cluster."
        )
    if config.mode != "dev":
        found += _about_peers(config)
    if config.secret_file is not None and _readable_by_all(config.secret_file):
        found.append(f"Every user of this host can read {config.secret_file}: chmod it to 0400 or 0440.")
    return found


def _about_peers(config: Config) -> list[str]:
    found = []
    if config.min_copies > 1 and not config.peers:
        found.append(
            f"{PREFIX}MIN_COPIES is {config.min_copies} and {PREFIX}PEERS names nobody: "
            "until another host finds this one, nothing can be stored."
        )
    setting, known_as = ("LISTEN", config.listen) if config.advertise is None else ("ADVERTISE", config.advertise)
    far = next((peer for peer in config.peers if not is_loopback(host_port(peer.removeprefix(DNS_SCHEME))[0])), None)
    if far is not None and is_loopback(known_as.host):
        found.append(f"{PREFIX}{setting} is {known_as}, where only this host itself can reach it: {far} cannot.")
    return found


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.7)
    return f"There is no setting {name}" + (f"; did you mean {near[0]}?" if near else ": it is ignored.")


def _readable_by_all(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def unresolved_peers(config: Config) -> list[str]:
    """Peers whose name has no address here and now, with why. Asks the resolver, so it may take seconds."""
    return [f"{peer}: {why}" for peer in config.peers if (why := _why_unresolved(peer)) is not None]


def _why_unresolved(peer: str) -> str | None:
    host, port = host_port(peer.removeprefix(DNS_SCHEME))
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    return None
