"""What an app on a simulated host does with its session: the real session, operations and locks, driven in virtual time."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, cast

from clustersession.config import Config
from clustersession.core.effects import Operation
from clustersession.core.operations import Ended, Loaded, LoadOutcome, Saved, Target, Unavailable, load
from clustersession.errors import ConflictingWrite, LateWrite, LockLost, SessionLocked, SessionUnavailable
from clustersession.runtime.counters import Counters
from clustersession.runtime.engine import Backplane, Engine
from clustersession.runtime.locking import locked
from clustersession.runtime.session import RequestSession
from clustersession.runtime.stored import Stored, patch, save_session
from clustersession.testing.simulated import RING, SimulatedNode

logging.getLogger("clustersession").addHandler(logging.NullHandler())  # what it says of each fault is in the counts
SECRET: Final = "1:K7rV9xq2LmP4sTzW8yBnC3dFgH6jQaEu"


class Lock(NamedTuple):
    """What a request asks for before it looks at the session."""

    name: str
    lease_s: float
    wait_s: float


class Refused(NamedTuple):
    """Nothing of the request was saved, it was told."""

    why: str


class Request:
    """One request that has its session in its hands."""

    def __init__(self, session: RequestSession, stored: Stored) -> None:
        self.session, self.stored = session, stored


Outcome: TypeAlias = Saved | Refused | LoadOutcome


class Drawn:
    """Random bytes from a stream of their own."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def bytes(self, count: int) -> bytes:
        return self._chance.randbytes(count)


class Apps:
    """The worker processes of all hosts, as one user meets them."""

    def __init__(self, chance: random.Random) -> None:
        self._entropy = Drawn(chance)
        self._engines: dict[str, Engine] = {}

    def at(self, node: SimulatedNode) -> Engine:
        """Another one after each start of the host."""
        engine = self._engines.get(node.name)
        if engine is None or engine.host is not node.host:
            nobody = cast(Any, None)  # drives anything: that is what the simulated host does
            shared = Backplane(node.host, lambda: RING, nobody, nobody, Counters(), self._entropy, None)
            engine = self._engines[node.name] = Engine(Config(secret=SECRET, node=node.name), shared)
        return engine


def begun(engine: Engine, target: Target, lock: Lock | None = None) -> Operation[Request | Outcome]:
    """Load the session, and take the lock."""
    loaded = yield from load(engine.cluster(), target)
    if not isinstance(loaded, Loaded) or loaded.superseded:
        return loaded
    session = RequestSession(_not_demanded, engine.config.limits, engine.undecodable)
    stored = Stored(b"", target.key, loaded.record)
    session.fill(engine.items_of(target.key, loaded.record), "it has a handle", stored)
    if lock is not None:
        try:
            yield from locked(engine, session, *lock)
        except (SessionLocked, LateWrite, SessionUnavailable) as error:
            return _outcome(error)
    return Request(session, stored)


def saved(engine: Engine, request: Request) -> Operation[Outcome]:
    """Save what the app has changed, and give the lock up."""
    session, stored = request.session, request.stored
    try:
        yield from save_session(engine, stored, patch(engine, session.changes(), None, session))
    except (LateWrite, SessionUnavailable) as error:
        return _outcome(error)
    assert stored.saved is not None
    return stored.saved


def done_at_once(engine: Engine, target: Target, work: Callable[[RequestSession], None]) -> Operation[Outcome]:
    """A request that takes no time."""
    request = yield from begun(engine, target)
    if not isinstance(request, Request):
        return request
    work(request.session)
    return (yield from saved(engine, request))


def _not_demanded() -> None:
    raise AssertionError("it is loaded before anybody looks at it")


def _outcome(error: LateWrite | SessionUnavailable) -> Outcome:
    match error:
        case SessionUnavailable():
            return Unavailable(str(error))
        case SessionLocked() | LockLost() | ConflictingWrite():
            return Refused(type(error).__name__)
    return Ended(error.reason)
