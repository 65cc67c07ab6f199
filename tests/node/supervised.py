"""A program for the tests of `supervise`: a supervisor over two commands, or one of these commands.

`python -m tests.node.supervised supervise LOG READY_S NOTICE_S TTY NODE APP...`, where each command appends its story to LOG.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from clustersession.node.notify import READY, announce
from clustersession.node.supervise import Commands, Supervisor

PR_SET_CHILD_SUBREAPER = 36


def supervise(log: str, ready_s: str, notice_s: str, terminal: str, node: str, *app: str) -> NoReturn:
    """Runs `node` and `app`; adopts orphans as PID 1 does; with a `terminal`, that is its controlling one."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if terminal:
        os.dup2(os.open(terminal, os.O_RDWR), 0)
    commands = Commands(node=json.loads(node), node_environ=dict(os.environ), app=app, app_environ={**os.environ, "APP": "1"})
    sys.exit(Supervisor(commands, ready_s=float(ready_s), notice_s=float(notice_s)).run())


def part(log: str, name: str, code: str = "0", *, ready: bool = True) -> NoReturn:
    """Says that it runs, ends with `code` on SIGTERM or SIGINT; a second such signal would be a second line."""
    with Path(log).open("a") as story:

        def say(what: str) -> None:
            story.write(f"{name} {what} {os.getpid()}\n")
            story.flush()

        say("runs")
        ended: list[int] = []

        def told(number: int, _: object) -> None:
            say(signal.Signals(number).name)
            ended.append(number)

        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(each, told)
        if ready:
            announce(READY, os.environ)
        say("waits")
        while not {signal.SIGTERM, signal.SIGINT} & set(ended):
            signal.pause()
        time.sleep(0.2)  # long enough for a second copy of the signal, or for the other part to be told too early
        say("ended")
    os._exit(int(code))


def slow_node(log: str) -> NoReturn:
    """A node that never becomes ready."""
    part(log, "node", ready=False)


def orphaning(log: str) -> NoReturn:
    """An app that leaves a grandchild to whoever adopts it, which then ends; and ends itself once that one is gone."""
    read, write = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            while os.getppid() != int(os.environ["ADOPTER"]):
                time.sleep(0.01)
            os.write(write, str(os.getpid()).encode())
        os._exit(0)
    os.wait()
    orphan = int(os.read(read, 20))
    while Path(f"/proc/{orphan}").exists():  # a zombie is still there
        time.sleep(0.01)
    with Path(log).open("a") as story:
        story.write("orphan reaped 0\n")
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        os.environ["ADOPTER"] = str(os.getpid())
    globals()[sys.argv[1]](*sys.argv[2:])
