"""The rounds of `jar` in one process: requests interleaved at every call between hosts, from a seed, and faults by a switch.

What is real: cookies, pipeline, rules, stores. What is not: sockets, processes, time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple

from clustersession.core.effects import Operation, Wait
from clustersession.errors import LateWrite, SessionUnavailable
from clustersession.runtime.engine import Engine
from clustersession.runtime.pipeline import Visit
from clustersession.testing.in_process import InProcessCluster

from .browser import Answer, Browser
from .jar import WRITES, Outcome, problem_of, statuses, written

FAULTS: Final = ("down", "paused", "garbage", "dead")
Exchange = Generator[None, None, Answer]
Change = Callable[[Any], None]


def stepped(engine: Engine, operation: Operation[None], visit: Visit) -> Generator[None, None, None]:
    """Runs `operation`, and lets others run after each of its effects. Nobody waits for time to pass."""
    reply: Any = None
    try:
        while True:
            effect = operation.send(reply)
            reply = None if isinstance(effect, Wait) else engine.blocking.run(_alone(effect), visit.budget)
            yield
    except StopIteration:
        return


def _alone(effect: Any) -> Generator[Any, Any, Any]:
    return (yield effect)


def request(engine: Engine, cookies: list[str], change: Change) -> Exchange:
    """One request of the app, as the ASGI middleware runs it."""
    visit = engine.visit(cookies, blocking=False)
    try:
        yield from stepped(engine, visit.load(), visit)
        change(visit.session)
        yield
        yield from stepped(engine, visit.save(), visit)
        headers, status = visit.headers(), 200
    except LateWrite:
        headers, status = visit.refusal_headers(), 409
    except SessionUnavailable:
        headers, status = visit.refusal_headers(), 503
    return Answer(status, [("Set-Cookie", text) for text in headers.cookies], b"", 0.0)


def finished(exchange: Exchange) -> Answer:
    """Runs it to its end, alone."""
    try:
        while True:
            next(exchange)
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer


class Planned(NamedTuple):
    """A request that will be made: on which host, and what it does."""

    host: str
    change: Change


class Race:
    """Requests of one browser under way at once. At each turn chance decides: a request is sent, one goes on, a response is
    taken, or the fault happens."""

    def __init__(self, cluster: InProcessCluster, browser: Browser, planned: list[Planned], rng: random.Random) -> None:
        self._cluster, self._browser, self._planned, self._rng = cluster, browser, planned, rng
        self._unsent = list(range(len(planned)))
        self._running: dict[int, Exchange] = {}
        self._untaken: dict[int, Answer | None] = {}
        self._taken: list[int] = []
        self.answers: list[Answer | None] = [None] * len(planned)
        self.late_cookies = 0

    def run(self, fault: Callable[[], str] | None = None) -> None:
        """`fault` is called once, at a random moment, and names the host whose own requests end without an answer."""
        fault_in = self._rng.randrange(60)
        while self._unsent or self._running or self._untaken:
            fault_in -= 1
            if fault is not None and fault_in == 0:
                self._cut(fault())
            self._turn()
        if fault is not None and fault_in > 0:
            self._cut(fault())

    def _cut(self, host: str) -> None:
        for number in [n for n in (*self._running, *self._unsent) if self._planned[n].host == host]:
            if number in self._unsent:
                self._unsent.remove(number)
            else:
                self._running.pop(number).close()
            self._untaken[number] = None

    def _turn(self) -> None:
        choices = [*(("send", n) for n in self._unsent), *(("go on", n) for n in self._running)]
        kind, number = self._rng.choice([*choices * 3, *(("take", n) for n in self._untaken)])
        if kind == "send":
            self._unsent.remove(number)
            engine = self._cluster[self._planned[number].host].engine
            self._running[number] = request(engine, self._browser.cookies, self._planned[number].change)
        elif kind == "go on":
            try:
                next(self._running[number])
            except StopIteration as stop:
                del self._running[number]
                self._untaken[number] = stop.value
        else:
            self._take(number)

    def _take(self, number: int) -> None:
        self.answers[number] = answer = self._untaken.pop(number)
        if answer is not None and answer.set_cookies:
            self._browser.take(answer)
            self.late_cookies += bool(self._taken)
        self._taken.append(number)


def setting(**items: str) -> Change:
    def change(session: Any) -> None:
        for name, value in items.items():
            session[name] = value

    return change


def seen(engine: Engine, browser: Browser) -> tuple[int, dict[str, str]]:
    """Status and what a page shows."""
    shown: dict[str, str] = {}
    answer = finished(request(engine, browser.cookies, shown.update))
    browser.take(answer)
    return answer.status, shown


def _writes(names: list[str], rng: random.Random) -> list[Planned]:
    return [Planned(rng.choice(names), setting(**{f"w{number}": "1"})) for number in range(WRITES)]


def login_round(rng: random.Random, number: int) -> Outcome:
    """`jar.login_round`."""
    cluster, browser, user = InProcessCluster(), Browser(), f"u{number}"
    names = list(cluster.nodes)
    browser.take(finished(request(cluster[rng.choice(names)].engine, [], setting(cart="apple"))))
    race = Race(cluster, browser, [*_writes(names, rng), Planned(rng.choice(names), setting(_user_id=user))], rng)
    race.run()
    login = race.answers[WRITES]
    problem = "" if login is not None and login.status == 200 else f"the login failed: {login}"
    return _judged(cluster, names, browser, race, problem, user, {"cart": "apple"})


def failover_round(rng: random.Random, number: int) -> Outcome:
    """`jar.failover_round`, with any one of the faults."""
    cluster, browser, user = InProcessCluster(), Browser(), f"u{number}"
    names = list(cluster.nodes)
    first = cluster[rng.choice(names)].engine
    browser.take(finished(request(first, [], setting(_user_id=user))))
    found = first.visit(browser.cookies, blocking=True).session.placement
    assert found is not None
    victim = rng.choice([name for name in (found.master, found.backup) if name])

    def fault() -> str:
        getattr(cluster, rng.choice(FAULTS))(victim)
        cluster.sent.clear()
        return victim

    race = Race(cluster, browser, _writes(names, rng), rng)
    race.run(fault)
    outcome = _judged(cluster, [name for name in names if name != victim], browser, race, "", user, {})
    return outcome._replace(met=any(sent.target == victim for sent in cluster.sent))


def _judged(
    cluster: InProcessCluster, names: list[str], browser: Browser, race: Race, problem: str, user: str, items: dict[str, str]
) -> Outcome:
    acked = {**items, **written(race.answers)}
    for name in names:
        status, shown = seen(cluster[name].engine, browser)
        problem = problem or (f"{status} at {name}" if status != 200 else problem_of(shown, user, acked))
    return Outcome(problem, statuses(race.answers), race.late_cookies)
