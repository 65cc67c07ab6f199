"""A browser's cookies: one that has run out is not sent any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf

REMOVED = ("", '""', "''")


class Jar:
    """By `now`, in seconds. `Expires` counts from the real time, by which the frameworks set it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: dict[str, tuple[str, float]] = {}

    def take(self, set_cookies: Iterable[str]) -> None:
        """Those of a response."""
        for text in set_cookies:
            pair, *attributes = text.strip().split("; ")
            name, _, value = pair.partition("=")
            self._kept[name] = value, self._now() + (0.0 if value in REMOVED else _life_s(attributes))

    @property
    def values(self) -> dict[str, str]:
        """What would be sent now."""
        return {name: value for name, (value, end) in self._kept.items() if end > self._now()}

    @property
    def field(self) -> str:
        """The Cookie field of a request."""
        return "; ".join(f"{name}={value}" for name, value in self.values.items())


def _life_s(attributes: Iterable[str]) -> float:
    """Max-Age counts before Expires (RFC 6265 5.3); without either it lives as long as the browser."""
    said = {name.lower(): value for name, _, value in (each.partition("=") for each in attributes)}
    if "max-age" in said:
        return float(said["max-age"])
    return (parsedate_to_datetime(said["expires"]) - datetime.now(UTC)).total_seconds() if "expires" in said else inf
