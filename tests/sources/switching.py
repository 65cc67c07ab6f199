"""Users of a site that is switched over: logged in by the library of before, served by ours on three hosts, and handed back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from markupsafe import Markup

from clustersession.runtime.adoption import Adoption
from clustersession.sources import Source
from clustersession.testing.in_process import InProcessCluster
from tests.sources.libraries import Library
from tests.sources.values import typed

OURS = "cs"
HOSTS = "abc"
WHOLE_S = 1.1  # many a store counts in whole seconds


def plain(number: int) -> dict[str, Any]:
    """What JSON holds."""
    return {
        "_user_id": f"u{number}",
        "_auth_user_id": f"u{number}",
        "name": f"Zoë {number}",
        "cart": ["apple", number, 2.5, None, True],
        "sizes": {"one": 1, "one and none": 1.0, "sure": True, "big": 2**60, "none": []},
        "long": "long " * 40,
    }


def packed(number: int) -> dict[str, Any]:
    """What MessagePack holds too."""
    return {**plain(number), "raw": b"\x00\xff", "at": datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "pair": (1, 2)}


def tagged(number: int) -> dict[str, Any]:
    """What Flask's JSON holds."""
    more = {"id": UUID(int=number), "flash": [("info", Markup("<b>hi</b>"))], "looks so": {" t": [1]}}
    return {**packed(number), **more}


def pickled(number: int) -> dict[str, Any]:
    """What a pickle holds that is taken over."""
    more = {"seen": {1, 2}, "paid": Decimal("2.50"), "for": timedelta(hours=2), "day": datetime(2026, 5, 4).date()}  # noqa: DTZ001
    return {**tagged(number), **more}


class Case(NamedTuple):
    """A library, the source that takes over its sessions, and what these hold. `expires` is when the library ends the session
    of a cookie (Unix s), `lifetime_s` its own lifetime."""

    theirs: Library
    source: Source
    items: Callable[[int], dict[str, Any]]
    lifetime_s: float
    expires: Callable[[str], float]


def expires_of(source: Source) -> Callable[[str], float]:
    """As the source reads it, which the tests of each source compare with the library."""

    def expires(cookie: str) -> float:
        legacy = source.read(cookie, time.time())
        assert legacy is not None
        assert legacy.expires is not None
        return legacy.expires

    return expires


class Site:
    """The cluster, all of it in one mode, and the browsers of the users."""

    def __init__(self, case: Case, users: int) -> None:
        self.case = case
        self.cluster = InProcessCluster()
        for node in self.cluster:
            node.engine.adoption = Adoption(case.source)
        self.old_name = case.source.cookie_name
        self.jars = [{self.old_name: self._logged_in(number)} for number in range(users)]
        self.held = [case.theirs.load(self.old_cookie(number)) for number in range(users)]

    def _logged_in(self, number: int) -> str:
        cookie = self.case.theirs.save(None, self.case.items(number))
        assert cookie is not None
        return cookie

    def switch(self, mode: str) -> None:
        for node in self.cluster:
            node.engine.config = replace(node.engine.config, mode=mode)

    def old_cookie(self, number: int) -> str:
        return self.jars[number][self.old_name]

    def request(self, host: str, number: int, **changes: Any) -> dict[str, Any]:
        """What the app sees, before it sets `changes`; the browser keeps the cookies of the response."""
        jar, engine = self.jars[number], self.cluster[host].engine
        field = "; ".join(f"{name}={value}" for name, value in jar.items())
        visit = engine.visit((field,), blocking=True)
        seen = dict(visit.session)
        visit.session.update(changes)
        if visit.pending():
            engine.blocking.run(visit.carry_out(), visit.budget)
        for text in visit.headers().cookies:
            name, _, value = text.partition(";")[0].partition("=")
            jar[name] = value
        visit.close()
        return seen


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """With the same types, at any depth."""
    return bool(typed(one) == typed(other))
