"""Calls beyond single sessions, and their replies: what there is of a user, and how a node is. A part of `calls`."""

from __future__ import annotations

from .bars import Bar
from .facts import NodeFacts
from .message import Message
from .record import Key, Record


class Forbid(Message, frozen=True):
    """End what you hold of a user's sessions, and whatever of them you are given later. Answered with `Forbidden`."""

    bar: Bar


class Bars(Message, frozen=True):
    """Which bars do you know, of those in buckets that differ from mine, by my `sums`, from bucket `first` on? Answered with
    `Known`."""

    sums: bytes = b""
    first: int = 0


class OfUser(Message, frozen=True):
    """Which live sessions do you hold of the user with one of these labels? Answered with `Theirs`."""

    labels: tuple[bytes, ...]


class Forget(Message, frozen=True):
    """Drop this canary, its end too. What is anybody's session stays."""

    key: Key


class Examine(Message, frozen=True):
    """What is there to say of you? `tour`: send canaries through all that you can reach, unless that is under way already."""

    tour: bool = False


class Forbidden(Message, frozen=True):
    """I keep the bar; `ended` are the sessions that it has ended here."""

    ended: tuple[Key, ...] = ()


class Known(Message, frozen=True):
    """These bars; ask again from bucket `following`, if there are more."""

    bars: tuple[Bar, ...]
    following: int | None = None


class Theirs(Message, frozen=True):
    """What I hold of the user's sessions, without their values."""

    sessions: tuple[tuple[Key, Record], ...]


class Examined(Message, frozen=True):
    """This is how I am."""

    facts: NodeFacts
