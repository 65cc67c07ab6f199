"""One browser, many requests at once: every step of every request interleaved, and answers delayed and reordered on purpose."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import pytest

from clustersession.core.effects import Effect, Operation
from clustersession.errors import LateWrite, SessionUnavailable
from clustersession.runtime.engine import Engine
from clustersession.testing.in_process import InProcessCluster

WRITES = 6
SEEDS = 1000

Steps = Generator[None, None, None]


class Browser:
    """A cookie jar, and what its user was told."""

    def __init__(self, cluster: InProcessCluster, seed: int) -> None:
        self.cluster, self.random = cluster, random.Random(seed)
        self.jar: str | None = None
        self.acked: dict[str, int] = {}
        self.refused = 0
        self.hosts = list(cluster.nodes)

    def request(self, values: dict[str, Any]) -> Steps:
        """A request to some host, which ends with it."""
        host = self.random.choice(self.hosts)
        for _ in self._served(self.cluster[host].engine, values):
            if host not in self.hosts:
                return
            yield

    def _served(self, engine: Engine, values: dict[str, Any]) -> Steps:
        """Load, change, save, each effect a step of its own; then the answer is on its way."""
        cookie = self.jar
        yield
        visit = engine.visit((cookie,) if cookie else (), blocking=True)
        yield from stepwise(engine, visit.load())
        try:
            visit.session.update(values)
            yield from stepwise(engine, visit.save())
            cookies, acked = visit.headers().cookies, True
        except (LateWrite, SessionUnavailable):
            cookies, acked = visit.refusal_headers().cookies, False
        for _ in range(self.random.randrange(12)):
            yield  # on its way back
        for text in cookies:
            self.jar = text.partition(";")[0]
        if acked:
            self.acked.update(values)
        else:
            self.refused += 1

    def play(self, *requests: Steps, after: Steps | None = None) -> None:
        """All of them at once, in an order that only the seed knows."""
        running = [*requests, *([after] if after is not None else [])]
        while running:
            one = self.random.choice(running)
            if next(one, running) is running:
                running.remove(one)

    def sees(self) -> dict[str, Any]:
        """What the user finds afterwards, on any host that is up."""
        engine = self.cluster[self.random.choice(self.hosts)].engine
        return dict(engine.visit((self.jar or "",), blocking=True).session)


def stepwise(engine: Engine, operation: Operation[Any]) -> Steps:
    """The operation, with a pause before each of its effects; it waits for nothing."""
    reply: Any = None
    try:
        while True:
            effect = operation.send(reply)
            yield
            reply = None if type(effect).__name__ == "Wait" else engine.blocking.run(once(effect), engine_budget(engine))
    except StopIteration:
        return


def once(effect: Effect) -> Operation[Any]:
    return (yield effect)


def engine_budget(engine: Engine) -> Any:
    return engine.visit((), blocking=True).budget


@pytest.mark.parametrize("chunk", range(10))
def test_a_login_among_parallel_writes_stays_a_login(chunk: int) -> None:
    """A thousand times six writes around a login: always logged in afterwards, and no acked write is missing."""
    refused = acked = 0
    for seed in range(chunk * SEEDS // 10, (chunk + 1) * SEEDS // 10):
        browser = Browser(InProcessCluster(), seed)
        browser.play(browser.request({"theme": "dark"}))
        writes = [browser.request({f"k{n}": n}) for n in range(WRITES)]
        browser.play(*writes, after=browser.request({"_user_id": "7"}))
        found = browser.sees()
        login_was_answered = "_user_id" in browser.acked
        assert login_was_answered == (found.get("_user_id") == "7"), seed
        assert login_was_answered, seed
        assert browser.acked.items() <= found.items(), seed
        refused, acked = refused + browser.refused, acked + len(browser.acked)
    assert acked > SEEDS // 10 * 4, "most writes must be taken, or nothing is proven"
    assert refused > 0, "some must have met the rotation"


@pytest.mark.parametrize("chunk", range(10))
def test_a_failover_among_parallel_writes_loses_neither_login_nor_write(chunk: int) -> None:
    """A thousand times a host dies while six writes are under way: the IDs of both owners lead to the session."""
    moved = 0
    for seed in range(chunk * SEEDS // 10, (chunk + 1) * SEEDS // 10):
        cluster = InProcessCluster()
        browser = Browser(cluster, seed)
        browser.play(browser.request({"_user_id": "7"}))
        before = browser.jar

        def death(browser: Browser = browser, cluster: InProcessCluster = cluster) -> Steps:
            for _ in range(browser.random.randrange(12)):
                yield
            victim = browser.random.choice(browser.hosts)
            browser.hosts.remove(victim)
            cluster.dead(victim)

        browser.play(*(browser.request({f"k{n}": n}) for n in range(WRITES)), after=death())
        found = browser.sees()
        assert found.get("_user_id") == "7", seed
        assert browser.acked.items() <= found.items(), seed
        moved += browser.jar != before
    assert moved > SEEDS // 10 // 5, "the host that died must often have been an owner"
