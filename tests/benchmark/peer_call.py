"""What one call to a peer costs: an authenticated PATCH of 1 KiB on loopback, beside redis-py SET of 1 KiB in the same run.

The peer and the Redis server are processes of their own. Calls are timed in alternating blocks, so that whatever else the
machine does meets all of them. Run: `python -m tests.benchmark.peer_call`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from time import monotonic, perf_counter, sleep

from clustersession.config import Address, Limits, Timeouts
from clustersession.core.calls import Applied, Apply, Call, Reply
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member
from clustersession.core.record import Patch
from clustersession.transport.asynchronous import AsyncioTransport
from clustersession.transport.blocking import BlockingTransport
from clustersession.transport.server import PeerServer
from clustersession.transport.wiring import Wiring

SECRET = "v8Jq2mN5xR7tB1kZ4wP9cL3dF6hG0sYa"
VALUE = b"x" * 1024
CONNECTIONS = 16
BLOCK = 100


class SystemEntropy:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


class Silent:
    def count(self, event: str, by: int = 1) -> None:
        pass


def wiring(identity: str) -> Wiring:
    """A node of the benchmark's cluster."""
    ring = KeyRing.parse(SECRET)
    return Wiring(
        me=lambda: Member(identity, "127.0.0.1", 1, 1),
        ring=lambda: ring,
        cluster="benchmark",
        limits=Limits(),
        timeouts=Timeouts(request_s=5.0, connect_s=5.0),
        clock=monotonic,
        entropy=SystemEntropy(),
        observer=Silent(),
    )


def patch(number: int) -> Apply:
    return Apply(b"k" * 16, 1, Patch(number.to_bytes(8, "big"), {"cart": VALUE}))


def bench_peer_call(rounds: int = 30) -> dict[str, float]:
    """Medians and 99th percentiles in microseconds, and calls per second at 16 connections."""
    with peer_process() as member, redis_process() as port:
        figures = _latencies(member, port, rounds)
        figures.update(_throughputs(member, port))
    return figures


# --- the other ends --------------------------------------------------------------------------------------------------


@contextmanager
def peer_process() -> Iterator[Member]:
    """A node that answers every call at once, in a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmark.peer_call", "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Member("peer", "127.0.0.1", int(process.stdout.readline()), 1)
    finally:
        process.terminate()
        process.communicate(timeout=10)


async def _serve() -> None:
    def handler(call: Call, peer: str) -> Reply:
        return Applied(1, 2, ("peer", "caller"))

    server = PeerServer(handler, wiring("peer"))
    address = await server.start(Address(host="127.0.0.1", port=0))
    print(address.port, flush=True)
    await asyncio.Event().wait()


@contextmanager
def redis_process() -> Iterator[int]:
    """A Redis server without persistence on a free port; yields the port. Raises `FileNotFoundError` where none is installed."""
    command = shutil.which("redis-server")
    if command is None:
        raise FileNotFoundError("redis-server is needed as the comparator; install the package redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        process = subprocess.Popen([command, *settings], stdout=subprocess.DEVNULL)
        try:
            _await_port(port)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=10)


def _await_port(port: int) -> None:
    deadline = monotonic() + 10.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except ConnectionRefusedError:
            if monotonic() > deadline:
                raise
            sleep(0.02)


# --- one call at a time ------------------------------------------------------------------------------------------------


def _latencies(member: Member, redis_port: int, rounds: int) -> dict[str, float]:
    import redis

    blocking, on_loop = BlockingTransport(wiring("caller")), AsyncioTransport(wiring("caller"))
    client = redis.Redis("127.0.0.1", redis_port)
    samples: dict[str, list[float]] = {"peer_call_blocking": [], "peer_call_asyncio": [], "redis_py_set": []}
    with asyncio.Runner() as runner:

        def ask_on_loop() -> list[float]:
            return runner.run(_timed_on_loop(on_loop, member))

        for turn in range(rounds + 1):
            blocks = {
                "peer_call_blocking": _timed(lambda number: blocking.ask(member, patch(number), monotonic() + 5.0)),
                "redis_py_set": _timed(lambda number: client.set(f"key{number}", VALUE)),
                "peer_call_asyncio": ask_on_loop(),
            }
            for name, times in blocks.items() if turn else ():  # the first round warms up
                samples[name] += times
        runner.run(on_loop.close())
    blocking.close()
    client.close()
    figures = {f"{name}_p50_us": median(times) * 1e6 for name, times in samples.items()}
    return figures | {f"{name}_p99_us": quantiles(times, n=100)[98] * 1e6 for name, times in samples.items()}


def _timed(call: Callable[[int], object]) -> list[float]:
    times = []
    for number in range(BLOCK):
        began = perf_counter()
        reply = call(number)
        times.append(perf_counter() - began)
        assert isinstance(reply, Applied) or reply is True, reply
    return times


async def _timed_on_loop(transport: AsyncioTransport, member: Member) -> list[float]:
    times = []
    for number in range(BLOCK):
        began = perf_counter()
        reply = await transport.ask(member, patch(number), monotonic() + 5.0)
        times.append(perf_counter() - began)
        assert isinstance(reply, Applied), reply
    return times


# --- many at a time ------------------------------------------------------------------------------------------------------


def _throughputs(member: Member, redis_port: int, calls: int = 200) -> dict[str, float]:
    import redis

    clients = [redis.Redis("127.0.0.1", redis_port) for _ in range(CONNECTIONS)]
    blocking = BlockingTransport(wiring("caller"))
    figures = {
        "peer_calls_per_s_16_tasks": asyncio.run(_rate_on_loop(member, calls)),
        "peer_calls_per_s_16_threads": _rate(lambda worker: blocking.ask(member, patch(worker), monotonic() + 5.0), calls),
        "redis_py_sets_per_s_16_threads": _rate(lambda worker: clients[worker].set(f"key{worker}", VALUE), calls),
        "peer_calls_per_s_16_connections_2_processes": _rate_of_processes(member, calls),
    }
    blocking.close()
    for client in clients:
        client.close()
    return figures


async def _rate_on_loop(member: Member, calls: int) -> float:
    transport = AsyncioTransport(wiring("caller"))

    async def worker() -> None:
        for number in range(calls):
            reply = await transport.ask(member, patch(number), monotonic() + 5.0)
            assert isinstance(reply, Applied), reply

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))  # warms up
    began = perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    took = perf_counter() - began
    await transport.close()
    return CONNECTIONS * calls / took


def _rate(call: Callable[[int], object], calls: int) -> float:
    def worker(number: int) -> None:
        for _ in range(calls):
            reply = call(number)
            assert isinstance(reply, Applied) or reply is True, reply

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(CONNECTIONS)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CONNECTIONS * calls / (perf_counter() - began)


def _rate_of_processes(member: Member, calls: int) -> float:
    """The server's own limit: two processes with eight connections each keep it busy."""
    command = [sys.executable, "-m", "tests.benchmark.peer_call", "load", str(member.port), str(CONNECTIONS // 2), str(calls)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    spans = [tuple(map(float, output.split())) for output in outputs]
    return CONNECTIONS * calls / (max(span[1] for span in spans) - min(span[0] for span in spans))


async def _load(port: int, connections: int, calls: int) -> None:
    transport, member = AsyncioTransport(wiring("caller")), Member("peer", "127.0.0.1", port, 1)

    async def worker() -> None:
        for number in range(calls):
            await transport.ask(member, patch(number), monotonic() + 5.0)

    began = monotonic()
    await asyncio.gather(*(worker() for _ in range(connections)))
    print(began, monotonic())
    await transport.close()


def main(arguments: list[str]) -> None:
    match arguments:
        case ["serve"]:
            asyncio.run(_serve())
        case ["load", port, connections, calls]:
            asyncio.run(_load(int(port), int(connections), int(calls)))
        case _:
            print(json.dumps({name: round(value, 1) for name, value in bench_peer_call().items()}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
