"""Users of whom every value is known that was ever acknowledged to them: idle ones, and ones that go on clicking."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Final

from tests.end_to_end.browser import Answer, Browser
from tests.end_to_end.cluster import Host

from .calling import Caller, in_parallel

CART: Final = "apple " * 80  # of half a kilobyte: a session is no toy
AGAIN_S: Final = 5.0


class User:
    """A browser that is logged in, and what its session must hold."""

    def __init__(self, name: str) -> None:
        self.name, self.browser = name, Browser()
        self.items: dict[str, str] = {}
        self.maybe: dict[str, str] = {}  # of writes that were refused: each may have been done or not

    def __repr__(self) -> str:
        return f"<User {self.name}>"

    def set(self, caller: Caller, host: Host, **values: str) -> Answer:
        """Writes, and takes it for written only if the app said so."""
        self.maybe.update(values)
        answer = caller.get(host.app, "/set", self.browser, **values)
        if answer.status == 200:
            self.items.update(values)
            self.maybe.clear()
        return answer

    def missing(self, answer: Answer) -> str:
        """What is wrong with what the app shows; empty if it is all there."""
        if answer.status != 200:
            return f"{self.name}: {answer.status} {answer.body[:100]!r}"
        if answer.items in (self.items, {**self.items, **self.maybe}):
            self.items = answer.items  # seen once, it stays
            return ""
        return f"{self.name}: {answer.items} instead of {self.items}, perhaps with {self.maybe}"


def logged_in(hosts: Sequence[Host], count: int, prefix: str = "u", **values: str) -> list[User]:
    """So many users, each with a session of its own that a host in turn has made."""

    def enter(caller: Caller, number: int) -> User:
        user = User(f"{prefix}{number}")
        answer = user.set(caller, hosts[number % len(hosts)], _user_id=user.name, cart=CART, **values)
        assert answer.status == 200, answer
        return user

    return in_parallel(enter, range(count))


def looked(users: Sequence[User], hosts: Sequence[Host]) -> list[Answer]:
    """What the app shows each of them, on one of `hosts` in turn."""
    places = list(enumerate(users))

    def look(caller: Caller, place: tuple[int, User]) -> Answer:
        number, user = place
        return caller.get(hosts[number % len(hosts)].app, "/look", user.browser)

    return in_parallel(look, places)


def lost(users: Sequence[User], hosts: Sequence[Host]) -> list[str]:
    """Who does not find everything there, on one of `hosts` in turn."""
    return [word for user, answer in zip(users, looked(users, hosts), strict=True) if (word := user.missing(answer))]


def owners(answers: Sequence[Answer]) -> Counter[tuple[str, ...]]:
    """How many of the sessions have which owners, in the order of their names."""
    return Counter(tuple(sorted(filter(None, answer.seen["owners"]))) for answer in answers)


def owned(hosts: Sequence[Host], by: set[str], count: int, prefix: str) -> list[User]:
    """So many users whose sessions have exactly these owners."""
    found: list[User] = []
    while len(found) < count:
        users = logged_in(hosts, count, f"{prefix}{len(found)}.")
        found += [user for user, seen in zip(users, looked(users, hosts), strict=True) if set(seen.seen["owners"]) == by]
    return found[:count]


def at_once(users: Sequence[User], host: Host, path: str, **values: str) -> list[Answer]:
    """The same request of each of them on this host."""
    return in_parallel(lambda caller, user: caller.get(host.app, path, user.browser, **values), users, threads=12)


class Load:
    """Users who read and write without a pause, on whatever host is in turn. What they find wrong is kept as words."""

    def __init__(self, users: Sequence[User], hosts: Sequence[Host], pause_s: float = 0.01) -> None:
        self._users, self._pause_s = users, pause_s
        self._turn = {host.name: host for host in hosts}
        self._busy: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopped = False
        self.errors: list[str] = []
        self.refused: list[str] = []  # 503: to be repeated
        self.logged_out: list[str] = []
        self.done: Counter[str] = Counter()
        self.seconds: list[tuple[float, float]] = []  # when each answer came, and how long it took

    @contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._live, args=(user, number)) for number, user in enumerate(self._users)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped = True
            for thread in threads:
                thread.join()

    def take_out(self, host: Host) -> None:
        """As a balancer does before a host is stopped: nothing new goes there, and what is under way ends."""
        with self._changed:
            del self._turn[host.name]
            assert self._changed.wait_for(lambda: not self._busy[host.name], AGAIN_S)

    def put_back(self, host: Host) -> None:
        with self._changed:
            self._turn[host.name] = host

    def await_more(self, count: int) -> None:
        """Until so many more requests were answered."""
        with self._changed:
            wanted = self.done.total() + count
            assert self._changed.wait_for(lambda: self.done.total() >= wanted, 30.0), "the load stands still"

    def assert_fine(self, at_least: int, *, refused: int = 0) -> None:
        """Nobody was logged out or saw anything wrong, and no more than `refused` requests are to be repeated."""
        assert (self.logged_out[:3], self.errors[:3]) == ([], [])
        assert len(self.refused) <= refused, self.refused
        assert min(self.done["/look"], self.done["/set"]) >= at_least, self.done

    def failed(self, user: User, host: Host, error: Exception) -> None:
        """A request that got no answer."""
        self.errors.append(f"{user.name} on {host.name}: {error!r}")

    def _live(self, user: User, seed: int) -> None:
        chance, number = random.Random(seed), 0
        with Caller() as caller:
            while not self._stopped:
                number += 1
                with self._changed:
                    host = chance.choice(list(self._turn.values()))
                    self._busy[host.name] += 1
                path = ""
                try:
                    path = self._click(caller, user, host, number)
                except (OSError, HTTPException) as error:
                    self.failed(user, host, error)
                finally:
                    with self._changed:
                        self._busy[host.name] -= 1
                        self.done[path] += 1
                        self._changed.notify_all()
                time.sleep(self._pause_s)

    def _click(self, caller: Caller, user: User, host: Host, number: int) -> str:
        if number % 2:
            answer, path = user.set(caller, host, count=str(number)), "/set"
        else:
            answer, path = caller.get(host.app, "/look", user.browser), "/look"
        self.seconds.append((time.monotonic(), answer.seconds))
        if answer.status == 503:
            self.refused.append(f"{user.name} on {host.name} {path}")
        elif answer.status == 200 and "_user_id" not in answer.items:
            self.logged_out.append(f"{user.name} on {host.name}")
        elif wrong := user.missing(answer):
            self.errors.append(f"{host.name}: {wrong}")
        return path
