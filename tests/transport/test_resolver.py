"""Names of peers to addresses."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from clustersession.transport.resolver import Resolver
from tests.transport.kit import eventually


def test_an_address_is_known_at_once() -> None:
    """IPv4 and IPv6 need no look-up."""
    resolver = Resolver()
    assert resolver.addresses("127.0.0.1", 80) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert resolver.addresses("::1", 80) == [(socket.AF_INET6, ("::1", 80, 0, 0))]


def test_a_name_is_looked_up_aside() -> None:
    """The first question starts the look-up, the answer is there soon and is kept."""
    resolver = Resolver()
    assert resolver.addresses("localhost", 80) is None
    eventually(lambda: resolver.addresses("localhost", 80))
    found = resolver.addresses("localhost", 80)
    assert found is not None
    assert (socket.AF_INET, ("127.0.0.1", 80)) in found


def test_a_slow_name_service_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions return at once while a look-up hangs, and only one look-up hangs."""
    release, asked = threading.Event(), []
    real = socket.getaddrinfo

    def slow(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        release.wait(10)
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver()
    assert [resolver.addresses("slow.example", 80) for _ in range(5)] == [None] * 5
    release.set()
    eventually(lambda: resolver.addresses("slow.example", 80))
    assert asked == ["slow.example"]


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 70 + ".example", "no name\0at all"])
def test_a_name_that_does_not_resolve_has_no_addresses(name: str) -> None:
    """Unknown, impossible or not a name at all: an empty answer, no exception."""
    resolver = Resolver()
    assert resolver.addresses(name, 80) is None
    eventually(lambda: resolver.addresses(name, 80) == [])
