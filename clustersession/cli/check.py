"""`clustersession check`: what is wrong with the settings here, what may be, and what to do about it."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..config import Address, Config
from ..core.keyring import KeyRing
from ..errors import ClusterSessionError, StoreRefused
from ..settings import is_loopback, load_settings, notes, process_environ, unresolved_peers
from ..store.locks import NodeLock
from ..store.place import DATA_DIR, make_private, place_for
from ..store.sizing import store_bytes

WRONG_EXIT: Final = 78


def check(_: argparse.Namespace) -> int:
    """Prints a line for each finding, `ok`, `note` or `wrong`. Creates nothing, so it may run as another user than the app's."""
    wrong = False
    with _quiet():
        for word, text in findings():
            print(f"{word:<6}{text}")
            wrong = wrong or word == "wrong"
    return WRONG_EXIT if wrong else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the warnings of the settings out of the log: they are among the findings."""
    log = logging.getLogger("clustersession.settings")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def findings() -> Iterator[tuple[str, str]]:
    """Findings as word and text, in the order in which things are needed."""
    environ = process_environ()
    try:
        config = load_settings(environ, under_test=False)
    except ClusterSessionError as error:
        yield "wrong", str(error)
        return
    kids = ", ".join(map(str, KeyRing.parse(config.secret).kids))
    yield "ok", f"settings: node {config.node} of cluster {config.cluster}, mode {config.mode}, keys {kids}"
    for note in notes(environ, config):
        yield "note", note
    if config.mode == "dev":
        yield "note", "dev mode: there is no node, no store on disk and no peer to check"
        return
    yield from _peers(config)
    try:
        yield from _place(config, place_for(config, environ))
    except ClusterSessionError as error:
        yield "wrong", str(error)


def _peers(config: Config) -> Iterator[tuple[str, str]]:
    if not config.peers:
        yield "note", "no peers: this host is alone, every session has one copy. Name the others in CLUSTERSESSION_PEERS."
        return
    unresolved = unresolved_peers(config)
    for problem in unresolved:
        yield "note", f"peer {problem}. This may be right elsewhere or later."
    if len(unresolved) < len(config.peers):
        yield "ok", f"peers: {len(config.peers) - len(unresolved)} of {len(config.peers)} have an address"
    if config.tls is None and not is_loopback(config.listen.host):
        yield "note", "no TLS between the hosts: values are sealed, but who calls whom can be seen. Set CLUSTERSESSION_TLS_*."


def _place(config: Config, place: Path) -> Iterator[tuple[str, str]]:
    there = next(each for each in (place, *place.parents) if os.path.lexists(each))
    if not os.path.isdir(there):  # noqa: PTH112  (Path.is_dir raises where this user may not look)
        raise StoreRefused(f"{there} is no directory. Let {DATA_DIR} name one.")
    if there == place:
        make_private(place)  # exists, so this only looks
    elif not os.access(there, os.W_OK | os.X_OK):
        may_be_there = "" if os.access(there, os.X_OK) else ", nor see whether it is there"
        who = f"user {os.geteuid()} cannot create {place}{may_be_there}"
        yield "note", f"place: {who}; the user that the app runs as must be able to."
        if may_be_there:
            return
    size = store_bytes(there, config.limits.store_bytes_max, own=_used(place))
    yield "ok", f"place: {place} has room for {size // 2**20} MiB"
    holder = NodeLock(place).holder()
    if holder is not None:
        yield "ok", f"node: runs as process {holder or 'of another container'}"
        return
    yield "ok", "node: none runs now"
    for setting, address in (("LISTEN", config.listen), ("ADMIN_LISTEN", config.admin_listen)):
        why = None if address is None else _why_not_listening(address)
        if why is not None:
            yield "note", f"CLUSTERSESSION_{setting}: a node could not listen on {address} here now ({why})."


def _why_not_listening(address: Address) -> str | None:
    try:
        family, kind, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _used(place: Path) -> int:
    return sum(each.stat().st_blocks * 512 for each in place.rglob("*") if each.is_file())
