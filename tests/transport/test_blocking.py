"""The blocking transport among threads, forks and greenlets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

from clustersession.core.calls import Applied, Reply, Unreachable
from clustersession.transport.blocking import BlockingTransport
from tests.transport.kit import events, patch, peer_process, rogue, serving, until_closed, wiring

APPLIED = Applied(1, 2, ("b", "a"))


def test_threads_share_a_transport() -> None:
    """Each gets its own replies; connections are used again, the last one first."""
    wired = wiring("a")
    transport, replies = BlockingTransport(wired), list[Reply]()

    with serving() as server:

        def work(number: int) -> None:
            replies.extend(transport.ask(server.member, patch(number), monotonic() + 10.0) for _ in range(50))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies == [APPLIED] * 600
        assert 1 <= server.server.connections <= 12
        transport.close()
    assert events(wired) == {}


def test_a_forked_child_has_connections_of_its_own() -> None:
    """Parent and child call at the same time over one transport object: neither disturbs the other."""
    transport = BlockingTransport(wiring("a"))
    with peer_process() as (_, member):
        assert transport.ask(member, patch(1), monotonic() + 10.0) == APPLIED
        children = [_forked(transport, member) for _ in range(3)]
        mine = [transport.ask(member, patch(number), monotonic() + 10.0) for number in range(100)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert mine == [APPLIED] * 100
        assert codes == [0, 0, 0]
    transport.close()


def _forked(transport: BlockingTransport, member: object) -> int:
    child = os.fork()
    if child:
        return child
    replies: list[Reply] = []
    try:
        replies = [transport.ask(member, patch(number), monotonic() + 10.0) for number in range(100)]  # type: ignore[arg-type]
    finally:
        os._exit(0 if replies == [APPLIED] * 100 else 1)


def test_a_fork_in_the_midst_of_calls_is_no_deadlock() -> None:
    """Whatever locks other threads of the parent hold at that moment."""
    transport, done = BlockingTransport(wiring("a")), threading.Event()
    with peer_process() as (_, member):

        def busy() -> None:
            while not done.is_set():
                transport.ask(member, patch(1), monotonic() + 10.0)

        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        children = [_forked(transport, member) for _ in range(5)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        done.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 5
    transport.close()


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
from time import monotonic
import gevent
from clustersession.core.node import Member
from clustersession.core.calls import Applied, Unreachable
from clustersession.ports import Outgoing
from clustersession.transport.blocking import BlockingTransport
from tests.transport.kit import patch, wiring

good, silent = (Member(name, "127.0.0.1", int(port), 7) for name, port in zip("bc", sys.argv[1:]))
transport = BlockingTransport(wiring("a"))
ticks = []
ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.005)) for _ in range(10_000)])
waiting = [gevent.spawn(transport.ask, silent, patch(1), monotonic() + 3) for _ in range(5)]
calls = [gevent.spawn(transport.ask, good, patch(number), monotonic() + 10) for number in range(90)]
hedge = gevent.spawn(transport.exchange, [Outgoing(silent, patch(1)), Outgoing(good, patch(1), 0.05)], monotonic() + 10,
                     lambda reply: isinstance(reply, Applied))
gevent.joinall(calls + [hedge])
assert not any(each.ready() for each in waiting), [each.value for each in waiting]
assert {each.value for each in calls} == {Applied(1, 2, ("b", "a"))}
assert hedge.value == [None, Applied(1, 2, ("b", "a"))], hedge.value
gevent.joinall(waiting)
assert {each.value for each in waiting} == {Unreachable("budget")}
assert len(ticks) > 20, len(ticks)
transport.close()
print("fine")
"""


def test_greenlets_wait_without_holding_each_other_up() -> None:
    """Under gevent's patches a call to a silent peer lets all others go on."""
    with serving() as server, rogue(until_closed) as silent:
        ran = subprocess.run(
            [sys.executable, "-c", GREENLETS, str(server.address.port), str(silent.port)],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert (ran.stdout, ran.returncode) == ("fine\n", 0), ran.stderr


def test_an_interrupted_call_leaves_nothing_behind() -> None:
    """An exception from outside (a timer of the server, a signal) in the midst of a call: the place is free again."""

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    transport = BlockingTransport(wiring("a"))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with rogue(until_closed) as silent:
            for _ in range(40):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                try:
                    transport.ask(silent, patch(1), monotonic() + 10.0)
                except Interrupted:
                    continue
                raise AssertionError("nothing interrupted it")
            assert transport.ask(silent, patch(1), monotonic() + 0.05) == Unreachable("budget")
    finally:
        signal.signal(signal.SIGALRM, before)
        transport.close()
