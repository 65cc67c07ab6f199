"""A node in a process of its own: `python -m tests.transport.peer_process IDENTITY PORT INCARNATION`; prints its port."""

from __future__ import annotations

import asyncio
import sys

from clustersession.config import Address
from clustersession.core.node import Member
from clustersession.transport.server import PeerServer
from tests.transport.kit import answer, wiring


async def serve(identity: str, port: int, incarnation: int) -> None:
    server = PeerServer(answer, wiring(identity, me=lambda: Member(identity, "127.0.0.1", port, incarnation)))
    address = await server.start(Address(host="127.0.0.1", port=port))
    print(address.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
