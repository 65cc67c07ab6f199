"""What a worker process of a host does in these scenarios: `python -m tests.chaos.worker fill|check|visit|click ...`.

It is started in the environment of that host. What it finds it writes to a file as JSON; it says nothing about credentials
but the cookies of its own users.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import string
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any, Final, NamedTuple

import psutil

from clustersession.errors import ClusterSessionError, SessionUnavailable
from clustersession.middleware.assembly import EngineSource
from clustersession.runtime.engine import Engine

AGAIN_S: Final = 0.05
PATIENCE_S: Final = 75.0  # a session may be out of reach for a minute before the cluster says what became of it
WRITES_EVERY: Final = 2  # so many requests
WARMED_UP: Final = 3000  # requests, until every cache is full
ALPHABET: Final = string.ascii_letters + string.digits


def values_of(number: int, size: int) -> dict[str, Any]:
    """What the session of user `number` holds, so that whoever reads it can tell."""
    return {"_user_id": f"u{number}", "data": random.Random(number).randbytes(size // 2).hex()}


class Made(NamedTuple):
    cookie: str
    owners: list[str]


def made(engine: Engine, number: int, size: int) -> Made:
    """A session, as a request of the app makes it. A busy cluster may refuse one: it is asked again."""
    deadline = monotonic() + PATIENCE_S
    while True:
        visit = engine.visit((), blocking=True)
        visit.session.update(values_of(number, size))
        try:
            engine.blocking.run(visit.save(), visit.budget)
            break
        except SessionUnavailable:
            visit.close()
            if monotonic() > deadline:
                raise
            sleep(AGAIN_S)
    [issued] = visit.headers().cookies
    placement = visit.session.placement
    visit.close()
    assert placement is not None
    return Made(issued.partition(";")[0], [owner for owner in (placement.master, placement.backup) if owner is not None])


def fill(engine: Engine, first: int, count: int, size: int, out: Path) -> None:
    """So many idle sessions; one line of `out` for each: user, bytes and cookie."""
    with out.open("w") as file:
        for number in range(first, first + count):
            file.write(f"{number} {size} {made(engine, number, size).cookie}\n")


# --- reading them ------------------------------------------------------------------------------------------------------


def check(engine: Engine, cookies: Sequence[str], out: Path) -> None:
    """Reads every session once with its old cookie, whatever cookie that brings; what is wrong, and how long each took."""
    wrong, seconds, refused = list[str](), list[float](), 0
    for line in cookies:
        number, size, cookie = line.split()
        began = perf_counter()
        deadline = monotonic() + PATIENCE_S
        while True:
            try:
                found = _read(engine, cookie)
                break
            except SessionUnavailable as error:
                refused += 1
                found = {"unavailable": str(error)}
                if monotonic() > deadline:
                    break
                sleep(AGAIN_S)
        seconds.append(perf_counter() - began)
        if found != values_of(int(number), int(size)):
            wrong.append(f"u{number}: {str(found)[:200]}")
    out.write_text(json.dumps({"wrong": wrong, "refused": refused, "seconds": seconds}))


def _read(engine: Engine, cookie: str) -> dict[str, Any]:
    """What a request finds, and all that the middleware does for one that only reads."""
    visit = engine.visit((cookie,), blocking=True)
    try:
        found = dict(visit.session)
        if visit.pending():
            engine.blocking.run(visit.carry_out(), visit.budget)
        visit.headers()
    finally:
        visit.close()
    return found


# --- visitors ----------------------------------------------------------------------------------------------------------


def visit(engine: Engine, count: int, out: Path) -> None:
    """So many requests that look at their session: every third without a cookie, with somebody else's, with a forged ID."""
    chance, genuine = random.Random(1), made(engine, 0, 100).cookie
    name, _, text = genuine.partition("=")

    def cookie(number: int) -> str | None:
        at = chance.randrange(len(text))
        forged = f"{text[:at]}{chance.choice(ALPHABET.replace(text[at], ''))}{text[at + 1 :]}"
        return (None, f"theme=dark; id={number}", f"{name}={forged}")[number % 3]

    def some(first: int, count: int) -> None:
        for number in range(first, first + count):
            brought = cookie(number)
            request = engine.visit(() if brought is None else (brought,), blocking=True)
            assert not dict(request.session)
            assert not request.pending()
            assert not request.headers().cookies
            request.close()

    process = psutil.Process()
    some(0, WARMED_UP)
    began, sockets = process.memory_info().rss, len(process.net_connections())
    some(WARMED_UP, count)
    counts = {"rss": process.memory_info().rss - began, "sockets": len(process.net_connections()) - sockets}
    out.write_text(json.dumps(counts))


# --- requests of users who click ---------------------------------------------------------------------------------------


class Clicks:
    """Users of one kind, and how their requests fared: when each was answered, how long it took, and whether it was right."""

    def __init__(self, engine: Engine, users: Sequence[Made], per_second: float, seed: int) -> None:
        self._engine, self._per_second, self._chance = engine, per_second, random.Random(seed)
        self._cookies = [user.cookie for user in users]
        self._owners = [user.owners for user in users]
        self._counts: list[set[int | None]] = [{None} for _ in users]  # what each may hold; more than one after a refusal
        self.seen: list[tuple[float, float, str, list[str]]] = []

    def run(self, over: threading.Event) -> None:
        number, next_at = 0, monotonic()
        while not over.wait(max(0.0, next_at - monotonic())):
            next_at = max(next_at + 1 / self._per_second, monotonic() - 0.1)
            number += 1
            place = self._chance.randrange(len(self._cookies))
            began = perf_counter()
            outcome = self._request(place, number)
            self.seen.append((monotonic(), perf_counter() - began, outcome, self._owners[place]))

    def _request(self, place: int, number: int) -> str:
        """A read, every other time with a write; a word for what is wrong, or nothing."""
        visit = self._engine.visit((self._cookies[place],), blocking=True)
        try:
            found = visit.session.get("count")
            if found not in self._counts[place] or "_user_id" not in visit.session:
                return f"lost: {found} instead of {self._counts[place]}"
            self._counts[place] = {found}
            if number % WRITES_EVERY:
                self._counts[place].add(number)
                visit.session["count"] = number
            if visit.pending():
                self._engine.blocking.run(visit.carry_out(), visit.budget)
            if number % WRITES_EVERY:
                self._counts[place] = {number}
            for issued in visit.headers().cookies:
                self._cookies[place] = issued.partition(";")[0]
        except ClusterSessionError as error:
            return f"refused: {error}"
        finally:
            visit.close()
        return ""


def click(engine: Engine, kinds: Sequence[str], out: Path) -> None:
    """Until SIGTERM. `kinds`: of each `number:per second:owner,owner`, without owners any; each has a thread of its own."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    clicks = [_clicks(engine, kind, seed) for seed, kind in enumerate(kinds)]
    threads = [threading.Thread(target=each.run, args=(over,)) for each in clicks]
    for thread in threads:
        thread.start()
    out.with_suffix(".ready").touch()
    for thread in threads:
        thread.join()
    out.write_text(json.dumps([each.seen for each in clicks]))


def _clicks(engine: Engine, kind: str, seed: int) -> Clicks:
    count, per_second, names = kind.split(":")
    wanted = {name for name in names.split(",") if name}
    users: list[Made] = []
    number = 10**9 + seed * 10**6
    while len(users) < int(count):
        number += 1
        user = made(engine, number, 2000)
        if not wanted or set(user.owners) == wanted:
            users.append(user)
    return Clicks(engine, users, float(per_second), seed)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.worker", description=__doc__)
    parser.add_argument("what", choices=("fill", "check", "visit", "click"))
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.getLogger("clustersession").setLevel(logging.CRITICAL)
    engine = EngineSource(framework="chaos")()
    match options.what:
        case "fill":
            first, count, size = map(int, options.arguments)
            fill(engine, first, count, size, options.out)
        case "check":
            path, turn, of = options.arguments
            check(engine, Path(path).read_text().splitlines()[int(turn) :: int(of)], options.out)
        case "visit":
            [count] = options.arguments
            visit(engine, int(count), options.out)
        case "click":
            click(engine, options.arguments, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
