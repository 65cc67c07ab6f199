"""Messages between nodes: every type survives the wire and the change of clocks, and none is taken for another."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core import calls
from clustersession.core.bars import Bar
from clustersession.core.calls import Call, Message, Reply
from clustersession.core.edits import edit_of
from clustersession.core.encoding import decode_call, decode_reply, encode_message, moved_to_clock
from clustersession.core.facts import CanaryFacts, LinkFacts, NodeFacts
from clustersession.core.node import State
from clustersession.core.record import Digest, Ending, Lifetime, Lock, Patch, Record
from clustersession.core.record import moved_to_clock as record_moved

from .records import KEY, member, patch, pending, pointer, record, tombstone

CALLS: tuple[type[Message], ...] = get_args(Call)
REPLIES: tuple[type[Message], ...] = get_args(Reply)

OWNERS = ("a", "b")
ALONE = ("a", None)
FULL = record(lifetime=Lifetime(30.0, 2000.0), auth_time=900.0, frozen_until=1001.0, principal="u", patches=(b"12345678",)).but(
    locks={"pay": Lock(b"t" * 8, 1030.0)}
)
GRACED = tombstone(ended=Ending("rotated", 990.0, 1010.0), items=FULL.items)
DIGEST = Digest(KEY, 2, 3, OWNERS, False)
BAR = Bar(b"12345678", (b"1" * 16, b"2" * 16), 995.0, (KEY,))
FACTS = NodeFacts(
    node="a",
    release="1.0",
    wall_s=1.7e9,
    mode="on",
    ring="1:0123456789abcdef",
    exposed=False,
    cookie="cs",
    cookie_secure=True,
    synced=True,
    leaving=False,
    entries=1,
    bytes_used=2,
    bytes_max=3,
    down={"3": "process 7 (gunicorn, stopped)"},
    links=(LinkFacts(peer="b", state="alive", ago_s=0.25),),
    counts={"id_sent": (1, 0, 2)},
    canaries=(CanaryFacts(backup="b", ms=3.5, step="read", at="b", why="timeout"),),
)
OTHERS = (member("b", State.SUSPECT, zone="z", kids=(2, 1)), member("c", State.LEFT))
EXAMPLES: tuple[Message, ...] = (
    calls.Fetch(KEY, 12.5),
    calls.Export(KEY),
    calls.Apply(KEY, 2, patch(1, x=b"1", y=None)),
    calls.Apply(KEY, 2, patch(lifetime=Lifetime(30.0))),
    calls.Apply(KEY, 2, Patch(b"12345678", {}, None, {}, (edit_of("incr", "n", 1),), {"n": b"1", "m": None})),
    calls.Apply(KEY, 2, patch(lifetime=Lifetime(None, 2000.0))),
    calls.Apply(KEY, 2, Patch(b"12345678", {}, locks={"pay": Lock(b"t" * 8, 1030.0)}, under={"ship": b"u" * 8})),
    calls.Deliver(KEY, 2, 5, OWNERS, patch(lifetime=Lifetime(30.0, 2000.0))),
    calls.Deliver(KEY, 2, 5, ALONE, patch()),
    calls.Put(KEY, FULL),
    calls.Promote(KEY, 2, ALONE, None),
    calls.Promote(KEY, 2, OWNERS, "c"),
    calls.Promote(KEY, 2, OWNERS, None, revive=True),
    calls.Settle(KEY, 2, OWNERS, 5),
    calls.Absorb(KEY, pending(), "b"),
    calls.Absorb(KEY, pointer()),
    calls.End(KEY, "logout", OWNERS, 3, 10.0),
    calls.End(KEY, "logout", ALONE),
    calls.End(KEY, "logout", ALONE, anonymous=True),
    calls.LeaveHint(KEY, "b"),
    calls.Freeze(KEY, 2, 0.25),
    calls.Touch(KEY, 3.5),
    calls.Expire(KEY, 2, OWNERS),
    calls.Forget(KEY),
    calls.Examine(tour=True),
    calls.Confirm((DIGEST, Digest(KEY, 2, 0, OWNERS, True))),
    calls.Inventory(None, 256),
    calls.Inventory(KEY, 256),
    calls.Many((calls.Fetch(KEY, 12.5), calls.Put(KEY, FULL), calls.Apply(KEY, 2, patch(lifetime=Lifetime(None, 2000.0))))),
    calls.Heartbeat(member("a"), OTHERS, 12345.5, 7),
    calls.Forbid(BAR),
    calls.Bars(),
    calls.OfUser(BAR.labels),
    calls.Forbidden((KEY,)),
    calls.Known((BAR,)),
    calls.Theirs(((KEY, FULL),)),
    calls.Found(FULL, serving=True),
    calls.Found(FULL, serving=False, expired="expired: idle"),
    calls.Gone("logout", 3.5, 2, OWNERS),
    calls.Gone("rotated", 3.5, 2, OWNERS, GRACED),
    calls.Exported(None),
    calls.Exported(FULL),
    calls.Moved(2, OWNERS, retained=True),
    calls.NotMine(),
    calls.Later(),
    calls.Applied(2, 5, OWNERS, repeat=True),
    calls.Applied(2, 5, OWNERS, results={"n": b"2"}),
    calls.Held(5),
    calls.Gap(4),
    calls.Conflict(3, ("c", None)),
    calls.Promoted(pending()),
    calls.Done(),
    calls.Absorbed(),
    calls.Absorbed(FULL, DIGEST),
    calls.EndHeld(2, OWNERS),
    calls.InUse(7.5),
    calls.Frozen(FULL),
    calls.Rotating(),
    calls.Confirmed(((KEY, FULL), (b"2" * 16, None))),
    calls.Listed((DIGEST,), KEY),
    calls.Listed((), None),
    calls.Beat(member("a"), OTHERS, ((KEY, GRACED),), 3, 12345.5),
    calls.TooLarge("the session", 70_000, 65_536),
    calls.Differs("n"),
    calls.Unsuitable("incr", "n", "str"),
    calls.Full(),
    calls.Examined(FACTS),
    calls.Broken(),
    calls.Unreachable("refused"),
    calls.Each((calls.NotMine(), calls.Exported(FULL), calls.Confirmed(((KEY, FULL),)))),
)
WITH_RECORDS: frozenset[type[Message]] = frozenset(
    (
        calls.Put, calls.Absorb, calls.Found, calls.Gone, calls.Exported, calls.Promoted, calls.Absorbed, calls.Frozen,
        calls.Confirmed, calls.Beat, calls.Many, calls.Each, calls.Theirs,
    )
)  # fmt: skip


def named(message: Message) -> str:
    return type(message).__name__


def decode(data: bytes, like: Message) -> Message:
    return decode_call(data) if isinstance(like, CALLS) else decode_reply(data)


def records_in(value: Any) -> list[Record]:
    """Every record anywhere in a message."""
    if isinstance(value, Record):
        return [value]
    if isinstance(value, msgspec.Struct):
        return [found for field in value.__struct_fields__ for found in records_in(getattr(value, field))]
    return [found for each in value for found in records_in(each)] if isinstance(value, tuple) else []


def test_the_examples_are_complete() -> None:
    """Every type of call and reply is among them, so that nothing below is skipped."""
    assert {type(example) for example in EXAMPLES} == set(CALLS) | set(REPLIES)
    assert not set(CALLS) & set(REPLIES)
    assert {type(example) for example in EXAMPLES if records_in(example)} == WITH_RECORDS


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_every_message_survives_the_wire(message: Message) -> None:
    """Encoded and decoded it is equal and of the same type."""
    again = decode(encode_message(message), message)
    assert again == message
    assert type(again) is type(message)


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_a_call_is_never_a_reply_nor_a_reply_a_call(message: Message) -> None:
    """A message in the wrong direction is refused."""
    with pytest.raises(msgspec.DecodeError):
        (decode_reply if isinstance(message, CALLS) else decode_call)(encode_message(message))


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_a_message_of_another_type_never_decodes_silently(message: Message) -> None:
    """Under another type's name the fields either do not fit and are refused, or it is that other type, never this one."""
    tag, *fields = msgspec.msgpack.decode(encode_message(message))
    for other in CALLS if isinstance(message, CALLS) else REPLIES:
        if other.__name__ == tag:
            continue
        try:
            decoded = decode(msgspec.msgpack.encode([other.__name__, *fields]), message)
        except msgspec.DecodeError:
            continue
        assert type(decoded) is other
    for tagless in ([*fields], ["Unknown", *fields], [None, *fields], {"type": tag}):
        with pytest.raises(msgspec.DecodeError):
            decode(msgspec.msgpack.encode(tagless), message)


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_fields_of_a_later_release_are_read_over(message: Message) -> None:
    """A newer host appends fields; this one takes what it knows (one release back and forth)."""
    array = msgspec.msgpack.decode(encode_message(message))
    assert decode(msgspec.msgpack.encode([*array, "new", {"more": 1}]), message) == message


@pytest.mark.parametrize("message", [each for each in EXAMPLES if each.__struct_fields__], ids=named)
def test_a_field_of_the_wrong_type_or_a_missing_one_is_refused(message: Message) -> None:
    """No field takes what is not of its type, and none without a default may be missing."""
    tag, *fields = msgspec.msgpack.decode(encode_message(message))
    for place in range(len(fields)):
        wrong = [*fields[:place], {"not": {"this": "type"}}, *fields[place + 1 :]]
        with pytest.raises(msgspec.DecodeError):
            decode(msgspec.msgpack.encode([tag, *wrong]), message)
    if any(each.required for each in msgspec.structs.fields(message)):
        with pytest.raises(msgspec.DecodeError):
            decode(msgspec.msgpack.encode([tag]), message)


@given(st.binary(max_size=60), st.booleans())
def test_foreign_bytes_raise_one_error(data: bytes, call: bool) -> None:
    """Whatever arrives: a message, or `DecodeError`."""
    try:
        decoded = decode_call(data) if call else decode_reply(data)
    except msgspec.DecodeError:
        return
    assert type(decoded) in (CALLS if call else REPLIES)


# --- clocks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
@pytest.mark.parametrize("by", [-1000.0, 500.0])
def test_moving_a_message_moves_every_record_in_it_and_back(message: Message, by: float) -> None:
    """No two clocks are ever compared: all times of records travel relative to now; the sender's own clock stays."""
    moved = moved_to_clock(message, by)
    assert records_in(moved) == [record_moved(each, by) for each in records_in(message)]
    assert moved_to_clock(moved, -by) == message
    if (
        not records_in(message)
        and getattr(message, "patch", None) is None
        and not isinstance(message, calls.Forbid | calls.Known)
    ):
        assert moved is message


def test_the_lease_in_a_patch_is_moved_too() -> None:
    """A lock is given for so long from now, whatever the clock of the host that takes it."""
    moved = moved_to_clock(calls.Apply(KEY, 2, Patch(b"1", {}, locks={"pay": Lock(b"t", 1030.0)})), -1000.0)
    assert isinstance(moved, calls.Apply)
    assert moved.patch.locks == {"pay": Lock(b"t", 30.0)}


def test_the_deadline_in_a_patch_is_moved_too() -> None:
    """It is the only time a patch has; a patch without one is handed on as it is."""
    for make in (
        lambda p: calls.Apply(KEY, 2, p),
        lambda p: calls.Deliver(KEY, 2, 5, OWNERS, p),
    ):
        assert moved_to_clock(make(patch(lifetime=Lifetime(30.0, 2000.0))), 5.0) == make(patch(lifetime=Lifetime(30.0, 2005.0)))
        for timeless in (make(patch(lifetime=Lifetime(30.0))), make(patch())):
            assert moved_to_clock(timeless, 5.0) is timeless
