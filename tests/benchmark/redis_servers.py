"""The Redis servers of the comparison: one alone, and one with a replica, each a process on a free port."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
import redis.asyncio

from .cluster import free_ports, until

WAIT_MS = 1000


class RedisMissing(Exception):
    """There is no redis-server to compare with."""

    def __init__(self) -> None:
        super().__init__("redis-server is not installed, and without it there is nothing to compare with: install redis-server")


class Servers(NamedTuple):
    """Ports on loopback: a server alone, and one whose writes a replica receives."""

    alone: int
    replicated: int


@contextmanager
def running() -> Iterator[Servers]:
    """Nothing is written to disk. Raises `RedisMissing`."""
    if shutil.which("redis-server") is None:
        raise RedisMissing
    with ExitStack() as stack:
        alone, primary, replica = free_ports(3)
        for port, more in ((alone, ()), (primary, ()), (replica, ("--replicaof", f"127.0.0.1 {primary}"))):
            stack.enter_context(_server(port, more))
        stack.enter_context(_client(primary)).set("probe", b"1")
        until(lambda: _has_replica(primary), "the replica did not connect to its Redis")
        yield Servers(alone, primary)


@contextmanager
def _server(port: int, more: tuple[str, ...]) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="clustersession-bench-redis-") as directory:
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        with (Path(directory) / "log").open("wb") as log:
            command = ["redis-server", *settings, "--repl-diskless-sync-delay", "0", *more]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log)
        try:
            until(lambda: _answers(port), f"redis-server did not start on port {port}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=10)


@contextmanager
def _client(port: int) -> Iterator[Any]:
    client = redis.Redis("127.0.0.1", port)
    try:
        yield client
    finally:
        client.close()


def _answers(port: int) -> bool:
    with _client(port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _has_replica(port: int) -> bool:
    with _client(port) as client:
        return bool(client.wait(1, WAIT_MS) >= 1)


# --- the same promise as ours: two copies before the answer ----------------------------------------------------------


class TooFewCopies(Exception):
    """The replica did not take a write in time."""


class TwoCopies(redis.Redis):
    """Every `set` waits until the replica has it too. Both commands go out at once: one way there and back, not two."""

    def set(self, *args: Any, **options: Any) -> Any:
        with self.pipeline(transaction=False) as pipe:
            pipe.set(*args, **options)
            pipe.wait(1, WAIT_MS)
            return _of_both(pipe.execute())


class AsyncTwoCopies(redis.asyncio.Redis):
    """The same from asyncio code."""

    async def set(self, *args: Any, **options: Any) -> Any:
        async with self.pipeline(transaction=False) as pipe:
            pipe.set(*args, **options)
            pipe.wait(1, WAIT_MS)
            return _of_both(await pipe.execute())


def _of_both(replies: list[Any]) -> Any:
    done, copies = replies
    if copies < 1:
        raise TooFewCopies
    return done
