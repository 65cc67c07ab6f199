"""The asyncio transport on its loops."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

import pytest

from clustersession.core.calls import Applied, Reply, Unreachable
from clustersession.core.node import Member
from clustersession.ports import Outgoing
from clustersession.transport.asynchronous import AsyncioTransport
from clustersession.transport.peers import IN_FLIGHT_MAX
from tests.transport.kit import eventually, free_port, patch, rogue, serving, until_closed, wiring

APPLIED = Applied(1, 2, ("b", "a"))


def test_one_transport_serves_loop_after_loop() -> None:
    """As tests, reloaders and async_to_sync make them: the connection is used on, on whatever loop calls."""
    transport = AsyncioTransport(wiring("a"))
    with serving() as server:

        async def calls() -> list[Reply]:
            return [await transport.ask(server.member, patch(number), monotonic() + 10.0) for number in range(3)]

        for _ in range(5):
            assert asyncio.run(calls()) == [APPLIED] * 3
        assert server.server.connections == 1
        asyncio.run(transport.close())


def test_loops_in_several_threads_share_a_transport() -> None:
    """Each call waits on the loop it was made on."""
    transport = AsyncioTransport(wiring("a"))
    replies: list[Reply] = []

    with serving() as server:

        async def calls() -> None:
            for number in range(30):
                replies.extend(
                    await asyncio.gather(*(transport.ask(server.member, patch(number), monotonic() + 10.0) for _ in range(3)))
                )

        threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies == [APPLIED] * 360
        asyncio.run(transport.close())


def test_the_loop_goes_on_while_a_peer_is_silent() -> None:
    """Nothing waits but the call: connecting, the hello and the reply leave the loop to others."""

    async def main(silent: Member) -> int:
        transport, ticks = AsyncioTransport(wiring("a")), 0
        call = asyncio.create_task(transport.ask(silent, patch(1), monotonic() + 0.3))
        while not call.done():
            await asyncio.sleep(0.005)
            ticks += 1
        assert call.result() == Unreachable("budget")
        await transport.close()
        return ticks

    with rogue(until_closed) as silent:
        assert asyncio.run(main(silent)) > 10


@pytest.mark.parametrize("hedged", [False, True])
def test_a_cancelled_call_leaves_nothing_behind(hedged: bool) -> None:
    """Its place is free again, and no task, timer or watched socket is left."""

    async def main(silent: Member, good: Member) -> None:
        transport = AsyncioTransport(wiring("a"))
        for _ in range(IN_FLIGHT_MAX + 8):
            if hedged:
                batch = [Outgoing(silent, patch(1)), Outgoing(good, patch(1), 9.0)]
                task = asyncio.create_task(transport.exchange(batch, monotonic() + 10.0, lambda reply: reply == APPLIED))
            else:
                task = asyncio.create_task(transport.ask(silent, patch(1), monotonic() + 10.0))  # type: ignore[arg-type]
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await transport.ask(good, patch(1), monotonic() + 10.0) == APPLIED
        assert await transport.ask(silent, patch(1), monotonic() + 0.05) == Unreachable("budget")
        assert len(asyncio.all_tasks()) == 1
        await transport.close()

    with rogue(until_closed) as silent, serving(wiring("c")) as server:
        asyncio.run(main(silent, server.member))


def test_an_idle_connection_that_is_closed_keeps_no_loop_busy() -> None:
    """The peer has gone: its socket is readable for ever, and is not watched any more; the next call opens a new one."""

    async def main() -> None:
        transport, port = AsyncioTransport(wiring("a")), free_port()
        with serving(port=port) as server:
            member = server.member
            assert await transport.ask(member, patch(1), monotonic() + 10.0) == APPLIED
            [connection] = [place for place in transport._peers.of(member).places if place is not None]
            watched = connection._sock.fileno()
            assert asyncio.get_running_loop().remove_reader(watched), "it is watched between calls"
            assert await transport.ask(member, patch(1), monotonic() + 0.2) == Unreachable("budget")  # as we have cut it off
            assert await transport.ask(member, patch(1), monotonic() + 10.0) == APPLIED
            [connection] = [place for place in transport._peers.of(member).places if place is not None]
            watched = connection._sock.fileno()
        deadline = monotonic() + 10.0
        while connection._readable.watch.on(asyncio.get_running_loop()):
            assert monotonic() < deadline
            await asyncio.sleep(0.005)
        assert not asyncio.get_running_loop().remove_reader(watched)
        with serving(port=port):
            assert await transport.ask(member, patch(2), monotonic() + 10.0) == APPLIED
        await transport.close()

    asyncio.run(main())


def test_a_connection_is_closed_by_the_loop_that_watches_it() -> None:
    """A call on another loop, in another thread, leaves that loop's connection alone and has its own."""
    transport = AsyncioTransport(wiring("a"))

    async def main(member: Member) -> None:
        assert await transport.ask(member, patch(1), monotonic() + 10.0) == APPLIED
        other = asyncio.to_thread(lambda: asyncio.run(transport.ask(member, patch(2), monotonic() + 10.0)))
        assert await other == APPLIED
        assert await transport.ask(member, patch(3), monotonic() + 10.0) == APPLIED
        assert len(asyncio.get_running_loop()._selector.get_map()) <= 3  # type: ignore[attr-defined]
        await transport.close()

    with serving() as server:
        asyncio.run(main(server.member))
        eventually(lambda: server.server.connections == 0)


def test_hundreds_of_tasks_share_the_places_in_flight() -> None:
    """More calls at once than places and queue together: those that fit are answered, the rest is told so at once."""

    async def main(member: Member) -> list[Reply]:
        transport = AsyncioTransport(wiring("a"))
        replies = await asyncio.gather(*(transport.ask(member, patch(number), monotonic() + 10.0) for number in range(300)))
        await transport.close()
        return replies

    with serving() as server:
        replies = asyncio.run(main(server.member))
    assert replies.count(APPLIED) >= IN_FLIGHT_MAX + 64
    assert set(replies) <= {APPLIED, Unreachable("busy")}
