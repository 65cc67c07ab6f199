"""`clustersession node` and `clustersession run`: the processes that stay."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import time
from pathlib import Path
from typing import Final

from ..config import Config
from ..errors import ConfigError
from ..node.imprint import forget, imprint, leave
from ..node.launch import node_command, node_environ
from ..node.notify import READY, announce
from ..node.spawn import WORKERLESS_S, detach, end_after_last_worker
from ..node.supervise import Commands, Supervisor, cannot_run
from ..settings import load_settings, process_environ
from ..store.locks import NodeLock
from ..store.place import make_private, place_for

PREDECESSOR_S: Final = WORKERLESS_S + 3.0
log: Final = logging.getLogger("clustersession.node")


def node(options: argparse.Namespace) -> int:
    """Runs the node in this process until it is told to end; with `--spawned` in a child, until the last worker has gone."""
    config = load_settings(under_test=False)
    if config.mode == "dev":
        raise ConfigError("CLUSTERSESSION_MODE", "dev mode has no node", "Unset it to run one.")
    place = place_for(config, process_environ())
    make_private(place)
    serving = _nobody_waits
    if options.spawned:
        serving = detach(place, config.timeouts.ready_s)
        leave(place, imprint(config))
        end_after_last_worker(place)
    else:
        _await_predecessor(place)
    from ..node.daemon import run as run_daemon  # late: the spawning process above does not need it

    return run_daemon(config, drains=not options.spawned, serving=serving)


def _nobody_waits() -> None:
    """Who runs a node by hand waits for its READY, if for anything."""


def _await_predecessor(place: Path) -> None:
    """A node that workers had started ends by itself soon after they have: no reason to refuse the one that takes over."""
    deadline = time.monotonic() + PREDECESSOR_S
    while (holder := NodeLock(place).holder()) is not None and time.monotonic() < deadline:
        log.info("process %d is still the node of %s; waiting for its end", holder, place)
        time.sleep(1.0)
    if holder is None:
        forget(place)


def run(options: argparse.Namespace) -> int:
    """Runs the node and the app. In dev mode, which has no node, this process becomes the app."""
    command: list[str] = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        options.parser.error("name the app's command: clustersession run -- gunicorn app:app")
    config = load_settings(under_test=False)
    environ = process_environ()
    if config.mode == "dev":
        return _become(command, environ)
    return _supervised(config, command, environ)


def _become(command: list[str], environ: dict[str, str]) -> int:
    """This process goes on as the command; an exit code if it cannot."""
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606  (the app's command, as given)
    except OSError as error:
        return cannot_run(command[0], error)


def _supervised(config: Config, command: list[str], environ: dict[str, str]) -> int:
    commands = Commands(
        node=node_command(),
        node_environ=node_environ(config),
        app=command,
        app_environ={**environ, "CLUSTERSESSION_SPAWN": "0"},
    )
    times = config.timeouts
    ready = functools.partial(announce, READY, environ)
    return Supervisor(commands, ready_s=times.ready_s, drain_s=times.drain_s, notice_s=times.notice_s, on_app=ready).run()
