"""Users on three hosts of which one is shot at any moment, and logouts of which each is tried out at once on another host."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Final, NamedTuple

from tests.end_to_end.browser import Answer
from tests.end_to_end.cluster import Host
from tests.faults.calling import Caller, in_parallel
from tests.faults.crowd import CART, Load, User

LEAVES_EVERY_S: Final = 0.5  # what is ended is kept for a day, and moves when a host is lost: no site is only logouts
BROKEN: Final = (OSError, HTTPException)  # what a request to a host that is killed meanwhile ends with


class Target(User):
    """Each write that got no answer, or a 503, may have been done or not, until a later one is acked or it is seen."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.open: list[dict[str, str]] = []
        self.acked = 0

    def set(self, caller: Caller, host: Host, **values: str) -> Answer:
        self.open.append(values)
        answer = caller.get(host.app, "/set", self.browser, **values)
        if answer.status == 200:
            self.items.update(values)
            self.open.clear()
            self.acked += 1
        return answer

    def missing(self, answer: Answer) -> str:
        if answer.status != 200:
            return f"{self.name}: {answer.status} {answer.body[:100]!r}"
        for place, values in enumerate(self.open):
            if answer.items == {**self.items, **values}:
                self.items = answer.items  # seen once, it stays, and what was before it is over
                del self.open[: place + 1]
                return ""
        if answer.items == self.items:
            return ""
        return f"{self.name}: {answer.items} instead of {self.items}, perhaps with one of {self.open}"


def targets(hosts: Sequence[Host], count: int) -> list[Target]:
    def enter(caller: Caller, number: int) -> Target:
        user = Target(f"active{number}")
        answer = user.set(caller, hosts[number % len(hosts)], _user_id=user.name, cart=CART)
        assert answer.status == 200, answer
        return user

    return in_parallel(enter, range(count))


class UnderFire(Load):
    """Load that is not told of a kill: what is under way on that host breaks, and only then is it out of the turn."""

    def __init__(self, users: Sequence[Target], hosts: Sequence[Host], pause_s: float = 0.02) -> None:
        super().__init__(users, hosts, pause_s)
        self.broken: list[str] = []
        self._shot: set[str] = set()

    def shoot(self, host: Host) -> list[int]:
        """kill -9 of all of it; who it was."""
        self._shot.add(host.name)
        killed = host.kill()
        with self._changed:
            del self._turn[host.name]
        return killed

    def put_back(self, host: Host) -> None:
        with self._changed:  # what was under way there has ended
            assert self._changed.wait_for(lambda: not self._busy[host.name], 30.0)
        self._shot.discard(host.name)
        super().put_back(host)

    def up(self) -> list[Host]:
        with self._changed:
            return [host for host in self._turn.values() if host.name not in self._shot]

    def failed(self, user: User, host: Host, error: Exception) -> None:
        if host.name in self._shot:
            self.broken.append(f"{user.name} on {host.name}: {error!r}")
        else:
            super().failed(user, host, error)


class Ended(NamedTuple):
    """A session that was acked to be ended, and the cookies that it had."""

    name: str
    cookies: list[str]


class Leavers:
    """Users who log in on one host, log out on another one, and whose cookies are then tried on a third."""

    def __init__(self, load: UnderFire, threads: int = 2) -> None:
        self._load, self._threads, self._over = load, threads, threading.Event()
        self.ended: list[Ended] = []
        self.undone: list[str] = []
        self.unsure = 0  # without an answer, or refused

    @contextmanager
    def running(self) -> Iterator[Leavers]:
        threads = [threading.Thread(target=self._leave_for_ever, args=(number,)) for number in range(self._threads)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _leave_for_ever(self, seed: int) -> None:
        chance, number = random.Random(seed), 0
        with Caller() as caller:
            while not self._over.wait(LEAVES_EVERY_S):
                number += 1
                try:
                    self._leave(caller, chance, f"leaver{seed}.{number}")
                except BROKEN:
                    self.unsure += 1

    def _leave(self, caller: Caller, chance: random.Random, name: str) -> None:
        user = Target(name)
        if user.set(caller, chance.choice(self._load.up()), _user_id=name, cart=CART).status != 200:
            self.unsure += 1
            return
        stolen = user.browser.cookies
        if caller.get(chance.choice(self._load.up()).app, "/end", user.browser).status != 200:
            self.unsure += 1
            return
        left = Ended(name, stolen)
        self.ended.append(left)
        self._try(caller, chance.choice(self._load.up()), left)

    def _try(self, caller: Caller, host: Host, left: Ended) -> bool:
        """Whether it is known to be dead there; a 503 says nothing."""
        answer = caller.look(host.app, "/look", left.cookies)
        if answer.status == 200 and answer.items:
            self.undone.append(f"{left.name} on {host.name}: {answer.items}")
        return answer.status == 200

    def try_all(self, host: Host, ended: Sequence[Ended]) -> int:
        """Every one of them on this host; how many gave an answer."""
        return sum(in_parallel(lambda caller, left: self._try(caller, host, left), list(ended)))


def wait_at_random(chance: random.Random, most_s: float) -> None:
    """A kill must not always meet the same moment of what nodes do in turn."""
    time.sleep(chance.uniform(0.0, most_s))
