"""Where the first peers are, and what becomes of a name that nobody can look up."""

from __future__ import annotations

import asyncio

import pytest

from clustersession.config import Address, Config
from clustersession.node.discovery import RESOLVE_EVERY_S, Seeds, advertised

SECRET = "pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a"
UNNAMEABLE = ("app..internal", f"{'a' * 64}.internal")


@pytest.mark.parametrize("name", UNNAMEABLE)
def test_a_name_that_no_resolver_takes_has_no_address(name: str) -> None:
    """The settings refuse it; settings that an app makes itself must not end the node with a trace either."""
    seeds = Seeds((f"{name}:7", "127.0.0.1:8"))
    assert asyncio.run(seeds.addresses(0.0)) == {("127.0.0.1", 8)}
    assert list(seeds.unresolved) == [f"{name}:7"]


@pytest.mark.parametrize("name", UNNAMEABLE)
def test_the_address_for_the_others_comes_from_the_first_seed_that_can_be_looked_up(name: str) -> None:
    """This host's own on the way there."""
    config = Config(secret=SECRET, node="a", peers=(f"{name}:7", "127.0.0.1:8"))
    assert advertised(config, 9) == Address(host="127.0.0.1", port=9)


def test_what_resolved_once_stays_when_it_does_not_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that is down takes nobody out of the cluster, and is no reason to complain."""
    seeds = Seeds(("localhost:7",))
    found = asyncio.run(seeds.addresses(0.0))
    assert found

    def down(*_: object, **__: object) -> object:
        raise OSError("the name server is down")

    monkeypatch.setattr("socket.getaddrinfo", down)
    assert asyncio.run(seeds.addresses(RESOLVE_EVERY_S)) == found
    assert seeds.unresolved == {}
