"""What the generators of `operations` and `upkeep` yield, and what they are sent back. A driver carries them out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from .calls import Call, Reply

T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True):
    """One call to one node (this host included). Sent back: its `Reply`."""

    node: str
    call: Call


class AskAll(NamedTuple):
    """Several calls at once. Sent back: their replies in order, as a tuple."""

    asks: tuple[Ask, ...]


class Hedge(NamedTuple):
    """Ask the first; ask the next when the one before failed, was not good enough or is late. Sent back: a tuple of
    the replies in order, None for those not asked or not awaited any more."""

    asks: tuple[Ask, ...]
    good: Callable[[Reply], bool]


class Tell(msgspec.Struct, frozen=True):
    """Fire and forget. Sent back at once: None."""

    node: str
    call: Call


class Wait(NamedTuple):
    """Sleep. Sent back: None."""

    seconds: float


class Pace(NamedTuple):
    """How much of its time a node puts into what is not urgent: requests get the rest."""

    clock: Callable[[], float]
    share: Callable[[], float]  # above 0, at most 1

    def rest(self, began: float) -> Wait:
        """After some of it that began then."""
        return Wait((self.clock() - began) * (1.0 / self.share() - 1.0))


class Outside(NamedTuple):
    """Work of another system, which may block. Sent back: its result; it raises nothing."""

    work: Callable[[], Any]


Effect: TypeAlias = Ask | AskAll | Hedge | Tell | Wait | Outside
Operation: TypeAlias = Generator[Effect, Any, T]
"""A multi-step rule that ends in a `T`. Run by `runtime.sync_driver`, `runtime.async_driver` or the simulation."""
