"""Heartbeats that carry hints, and the sync of a node that was away, against scripted peers."""

from __future__ import annotations

import itertools

import pytest

from clustersession.core import calls
from clustersession.core.bars import Bar, Tally
from clustersession.core.calls import Absorb, Bars, Confirm, Export, Forbid, Heartbeat, Inventory, Put, Settle
from clustersession.core.effects import Pace
from clustersession.core.node import State, View
from clustersession.core.placement import live_order
from clustersession.core.record import Key, Record, contents_of, digest
from clustersession.core.together import PIECE_MAX
from clustersession.core.upkeep import HINT_ROUNDS_MAX, SYNC_BATCH, Heard, Silent, beat, heard_of_bars, sync

from .play import REFUSED, SILENT, Played, Script, play
from .records import KEY, member, pending, pointer, record, tombstone, view

KEY2 = b"2" * 16
ME, B, C = member("a"), member("b"), member("c")
OTHERS = (ME, C)
EVERYBODY = view("a", "b", "c", "d", "e")
MINE = Tally()
MINE.add(b"mine" * 2, 50.0)
BAR, BAR2 = Bar(b"1" * 8, (b"l" * 16,), 100.0), Bar(b"2" * 8, (b"m" * 16,), 200.0)
FORBIDDEN = calls.Forbidden()


def mine() -> Heartbeat:
    return Heartbeat(ME, (B, C), 5.0)


def answer(*hints: tuple[Key, Record], pending: int = 0, bars: bytes = b"") -> calls.Beat:
    return calls.Beat(B, OTHERS, hints, pending, 7.0, bars)


def held(each: Record, key: Key = KEY, better: Record | None = None) -> calls.Absorbed:
    return calls.Absorbed(better, digest(key, each))


def all_confirmed(*differing: tuple[Key, Record | None]) -> calls.Confirmed:
    return calls.Confirmed(differing)


def run_beat(script: Script) -> Played[Heard | Silent]:
    return play(beat("a", "b", mine, lambda: MINE), script)


# --- heartbeats --------------------------------------------------------------------------------------------------------------


def test_a_heartbeat_without_hints_is_one_call() -> None:
    """The peer is heard, and it has told all."""
    played = run_beat({("b", Heartbeat): [answer()]})
    assert played.outcome == Heard(B, OTHERS, told_all=True)
    assert played.sent == [("b", mine())]


@pytest.mark.parametrize(("reply", "why"), [(SILENT, "timeout"), (REFUSED, "refused"), (calls.Later(), "later")])
def test_no_answer_to_a_heartbeat(reply: calls.Reply, why: str) -> None:
    """Whatever is no `Beat` is silence, with the word for it: a refusal is told from a time-out."""
    assert run_beat({("b", Heartbeat): [reply]}).outcome == Silent(why)


def test_hints_are_applied_and_confirmed_before_the_peer_counts_as_heard() -> None:
    """Each record meets the copy here; what is held then is shown to the peer, so that its hints go."""
    one, two = record(2, 5), record(3, 1, ("b", "a"))
    script: Script = {
        ("b", Heartbeat): [answer((KEY, one), (KEY2, two))],
        ("a", Absorb): [held(one), held(two, KEY2)],
        ("b", Confirm): [all_confirmed()],
    }
    played = run_beat(script)
    assert played.outcome == Heard(B, OTHERS, told_all=True)
    assert played.sent[1:] == [
        ("a", Absorb(KEY, one, "b")),
        ("a", Absorb(KEY2, two, "b")),
        ("b", Confirm((digest(KEY, one), digest(KEY2, two)))),
    ]


@pytest.mark.parametrize(
    ("known", "taken", "told_all"),
    [
        (calls.Known(()), [], True),
        (SILENT, [], False),
        (calls.Later(), [], False),
        (calls.Known((BAR, BAR2)), [FORBIDDEN, FORBIDDEN], True),
        (calls.Known((BAR, BAR2)), [FORBIDDEN, calls.Full()], False),
    ],
)
def test_bars_are_taken_before_the_peer_counts_as_heard(known: calls.Reply, taken: list[calls.Reply], told_all: bool) -> None:
    """A peer that knows other bars is asked for them; one that cannot be kept here holds back the lease."""
    script: Script = {("b", Heartbeat): [answer(bars=b"theirs")], ("b", Bars): [known], ("a", Forbid): taken}
    played = run_beat(script)
    assert played.outcome == Heard(B, OTHERS, told_all=told_all)
    assert played.calls(Forbid) == [("a", Forbid(bar)) for bar in (BAR, BAR2)[: len(taken)]]


def test_bars_come_in_pages_and_only_those_that_are_missing() -> None:
    """Each page is asked for with the same sums, from the bucket on at which the one before ended. A peer that leads in a circle
    is not followed."""
    known = Bar(b"mine" * 2, (b"l" * 16,), 50.0)
    pages = [calls.Known((BAR, known), 0x32), calls.Known((BAR2,), 0x32)]
    script: Script = {("b", Heartbeat): [answer(bars=b"theirs")], ("b", Bars): pages, ("a", Forbid): [FORBIDDEN, FORBIDDEN]}
    played = run_beat(script)
    assert played.calls(Bars) == [("b", Bars(MINE.sums(), 0)), ("b", Bars(MINE.sums(), 0x32))]
    assert played.calls(Forbid) == [("a", Forbid(BAR)), ("a", Forbid(BAR2))]


@pytest.mark.parametrize("same", [MINE.digest(), b""])
def test_bars_known_already_are_not_asked_for(same: bytes) -> None:
    """Nor are those of a peer that knows none: it asks for ours."""
    assert run_beat({("b", Heartbeat): [answer(bars=same)]}).calls(Bars) == []


@pytest.mark.parametrize(
    ("replies", "heard"), [([calls.Known(())] * 3, True), ([SILENT, SILENT, calls.Known((BAR,))], True), ([SILENT] * 3, False)]
)
def test_a_sync_begins_with_the_bars_of_others(replies: list[calls.Reply], heard: bool) -> None:
    """Three are asked, and one that answers is enough: each of them has what it missed itself."""
    order = live_order(EVERYBODY, b"", without=("a",))[:3]
    script: dict[tuple[str, type[calls.Call]], list[calls.Reply]] = {}
    for peer, reply in zip(order, replies, strict=True):
        script[peer, Bars] = [reply]
        script.update({("a", Forbid): [FORBIDDEN]} if isinstance(reply, calls.Known) and reply.bars else {})
    assert play(heard_of_bars(EVERYBODY, Tally), script).outcome is heard


def test_who_is_alone_has_nobody_to_hear_bars_from() -> None:
    """Then its sync need not wait for any."""
    assert play(heard_of_bars(view("a"), Tally), {}).outcome is True


def test_what_is_better_here_goes_back_and_what_comes_of_it_is_taken() -> None:
    """Both sides end with the same: the peer may merge what it is shown, and its merge is taken too."""
    hint, better, merged = record(2, 5), record(3, 5), record(3, 6)
    script: Script = {
        ("b", Heartbeat): [answer((KEY, hint))],
        ("a", Absorb): [held(better, better=better), held(merged)],
        ("b", Absorb): [held(merged, better=merged)],
        ("b", Confirm): [all_confirmed()],
    }
    played = run_beat(script)
    assert played.outcome == Heard(B, OTHERS, told_all=True)
    assert played.calls(Absorb) == [("a", Absorb(KEY, hint, "b")), ("b", Absorb(KEY, better)), ("a", Absorb(KEY, merged, "b"))]
    assert played.calls(Confirm) == [("b", Confirm((digest(KEY, merged),)))]


@pytest.mark.parametrize("back", [held(record(3, 5)), SILENT])
def test_what_is_better_here_need_not_change_the_peer(back: calls.Reply) -> None:
    """Then what is held here is what is confirmed."""
    better = record(3, 5)
    script: Script = {
        ("b", Heartbeat): [answer((KEY, record(2, 5)))],
        ("a", Absorb): [held(better, better=better)],
        ("b", Absorb): [back],
        ("b", Confirm): [all_confirmed()],
    }
    assert run_beat(script).calls(Confirm) == [("b", Confirm((digest(KEY, better),)))]


@pytest.mark.parametrize(("master", "told"), [("a", True), ("c", False)])
def test_a_pointer_s_keeper_is_told_that_its_values_are_merged(master: str, told: bool) -> None:
    """By the master, which alone merges them: until then the hint is the only thing that brings them back."""
    retained = pointer(3, (master, None)).but(items=record(2).items)
    merged = record(3, 6, (master, None))
    script: Script = {
        ("b", Heartbeat): [answer((KEY, retained))],
        ("a", Absorb): [held(merged)],
        ("b", Confirm): [all_confirmed()],
    }
    [(_, confirm)] = run_beat(script).calls(Confirm)
    assert confirm.digests[0].taken == (contents_of(retained.items) if told else b"")


def test_a_hint_about_a_session_of_others_is_confirmed_as_it_came() -> None:
    """Nothing of it is kept here, so there is nothing to tell this host any more."""
    foreign = tombstone(4, ("c", "d"))
    script: Script = {
        ("b", Heartbeat): [answer((KEY, foreign))],
        ("a", Absorb): [calls.Absorbed(None, None)],
        ("b", Confirm): [all_confirmed()],
    }
    assert run_beat(script).calls(Confirm)[0][1].digests == (digest(KEY, foreign),)


def test_many_hints_leave_others_their_turn() -> None:
    """After every few of them."""
    keys = [number.to_bytes(16) for number in range(3 * PIECE_MAX)]
    script: Script = {
        ("b", Heartbeat): [answer(*((key, record()) for key in keys))],
        ("a", Absorb): [held(record(), key) for key in keys],
        ("b", Confirm): [all_confirmed()],
    }
    played = run_beat(script)
    assert played.outcome == Heard(B, OTHERS, told_all=True)
    assert played.waited == [0.0, 0.0]


@pytest.mark.parametrize("failed", [calls.Full(), calls.Broken(), calls.Unreachable("down")])
def test_a_hint_that_cannot_be_stored_holds_back_the_lease(failed: calls.Reply) -> None:
    """The peer is alive, but this host does not know all that it had to tell; the other hints are confirmed."""
    kept = record(3, 1)
    script: Script = {
        ("b", Heartbeat): [answer((KEY, record()), (KEY2, kept))],
        ("a", Absorb): [failed, held(kept, KEY2)],
        ("b", Confirm): [all_confirmed()],
    }
    played = run_beat(script)
    assert played.outcome == Heard(B, OTHERS, told_all=False)
    assert played.calls(Confirm) == [("b", Confirm((digest(KEY2, kept),)))]


def test_a_hint_whose_second_step_cannot_be_stored_is_not_confirmed() -> None:
    """Full between the first step and the last: nothing is confirmed that is not held."""
    script: Script = {
        ("b", Heartbeat): [answer((KEY, record()))],
        ("a", Absorb): [held(record(3), better=record(3)), calls.Full()],
        ("b", Absorb): [held(record(3, 2), better=record(3, 2))],
    }
    assert run_beat(script).outcome == Heard(B, OTHERS, told_all=False)


def test_a_confirmation_that_is_lost_holds_back_the_lease() -> None:
    """The hints are still there: they come again."""
    script: Script = {
        ("b", Heartbeat): [answer((KEY, record()))],
        ("a", Absorb): [held(record())],
        ("b", Confirm): [SILENT],
    }
    assert run_beat(script).outcome == Heard(B, OTHERS, told_all=False)


def test_more_hints_than_one_answer_carries_are_asked_for_at_once() -> None:
    """Until none is left: a lease needs all of them."""
    script: Script = {
        ("b", Heartbeat): [answer((KEY, record()), pending=1), answer((KEY2, record()))],
        ("a", Absorb): [held(record()), held(record(), KEY2)],
        ("b", Confirm): [all_confirmed(), all_confirmed()],
    }
    assert run_beat(script).outcome == Heard(B, OTHERS, told_all=True)


def test_hints_without_end_don_t_keep_a_heartbeat_for_ever() -> None:
    """The peer is heard after a number of rounds, without a lease; the rest waits for the next heartbeat."""
    script: Script = {
        ("b", Heartbeat): [answer((KEY, record()), pending=1)] * HINT_ROUNDS_MAX,
        ("a", Absorb): held(record()),
        ("b", Confirm): all_confirmed(),
    }
    assert run_beat(script).outcome == Heard(B, OTHERS, told_all=False)


# --- sync --------------------------------------------------------------------------------------------------------------------

DONE = calls.Listed((), None)


def listed(*records: tuple[Key, Record]) -> calls.Listed:
    return calls.Listed(tuple(digest(key, each) for key, each in records), records[-1][0])


def run_sync(script: Script, seen: View = EVERYBODY, share: float = 1.0) -> Played[bool]:
    """By a clock that goes on by a second at each look."""
    clock = itertools.count()
    return play(sync(lambda: seen, lambda owners: None, Pace(lambda: next(clock), lambda: share)), script)


def test_a_node_without_records_has_synced() -> None:
    """There is nothing to confirm."""
    assert run_sync({("a", Inventory): [DONE]}).outcome is True


@pytest.mark.parametrize(("share", "rests"), [(1.0, [0.0, 0.0]), (0.25, [3.0, 3.0])])
def test_a_comparison_that_is_not_urgent_leaves_time_to_requests(share: float, rests: list[float]) -> None:
    """After each batch it rests for as long as its share of the time has it."""
    script: Script = {
        ("a", Inventory): [listed((KEY, record())), listed((KEY2, record())), DONE],
        ("b", Confirm): [all_confirmed(), all_confirmed()],
    }
    played = run_sync(script, share=share)
    assert played.outcome is True
    assert played.waited == rests


def test_every_record_is_confirmed_with_its_other_owner_in_batches() -> None:
    """In the order of keys, one question to each owner for each batch."""
    script: Script = {
        ("a", Inventory): [listed((KEY2, record()), (KEY, record(1, 1, ("c", "a")))), listed((b"z" * 16, record())), DONE],
        ("b", Confirm): [all_confirmed(), all_confirmed()],
        ("c", Confirm): [all_confirmed()],
    }
    played = run_sync(script)
    assert played.outcome is True
    assert [call.after for _, call in played.calls(Inventory)] == [None, KEY, b"z" * 16]
    assert {call.limit for _, call in played.calls(Inventory)} == {SYNC_BATCH}
    assert played.calls(Confirm)[0] == ("b", Confirm((digest(KEY2, record()),)))


def test_a_sync_is_incomplete_while_an_owner_that_may_be_alive_is_silent() -> None:
    """The others are confirmed all the same; it is tried again later."""
    script: Script = {
        ("a", Inventory): [listed((KEY, record()), (KEY2, record(1, 1, ("c", "a")))), DONE],
        ("b", Confirm): [SILENT],
        ("c", Confirm): [all_confirmed()],
    }
    assert run_sync(script).outcome is False


def test_a_store_that_does_not_answer_is_no_sync() -> None:
    """Nobody knows what would have to be confirmed."""
    assert run_sync({("a", Inventory): [calls.Unreachable("down")]}).outcome is False


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_without_the_other_owner_everybody_is_asked_in_the_key_s_order(state: State) -> None:
    """Those that live, and never the dead one: who took over may have handed it on and left. Three of them keep the way."""
    seen = view("a", member("b", state), "c", "d", "e", "f")
    order = live_order(seen, KEY, without=("a", "b"))
    script: Script = {("a", Inventory): [listed((KEY, record())), DONE]}
    played = run_sync({**script, **{(name, Confirm): [all_confirmed()] for name in order}}, seen)
    assert played.outcome is True
    assert [(node, call.only_ask) for node, call in played.calls(Confirm)] == list(zip(order, [False] * 3 + [True], strict=True))


def test_a_single_copy_and_a_pointer_are_confirmed_too() -> None:
    """The one with everybody, the other with the owners that it names."""
    single = record(1, 1, ("a", None))
    order = live_order(EVERYBODY, KEY, without=("a",))
    script: Script = {("a", Inventory): [listed((KEY, single), (KEY2, pointer(2, ("b", "c")))), DONE]}
    played = run_sync({**script, **{(name, Confirm): all_confirmed() for name in order}})
    assert played.outcome is True
    digests = [(node, each) for node, call in played.calls(Confirm) for each in call.digests]
    assert {(node, digest(KEY, single)) for node in order} <= set(digests)
    assert {("b", digest(KEY2, pointer(2, ("b", "c")))), ("c", digest(KEY2, pointer(2, ("b", "c"))))} <= set(digests)


def test_copies_that_differ_meet() -> None:
    """The other owner's copy is taken here, or shown what is better; a sync does both."""
    theirs = record(2, 9, ("b", "a"))
    script: Script = {
        ("a", Inventory): [listed((KEY, record())), DONE],
        ("b", Confirm): [all_confirmed((KEY, theirs)), all_confirmed()],
        ("a", Absorb): [held(theirs)],
    }
    played = run_sync(script)
    assert played.outcome is True
    assert played.calls(Absorb) == [("a", Absorb(KEY, theirs, "b"))]


def test_the_other_owner_that_holds_nothing_gets_the_copy() -> None:
    """And when it holds it, the change of owners is settled here; the version it answers is what is held by both."""
    mine = record(2, 5, ("a", "b"))
    script: Script = {
        ("a", Inventory): [listed((KEY, mine)), DONE],
        ("b", Confirm): [all_confirmed((KEY, None))],
        ("a", Export): [calls.Exported(mine)],
        ("b", Put): [calls.Held(5)],
        ("a", Settle): [calls.Done()],
    }
    played = run_sync(script)
    assert played.outcome is True
    assert played.sent[-3:-1] == [("b", Put(KEY, mine)), ("a", Settle(KEY, 2, ("a", "b"), 5))]


def test_a_change_of_owners_that_a_sync_has_finished_is_known_to_both() -> None:
    """The master accepts it, then the backup is told, then the mark can go: as where a coordinator does it."""
    mine = pending(2, 5, ("a", "b"))
    script: Script = {
        ("a", Inventory): [listed((KEY, mine)), DONE],
        ("b", Confirm): [all_confirmed((KEY, None))],
        ("a", Export): [calls.Exported(mine)],
        ("b", Put): [calls.Held(5)],
        ("a", Settle): [calls.Done(), calls.Done()],
        ("b", Settle): [calls.Done()],
    }
    played = run_sync(script)
    assert played.outcome is True
    assert played.calls(Settle) == [
        ("a", Settle(KEY, 2, ("a", "b"), calls.NOTHING_HELD)),
        ("b", Settle(KEY, 2, ("a", "b"), 5)),
        ("a", Settle(KEY, 2, ("a", "b"), 5)),
    ]


@pytest.mark.parametrize("word", [calls.Conflict(3, ("b", "c")), SILENT])
def test_a_backup_that_restores_its_master_concludes_nothing_by_itself(word: calls.Reply) -> None:
    """The master may have moved on before it lost its files: without its word a pending copy stays pending."""
    mine = pending(2, 5, ("b", "a"))
    script: Script = {
        ("a", Inventory): [listed((KEY, mine)), DONE],
        ("b", Confirm): [all_confirmed((KEY, None))],
        ("a", Export): [calls.Exported(mine)],
        ("b", Put): [calls.Held(5)],
        ("b", Settle): [word],
    }
    assert [node for node, _ in run_sync(script).calls(Settle)] == ["b"]


def test_a_copy_that_is_not_taken_is_not_settled() -> None:
    """The next write or sync tries again."""
    script: Script = {
        ("a", Inventory): [listed((KEY, record())), DONE],
        ("b", Confirm): [all_confirmed((KEY, None))],
        ("a", Export): [calls.Exported(record())],
        ("b", Put): [calls.Conflict(3, ("b", "c"))],
    }
    assert run_sync(script).outcome is True


@pytest.mark.parametrize("now", [calls.Exported(None), calls.Exported(pointer()), calls.Unreachable("down")])
def test_what_is_no_copy_any_more_is_given_to_nobody(now: calls.Reply) -> None:
    """It was dropped or handed over while the question was on its way."""
    script: Script = {
        ("a", Inventory): [listed((KEY, record())), DONE],
        ("b", Confirm): [all_confirmed((KEY, None))],
        ("a", Export): [now],
    }
    assert run_sync(script).outcome is True


def test_a_witness_that_holds_nothing_gets_nothing() -> None:
    """It is no owner; that it was asked is enough for it to keep a pointer."""
    seen = view("a", member("b", State.DEAD), "c")
    script: Script = {("a", Inventory): [listed((KEY, tombstone())), DONE], ("c", Confirm): [all_confirmed((KEY, None))]}
    assert run_sync(script, seen).outcome is True
