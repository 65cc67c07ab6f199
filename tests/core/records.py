"""Records, views and situations for the tests of the rules: every helper gives a plain value, with only what matters said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clustersession.core.node import Member, State, View
from clustersession.core.record import Ending, Item, Lifetime, Owners, Patch, Record, Stamp
from clustersession.core.replica import Situation

KEY = b"k" * 16
NOW = 1000.0
NODES = ("a", "b", "c", "d")


def item(value: bytes | None, epoch: int = 1, version: int = 1, master: str = "a") -> Item:
    return Stamp(epoch, version, master), value


def record(epoch: int = 1, version: int = 1, owners: Owners = ("a", "b"), **more: Any) -> Record:
    """An accepted live copy, used at `NOW`, unless something else is said."""
    fields: dict[str, Any] = {"items": {"x": item(b"1", epoch, 1, owners[0])}, "base": epoch, "created": NOW, "last_seen": NOW}
    return Record(epoch, version, owners, **(fields | more))


def pending(epoch: int = 2, version: int = 1, owners: Owners = ("a", "b"), **more: Any) -> Record:
    """A change of owners that the new backup has not accepted."""
    return record(epoch, version, owners, **({"accepted": False, "base": epoch - 1} | more))


def pointer(epoch: int = 2, owners: Owners = ("b", "c"), version: int = 1, **more: Any) -> Record:
    return record(epoch, version, owners, **({"items": {}, "pointer": True} | more))


def tombstone(epoch: int = 1, owners: Owners = ("a", "b"), version: int = 1, at: float = NOW, **more: Any) -> Record:
    return record(epoch, version, owners, **({"items": {}, "ended": Ending("logout", at)} | more))


def patch(number: int = 1, lifetime: Lifetime | None = None, **changes: bytes | None) -> Patch:
    return Patch(number.to_bytes(8), dict(changes) or {"x": b"new"}, lifetime)


def member(identity: str, state: State = State.ALIVE, **more: Any) -> Member:
    fields: dict[str, Any] = {"host": identity, "port": 10060, "incarnation": 1, "state": state}
    return Member(identity, **(fields | more))


def view(*members: Member | str, me: str = "a", converged: bool = True, zones: dict[str, str] | None = None) -> View:
    """The members by name, alive unless a whole member is given."""
    named = [each if isinstance(each, Member) else member(each, zone=(zones or {}).get(each, "")) for each in members or NODES]
    return View(me, named, converged=converged)


def situation(
    me: str = "a", now: float = NOW, *, leases: Iterable[str] = NODES, synced: bool = True, born: float = 0.0, **more: Any
) -> Situation:
    until = now + 1.0
    fields: dict[str, Any] = {"record_bytes_max": 1000}
    return Situation(me, now, until if synced else now, dict.fromkeys(leases, until), lambda: born, **(fields | more))
