"""Django's settings come before anything else of Django; and time as the libraries see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pymemcache
import pytest
import redis

from tests.integrations import django_project
from tests.sources import servers

__all__ = ["django_project"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock of this process."""

    def set_clock(now: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now)

    return set_clock


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    with servers.redis_server() as port:
        yield port


@pytest.fixture(scope="session")
def memcached_port() -> Iterator[int]:
    with servers.memcached_server() as port:
        yield port


@pytest.fixture
def redis_client(redis_port: int) -> Iterator[redis.Redis]:
    with redis.Redis("127.0.0.1", redis_port) as client:
        client.flushall()
        yield client


@pytest.fixture
def memcached_client(memcached_port: int) -> Iterator[pymemcache.Client]:
    client = pymemcache.Client(("127.0.0.1", memcached_port), **servers.MEMCACHED_OPTIONS)
    client.flush_all()
    yield client
    client.close()
