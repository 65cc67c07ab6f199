"""Canaries: they go the way of a session, and leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from clustersession.core import calls
from clustersession.core.calls import Call, Message, Reply
from clustersession.core.canary import CANARY, Fault, canary, forgotten, is_canary, new_canary
from clustersession.core.effects import Ask, AskAll, Tell

from .records import KEY, record, tombstone

OWNERS = ("a", "b")
SONG = new_canary(OWNERS, b"12345678", now=1000.0)
FOUND = calls.Found(SONG, serving=False)
GOOD: dict[type[Message], list[Reply]] = {
    calls.Put: [calls.Held(1)],
    calls.Fetch: [FOUND, calls.Gone("canary", 0.0, 1, OWNERS)],
    calls.End: [calls.EndHeld(1, OWNERS)],
    calls.Forget: [calls.Done()],
}


class Nodes:
    """Two nodes that answer well, except one call to b, which `bad` answers from the `nth` time on."""

    def __init__(self, fails: type[Message] | None = None, bad: Reply | None = None, nth: int = 0) -> None:
        self.fails, self.bad, self.nth = fails, bad, nth
        self.asked: list[tuple[str, type[Message]]] = []

    def reply(self, node: str, call: Call) -> Reply:
        times = self.asked.count((node, type(call)))
        self.asked.append((node, type(call)))
        if node == "b" and type(call) is self.fails and times >= self.nth and self.bad is not None:
            return self.bad
        return GOOD[type(call)][min(times, len(GOOD[type(call)]) - 1)]

    def run(self) -> Fault | None:
        operation = canary(KEY, SONG)
        sent: Any = None
        try:
            while True:
                effect = operation.send(sent)
                match effect:
                    case AskAll(asks=asks):
                        sent = tuple(self.reply(each.node, each.call) for each in asks)
                    case Ask(node=node, call=call) | Tell(node=node, call=call):
                        sent = self.reply(node, call)
        except StopIteration as stop:
            fault: Fault | None = stop.value
            return fault


def test_it_is_written_read_ended_and_dropped_at_both() -> None:
    """In this order, and nothing is wrong."""
    nodes = Nodes()
    assert nodes.run() is None
    kinds = [kind for node, kind in nodes.asked if node == "b"]
    assert kinds == [calls.Put, calls.Fetch, calls.End, calls.Fetch, calls.Forget]


@pytest.mark.parametrize(
    ("fails", "bad", "nth", "fault"),
    [
        (calls.Put, calls.Unreachable("timeout"), 0, Fault("create", "b", "timeout")),
        (calls.Put, calls.Full(), 0, Fault("create", "b", "full")),
        (calls.Fetch, calls.NotMine(), 0, Fault("read", "b", "notmine")),
        (calls.Fetch, calls.Found(new_canary(OWNERS, b"another.", 1.0), serving=True), 0, Fault("read", "b", "found")),
        (calls.End, calls.Unreachable("refused"), 0, Fault("end", "b", "refused")),
        (calls.Fetch, FOUND, 1, Fault("end", "b", "found")),
        (calls.Forget, calls.Unreachable("timeout"), 0, Fault("drop", "b", "timeout")),
    ],
)
def test_what_fails_first_is_named_and_it_is_dropped_all_the_same(
    fails: type[Message], bad: Reply, nth: int, fault: Fault
) -> None:
    """The step, the node and why; both nodes are told to drop it."""
    nodes = Nodes(fails, bad, nth)
    assert nodes.run() == fault
    assert {node for node, kind in nodes.asked if kind is calls.Forget} == {"a", "b"}


def test_only_a_canary_is_ever_forgotten() -> None:
    """Whoever asks for it: neither a session nor its end goes."""
    for held in (record(), tombstone(), record(principal="alice")):
        assert forgotten(held) == (calls.NotMine(), False, None, (), ())
    assert forgotten(None).write is False
    for mine in (SONG, SONG.but(ended=tombstone().ended)):
        assert is_canary(mine)
        decision = forgotten(mine)
        assert (decision.write, decision.record, decision.unhint) == (True, None, OWNERS)


def test_no_app_sees_what_it_carries() -> None:
    """Its one value is hidden, and its principal is nobody's."""
    assert CANARY.startswith("\0")
    assert all(name.startswith("\0") for name in SONG.items)
