"""Links between hosts that can be spoilt: a TCP proxy before each node, which delays, stalls, swallows or resets, and counts.

All of a cluster's run in one thread. What its peers send a node goes *in*, what it answers goes *out*; what it asks others
goes through theirs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Final, Literal, TypeAlias

from tests.end_to_end.cluster import Cluster, free_port
from tests.end_to_end.servers import Address

Way: TypeAlias = Literal["in", "out"]
BOTH: Final[frozenset[Way]] = frozenset({"in", "out"})
CHUNK: Final = 64 * 1024
LOOK_S: Final = 0.01
_LINGER_NOT: Final = struct.pack("ii", 1, 0)  # a close is an RST then, not a FIN


class Link:
    """What lies between one node and all who call it. A fault lasts from when its attribute is set until `heal`."""

    def __init__(self, listen: Address, target: Address) -> None:
        self.listen, self.target = listen, target
        self.delay_s = 0.0  # each way
        self.stalled: frozenset[Way] = frozenset()  # held back, and delivered when it goes on
        self.swallowed: frozenset[Way] = frozenset()  # never delivered; the connection ends when it goes on
        self.resetting = False
        self.passed: Counter[Way] = Counter()  # bytes
        self.hit: Counter[str] = Counter()  # what met a fault: chunks of bytes, for resets connections
        self.loop: asyncio.AbstractEventLoop | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        return f"<Link to {self.target}: {dict(self.passed)} bytes passed, {dict(self.hit)} hit>"

    def reset(self) -> None:
        """Reset what is open, and from now on whatever is opened."""
        assert self.loop is not None
        self.resetting = True
        self.loop.call_soon_threadsafe(self._reset_open)

    def heal(self) -> None:
        self.delay_s, self.resetting = 0.0, False
        self.stalled = self.swallowed = frozenset()

    async def listen_for_ever(self, listening: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                accepted, _ = await self.loop.sock_accept(listening)
                group.create_task(self._carry(accepted))

    async def _carry(self, accepted: socket.socket) -> None:
        """One connection, until either side or a fault ends it."""
        ends: list[asyncio.StreamWriter] = []
        try:
            asked, asker = await asyncio.open_connection(sock=accepted)
            ends.append(asker)
            answers, node = await asyncio.open_connection(*self.target)
            ends.append(node)
            self._open.update(ends)
            if self.resetting:
                self._reset_open()
            pumps = [asyncio.create_task(self._pump(asked, node, "in")), asyncio.create_task(self._pump(answers, asker, "out"))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # refused, as the node itself refuses
        finally:
            self._open.difference_update(ends)
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay_s:
                    self.hit["delay"] += 1
                    await asyncio.sleep(self.delay_s)
                if way in self.swallowed:
                    self.hit["swallow"] += 1
                    await self._while(way, "swallowed")
                    return
                if way in self.stalled:
                    self.hit["stall"] += 1
                    await self._while(way, "stalled")
                self.passed[way] += len(data)
                writer.write(data)
                await writer.drain()

    async def _while(self, way: Way, fault: str) -> None:
        while way in getattr(self, fault):
            await asyncio.sleep(LOOK_S)

    def _reset_open(self) -> None:
        for end in self._open:
            sock: socket.socket = end.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            end.transport.abort()
        self.hit["reset"] += len(self._open) // 2


@contextmanager
def links(cluster: Cluster) -> Iterator[dict[str, Link]]:
    """Puts one before every node of a cluster that is not started yet; by name of the host."""
    made = {host.name: Link((cluster.address, free_port(cluster.address)), host.peer) for host in cluster}
    seeds = ",".join(f"{link.listen[0]}:{link.listen[1]}" for link in made.values())
    for host in cluster:
        host.environ["CLUSTERSESSION_PEERS"] = seeds
        host.environ["CLUSTERSESSION_ADVERTISE"] = "{}:{}".format(*made[host.name].listen)
    with _carried(list(made.values())):
        yield made


@contextmanager
def _carried(made: Sequence[Link]) -> Iterator[None]:
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_carry_all(made, started)), name="links")
    thread.start()
    loop, over = started.result(10.0)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


async def _carry_all(made: Sequence[Link], started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    over = asyncio.Event()
    listening = [socket.create_server(link.listen, backlog=128) for link in made]
    for each in listening:
        each.setblocking(False)
    carrying = [asyncio.create_task(link.listen_for_ever(each)) for link, each in zip(made, listening, strict=True)]
    started.set_result((asyncio.get_running_loop(), over))
    await over.wait()
    for task in carrying:
        task.cancel()
    await asyncio.gather(*carrying, return_exceptions=True)
    for each in listening:
        each.close()
