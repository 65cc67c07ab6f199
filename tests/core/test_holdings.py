"""What is told of a session: counts and ages, and nothing that is in it."""

import msgspec
import pytest

from clustersession.core import calls
from clustersession.core.effects import Ask, AskAll
from clustersession.core.holdings import MIRROR, Answer, Report, ask_members, holding, report
from clustersession.core.node import Member, State, View
from clustersession.core.record import Ending, Item, Lifetime, Record, Stamp
from clustersession.runtime import mirrored

KEY = bytes(16)
NOW = 1000.0
SECRET = b"secret value"
STAMP = Stamp(1, 1, "a")
ITEMS: dict[str, Item] = {"_user_id": (STAMP, SECRET), "cart": (STAMP, b"x"), "gone": (STAMP, None), MIRROR: (STAMP, SECRET)}
LIVE = Record(
    2,
    7,
    ("a", "b"),
    ITEMS,
    base=2,
    created=400.0,
    auth_time=500.0,
    last_seen=900.0,
    lifetime=Lifetime(1000.0, 1500.0),
    principal="alice",
    frozen_until=1001.0,
)


def each(record: Record | None, said: calls.SessionReply) -> calls.Each:
    return calls.Each((calls.Exported(record), said))


def test_a_copy_is_told_in_counts_and_ages() -> None:
    """Every figure of a copy, with times as ages; a limit is told by what is left of it."""
    found = holding("a", "alive", 5.0, each(LIVE, calls.Found(LIVE, serving=True, unheld=True)), NOW)
    assert found.answer is Answer.COPY
    assert found.facts is not None
    assert msgspec.to_builtins(found.facts) == {
        "epoch": 2,
        "version": 7,
        "owners": ("a", "b"),
        "accepted": True,
        "base": 2,
        "keys": 2,
        "bytes": len("_user_idcart\0mirrorx") + 2 * len(SECRET),
        "created_ago_s": 600.0,
        "auth_ago_s": 500.0,
        "last_seen_ago_s": 100.0,
        "idle_left_s": 960.0,
        "absolute_left_s": 500.0,
        "principal": True,
        "serving": True,
        "unheld": True,
        "frozen": True,
        "retained": False,
        "mirrored": True,
        "adoption": False,
        "expired": None,
        "ended": None,
    }


@pytest.mark.parametrize(
    ("reply", "answer", "why"),
    [
        (each(LIVE.but(pointer=True), calls.Moved(2, ("a", "b"))), Answer.MOVED, None),
        (each(LIVE.but(owners=("b", "c")), calls.Moved(2, ("b", "c"))), Answer.MOVED, None),
        (each(LIVE.but(ended=Ending("logout", 990.0)), calls.Gone("logout", 10.0, 2, ("a", "b"))), Answer.ENDED, None),
        (each(LIVE, calls.Later()), Answer.COPY, None),
        (each(None, calls.NotMine()), Answer.NOTHING, None),
        (each(None, calls.Later()), Answer.SYNCING, None),
        (calls.Each((calls.Broken(), calls.Broken())), Answer.NONE, "broken"),
        (calls.Each((calls.Unreachable("down"), calls.Unreachable("down"))), Answer.NONE, "down"),
        (calls.Unreachable("timeout"), Answer.NONE, "timeout"),
        (calls.Each(()), Answer.NONE, "each"),
        (calls.Later(), Answer.NONE, "later"),
    ],
)
def test_what_a_reply_amounts_to(reply: calls.Reply, answer: Answer, why: str | None) -> None:
    """A copy, an end, a pointer, nothing and no answer are five things; a node without its sync is a sixth."""
    found = holding("a", "alive", 5.0, reply, NOW)
    assert (found.answer, found.why) == (answer, why)


def test_an_end_is_told_with_its_reason_and_its_grace() -> None:
    """How long ago, and for how long what it held can still be read."""
    graced = LIVE.but(ended=Ending("rotated", 995.0, 1005.0))
    over = LIVE.but(ended=Ending("rotated", 900.0, 910.0))
    ends = []
    for record in (graced, over):
        facts = holding("a", "alive", 5.0, each(record, calls.Gone("rotated", 5.0, 2, ("a", "b"))), NOW).facts
        assert facts is not None
        assert facts.ended is not None
        ends.append((facts.ended.reason, facts.ended.ago_s, facts.ended.grace_left_s, facts.expired))
    assert ends == [("rotated", 5.0, 5.0, None), ("rotated", 100.0, None, None)]


def test_a_limit_that_has_passed_is_named() -> None:
    """As the session's owner sees it."""
    facts = holding("a", "alive", 5.0, each(LIVE, calls.Found(LIVE, serving=False)), NOW + 600).facts
    assert facts is not None
    assert facts.expired == "expired: absolute"


def test_a_record_of_the_adoption_is_nobodys() -> None:
    """What keeps an adopted session from coming back is told apart from a session of a user."""
    facts = holding("a", "alive", 5.0, each(LIVE.but(principal="\0adoption"), calls.Later()), NOW).facts
    assert facts is not None
    assert (facts.principal, facts.adoption) == (False, True)


def test_the_key_of_mirrored_sessions_is_the_one_that_is_written() -> None:
    """The core cannot import it from where it is written."""
    assert MIRROR == mirrored.MIRROR


def test_every_member_is_asked_and_nothing_is_told_of_values_or_people() -> None:
    """One message to each member, the dead too, that changes nothing; the report holds no value, key or user."""
    states = {"a": State.ALIVE, "b": State.DEAD}
    view = View("a", [Member(name, "127.0.0.1", 1, 990_000, state=state) for name, state in states.items()])
    operation = ask_members(view, KEY)
    question = calls.Many((calls.Export(KEY), calls.Fetch(KEY, 0.0)))
    assert operation.send(None) == AskAll((Ask("a", question), Ask("b", question)))
    with pytest.raises(StopIteration) as caught:
        operation.send((each(LIVE, calls.Found(LIVE, serving=True)), calls.Unreachable("refused")))
    found = report(view, KEY, caught.value.value, ("b",), now=NOW, wall_s=1000.0)
    text = msgspec.json.encode(found)
    assert msgspec.json.decode(text, type=Report) == found
    assert [(one.node, one.state, one.started_ago_s, one.away) for one in found.holdings] == [
        ("a", "alive", 10.0, False),
        ("b", "dead", 10.0, True),
    ]
    for word in (SECRET, b"alice", b"_user_id", b"cart"):
        assert word not in text
