"""One browser, six writes at once around a login, or around the death of an owner's host; its responses taken in any order.

`python -m tests.end_to_end.jar --rounds 1000` does it over HTTP on three hosts and prints one line of JSON; `--kills` of the
rounds (default 0) lose a host with kill -9 while the writes are under way. Exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .browser import Answer, Browser, send
from .cluster import Cluster, Host
from .servers import FLASK, Address, gunicorn

WRITES = 6
SHOWN_MAX = 5
REPEATED = (409, 503)  # "not done, repeat it": what a client does then is its own affair


Request = Callable[[list[str]], Answer | None]
"""Makes one request with these Cookie fields; None if no answer came."""


class Step(NamedTuple):
    """`send` or `take` of request number `number`."""

    kind: str
    number: int


def plan(rng: random.Random, requests: int) -> list[Step]:
    """Sends in random order, and each response taken at some later point: between other sends, or after all of them."""
    steps = [Step("send", number) for number in range(requests)]
    rng.shuffle(steps)
    for number in range(requests):
        sent = steps.index(Step("send", number))
        steps.insert(rng.randint(sent + 1, len(steps)), Step("take", number))
    return steps


class Outcome(NamedTuple):
    """What one round did. `problem`: what a user would have noticed, empty if nothing. `statuses`: 0 is no answer.

    `late_cookies`: cookies taken from a response while that to an earlier request was still to be taken. `met`: a request ran
    into the fault.
    """

    problem: str
    statuses: Counter[int]
    late_cookies: int
    met: bool = True


def perform(
    pool: ThreadPoolExecutor, browser: Browser, steps: Iterable[Step], requests: list[Request]
) -> tuple[list[Answer | None], int]:
    """Walks `steps` with one jar: each request carries the cookies of the moment it is sent. An answer of None: none came."""
    sent: dict[int, Future[Answer | None]] = {}
    answers: list[Answer | None] = [None] * len(requests)
    order: list[int] = []
    late = 0
    for step in steps:
        if step.kind == "send":
            sent[step.number] = pool.submit(requests[step.number], browser.cookies)
            order.append(step.number)
            continue
        answers[step.number] = answer = sent[step.number].result()
        if answer is not None and answer.set_cookies:
            late += any(answers[other] is None for other in order[: order.index(step.number)])
            browser.take(answer)
    return answers, late


def written(answers: list[Answer | None]) -> dict[str, str]:
    """What the acknowledged writes have set."""
    return {f"w{number}": "1" for number, answer in enumerate(answers[:WRITES]) if answer is not None and answer.status == 200}


def statuses(answers: list[Answer | None]) -> Counter[int]:
    return Counter(0 if answer is None else answer.status for answer in answers)


def problem_of(shown: dict[str, str], user: str, acked: dict[str, str]) -> str:
    if shown.get("_user_id") != user:
        return f"logged out: the session shows {shown}"
    lost = sorted(acked.keys() - shown.keys())
    return f"lost writes: {lost}" if lost else ""


def login_round(pool: ThreadPoolExecutor, addresses: list[Address], rng: random.Random, number: int) -> Outcome:
    """An anonymous visitor with a cart logs in while six pages of theirs are still writing."""
    browser, user = Browser(), f"u{number}"
    browser.get(rng.choice(addresses), "/set", cart="apple")
    at = [rng.choice(addresses) for _ in range(WRITES + 1)]
    requests: list[Request] = [
        lambda cookies, n=n: send(at[n], "/set", cookies, **{f"w{n}": 1})  # type: ignore[misc]
        for n in range(WRITES)
    ]
    requests.append(lambda cookies: send(at[WRITES], "/set", cookies, _user_id=user))
    answers, late = perform(pool, browser, plan(rng, len(requests)), requests)
    login = answers[WRITES]
    if login is None or login.status != 200:
        return Outcome(f"the login failed: {login}", statuses(answers), late)
    odd = [answer for answer in answers if answer is None or answer.status not in (200, *REPEATED)]
    if odd:
        return Outcome(f"odd answers: {odd}", statuses(answers), late)
    shown = browser.get(rng.choice(addresses), "/look")
    acked = {"cart": "apple", **written(answers)}
    problem = problem_of(shown.items, user, acked) if shown.status == 200 else f"{shown.status} after the login"
    return Outcome(problem, statuses(answers), late)


def failover_round(pool: ThreadPoolExecutor, cluster: Cluster, rng: random.Random, number: int) -> Outcome:
    """A user's six writes are under way when an owner's host is killed. Only requests to that host may stay without an answer."""
    browser, user = Browser(), f"u{number}"
    home = rng.choice(cluster.hosts)
    browser.get(home.app, "/set", _user_id=user)
    victim = cluster[rng.choice(browser.get(home.app, "/look").seen["owners"])]
    at = [rng.choice(cluster.hosts) for _ in range(WRITES)]
    requests = [_write_to(at[n], f"w{n}", rng.uniform(0.0, 0.03), may_fail=at[n] is victim) for n in range(WRITES)]
    requests.append(_kill(victim, rng.uniform(0.0, 0.03)))
    answers, late = perform(pool, browser, plan(rng, len(requests)), requests)
    acked = written(answers)
    odd = [answer for answer in answers if answer is not None and answer.status not in (200, *REPEATED)]
    problem = f"odd answers: {odd}" if odd else ""
    for host in cluster.others(victim.name):
        shown = browser.get(host.app, "/look")
        problem = problem or (str(shown.status) if shown.status != 200 else problem_of(shown.items, user, acked))
    cluster.heal()
    for host in cluster:
        problem = problem or problem_of(host.look(browser).items, user, acked)
    return Outcome(problem, statuses(answers[:WRITES]), late)


def _write_to(host: Host, name: str, after_s: float, *, may_fail: bool) -> Request:
    def write(cookies: list[str]) -> Answer | None:
        time.sleep(after_s)  # so that the kill comes among the writes
        try:
            return send(host.app, "/set", cookies, **{name: 1})
        except (OSError, http.client.HTTPException):
            if not may_fail:
                raise
            return None

    return write


def _kill(host: Host, after_s: float) -> Request:
    def kill(cookies: list[str]) -> None:
        time.sleep(after_s)
        host.kill()

    return kill


class Tally:
    """The sum of many rounds, as the line that is printed."""

    def __init__(self) -> None:
        self.rounds = self.good = self.late_cookies = self.met = 0
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []

    def add(self, number: int, outcome: Outcome) -> None:
        self.rounds += 1
        self.good += not outcome.problem
        self.statuses += outcome.statuses
        self.late_cookies += outcome.late_cookies
        self.met += outcome.met
        if outcome.problem:
            self.problems.append(f"round {number}: {outcome.problem}")

    def as_dict(self) -> dict[str, object]:
        return {
            "rounds": self.rounds,
            "good": self.good,
            "statuses": dict(self.statuses),
            "late_cookies": self.late_cookies,
            "met": self.met,
            "problems": self.problems[:SHOWN_MAX],
        }


def login_rounds(addresses: list[Address], rounds: int, seed: int, parallel: int = 2) -> Tally:
    """Rounds of `login_round`, each with a seed of its own, `parallel` at a time."""
    tally = Tally()
    with ThreadPoolExecutor(parallel * (WRITES + 1)) as requests, ThreadPoolExecutor(parallel) as visitors:
        done = [
            visitors.submit(login_round, requests, addresses, random.Random(f"{seed}/{number}"), number)
            for number in range(rounds)
        ]
        for number, each in enumerate(done):
            tally.add(number, each.result())
    return tally


def failover_rounds(cluster: Cluster, rounds: int, seed: int) -> Tally:
    tally = Tally()
    with ThreadPoolExecutor(WRITES + 1) as pool:
        for number in range(rounds):
            tally.add(number, failover_round(pool, cluster, random.Random(f"{seed}/{number}"), number))
    return tally


def start(cluster: Cluster) -> Cluster:
    """Hosts with one worker each: a session is contended for enough by three."""
    for host in cluster:
        host.run(gunicorn(FLASK, host.app, workers=1))
    cluster.await_whole()
    return cluster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        start(cluster)
        began = time.perf_counter()
        login = login_rounds([host.app for host in cluster], options.rounds, options.seed)
        login_s = time.perf_counter() - began
        failover = failover_rounds(cluster, options.kills, options.seed)
        complaints = cluster.complaints()
    line = {"login": login.as_dict(), "login_s": round(login_s, 1), "failover": failover.as_dict(), "complaints": complaints}
    print(json.dumps(line))
    good = login.good == login.rounds and failover.good == failover.rounds and not complaints
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
