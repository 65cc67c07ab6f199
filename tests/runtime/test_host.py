"""The local node: rules over the store. What the store cannot do is a reply, never an exception and never an empty session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clustersession.core import calls
from clustersession.core.calls import Call
from clustersession.core.expiry import Overdue
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member, State
from clustersession.core.record import Ending, Lifetime, Record, decode_record, digest, encode_record, live_items
from clustersession.core.repair import SINGLE
from clustersession.core.sealing import Sealer
from clustersession.core.session_id import node_tag
from clustersession.errors import Corrupt, ShardDown, StoreFull, StoreRefused
from clustersession.ports import Change
from clustersession.runtime.board import EMPTY, NAME, Board, decode_board, write_board
from clustersession.runtime.cache import BoundedCache
from clustersession.runtime.host import AT_REST
from clustersession.runtime.keys import CurrentSealer
from clustersession.runtime.singles import unmark
from clustersession.store.memory import MemoryStore

from ..core.records import KEY, item, member, patch, pointer, record, tombstone
from .hosts import RING, SEALER, START, TIMEOUTS, Clock, Fixture

KEY2, KEY3 = b"2" * 16, b"3" * 16
LIVE = record(1, 3)


@pytest.fixture
def at() -> Fixture:
    fixture = Fixture()
    fixture.board(member("a"), member("b"), leases=("b",))
    return fixture


def test_a_copy_is_not_vouched_for_to_who_counts_as_dead(at: Fixture) -> None:
    """The dead don't ask: this host was cut off, and has not been told yet that others have ended the session."""
    single = record(2, owners=("a", None))
    at.hold(KEY, single)
    at.board(member("a"), member("b", State.DEAD), member("c"))
    assert at.host.handle(calls.Fetch(KEY, 1.0), "c") == calls.Found(single, serving=True)
    assert at.host.handle(calls.Fetch(KEY, 1.0), "b") == calls.Found(single, serving=False)
    at.board(member("a"), member("b"), member("c"))
    assert at.host.handle(calls.Fetch(KEY, 1.0), "b") == calls.Found(single, serving=True)


def test_a_session_with_one_owner_is_marked_until_it_has_two(at: Fixture) -> None:
    """Whoever writes it so, in whatever process; the mark of a session that is single again stays."""
    at.host.handle(calls.Put(KEY, record(1, owners=("a", None))))
    at.host.handle(calls.Put(KEY2, LIVE))
    assert [key for key, _ in at.store.hints(SINGLE, 9)] == [KEY]
    assert not unmark(at.host, KEY)
    assert at.store.hint_count(SINGLE) == 1
    at.host.handle(calls.Promote(KEY, 1, ("a", "b"), None))
    assert unmark(at.host, KEY)
    assert unmark(at.host, KEY3)
    assert at.store.hint_count(SINGLE) == 0


# --- calls about one record --------------------------------------------------------------------------------------------------


def test_a_record_is_stored_sealed_and_read_again(at: Fixture) -> None:
    """What is at rest shows no value, and is bound to its key."""
    assert at.host.handle(calls.Put(KEY, LIVE)) == calls.Held(3)
    data = at.store.read(KEY)
    assert data is not None
    assert encode_record(LIVE) not in data
    assert at.host.record(KEY) == LIVE
    with pytest.raises(Corrupt):
        SEALER.open(AT_REST, KEY2, data)


def test_what_a_former_key_has_sealed_is_sealed_anew_by_a_survey(at: Fixture) -> None:
    """So that it can be read when that key is gone from the ring; nothing else of it changes, and a broken one stays broken."""
    held = {KEY: LIVE, KEY2: tombstone(), KEY3: pointer(4, ("b", "c"))}
    for key, kept in held.items():
        sealed = SEALER.seal(AT_REST, key, encode_record(kept), b"0" * 12, kid=1)
        at.store.change(key, lambda _, sealed=sealed: Change(None, sealed, due=float("inf"), hint=("b",)))  # type: ignore[misc]
    at.spoil(b"4" * 16)
    assert dict(at.host.survey(None, 10)) == {**held, b"4" * 16: None}
    later = Sealer(KeyRing.parse("2:Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi"), "test")
    for key, kept in held.items():
        data = at.store.read(key)
        assert data is not None
        assert decode_record(later.open(AT_REST, key, data)) == kept
        assert at.store.hinted("b", key)


def test_a_lease_on_the_board_lets_a_copy_be_served(at: Fixture) -> None:
    """Until it runs out."""
    at.hold(KEY, LIVE)
    assert at.host.handle(calls.Fetch(KEY, 1.0)) == calls.Found(LIVE, serving=True)
    at.clock.now += 1.5
    assert at.host.handle(calls.Fetch(KEY, 1.0)) == calls.Found(LIVE, serving=False)


def test_a_board_that_is_not_renewed_is_not_believed(at: Fixture) -> None:
    """The node process may be paused: what it would have learnt is missing."""
    at.hold(KEY, LIVE)
    at.clock.now += TIMEOUTS.lease_s - 0.001
    assert isinstance(at.host.handle(calls.Fetch(KEY, 1.0)), calls.Found)
    at.clock.now += 0.001
    assert at.host.handle(calls.Fetch(KEY, 1.0)) == calls.Later()
    assert not at.host.situation().synced


def test_before_a_node_process_has_written_a_board_nothing_is_known() -> None:
    """No members, not synced, nothing served."""
    fresh = Fixture()
    assert (fresh.host.board, dict(fresh.host.view.members), fresh.host.view.converged) == (EMPTY, {}, False)
    assert fresh.host.handle(calls.Fetch(KEY, 0.0)) == calls.Later()


def test_a_hint_in_the_store_is_the_mark_of_a_write_that_the_other_may_lack(at: Fixture) -> None:
    """Set in the transaction that numbers it, taken away when both are known to hold it (finding F8)."""
    at.hold(KEY, LIVE)
    at.host.handle(calls.Apply(KEY, 1, patch(1, x=b"2")))
    found = at.host.handle(calls.Fetch(KEY, 1.0))
    assert isinstance(found, calls.Found)
    assert (found.serving, found.unheld, live_items(found.record)) == (False, True, {"x": b"2"})
    assert at.store.hint_count("b") == 1
    at.host.handle(calls.Settle(KEY, 1, ("a", "b"), 4))
    assert at.host.handle(calls.Fetch(KEY, 1.0)) == calls.Found(found.record, serving=True)
    assert at.store.hint_count("b") == 0


def test_who_asks_is_handed_on_to_the_rules(at: Fixture) -> None:
    """A pending change is accepted when its new backup shows the same."""
    change = record(2, 3, accepted=False, base=1)
    at.hold(KEY, change)
    for source, settled in (("c", False), (None, False), ("b", True)):
        at.host.handle(calls.Absorb(KEY, change), source)
        stored = at.host.record(KEY)
        assert stored is not None
        assert stored.accepted is settled


def test_a_session_has_at_most_so_many_bytes() -> None:
    """The limit of the settings, and the old version stays."""
    small = Fixture(session_bytes_max=5)
    small.board(member("a"))
    small.hold(KEY, LIVE)
    assert small.host.handle(calls.Apply(KEY, 1, patch(1, x=b"12345"))) == calls.TooLarge("the session", 6, 5)
    assert small.host.record(KEY) == LIVE


def test_heartbeats_are_no_matter_of_the_workers(at: Fixture) -> None:
    """Only the node process keeps a member table."""
    assert at.host.handle(calls.Heartbeat(member("b"), (), 0.0)) == calls.Later()


# --- what the store cannot do ------------------------------------------------------------------------------------------------


class Failing(MemoryStore):
    """A store whose changes and reads fail."""

    def __init__(self, error: Exception, clock: Clock) -> None:
        super().__init__(now=clock)
        self.error: Exception | None = error

    def change(self, key: bytes, rule: Callable[[bytes | None], Change]) -> Any:
        raise self.error or AssertionError


@pytest.mark.parametrize(
    ("error", "reply", "counted"),
    [
        (StoreFull("no room"), calls.Full(), "store_full"),
        (ShardDown(3, 42), calls.Unreachable("down"), "shard_down"),
        (StoreRefused("files of another boot"), calls.Unreachable("down"), "shard_down"),
        (Corrupt("broken"), calls.Broken(), "record_broken"),
    ],
)
def test_what_the_store_cannot_do_is_a_reply_and_counted(error: Exception, reply: calls.Reply, counted: str) -> None:
    """So that others take over: full, stopped or broken is nothing that a caller must catch."""
    fixture = Fixture(store=Failing(error, Clock()))
    assert fixture.host.handle(calls.Touch(KEY)) == reply
    assert fixture.counters.snapshot() == {counted: 1}


def test_a_full_store_refuses_what_it_cannot_hold() -> None:
    """For real, and what is there stays."""
    fixture = Fixture(store=MemoryStore(bytes_max=600, now=Clock()))
    fixture.board(member("a"))
    user = record(1, 3, ("a", None), principal="u")
    assert fixture.host.handle(calls.Put(KEY, user)) == calls.Held(3)
    big = user.but(items={"x": item(b"1" * 500)})
    assert fixture.host.handle(calls.Put(KEY2, big)) == calls.Full()
    assert fixture.host.record(KEY) == user


# --- broken records ----------------------------------------------------------------------------------------------------------


def test_a_broken_record_is_neither_missing_nor_empty(at: Fixture) -> None:
    """Reads and writes of it say that it is broken: the other owner's copy may be whole."""
    at.spoil(KEY)
    asked: list[Call] = [calls.Fetch(KEY, 1.0), calls.Apply(KEY, 1, patch()), calls.Touch(KEY), calls.Export(KEY)]
    for call in asked:
        assert at.host.handle(call) == calls.Broken()
    assert at.counters.of("record_broken") == len(asked)
    with pytest.raises(Corrupt):
        at.host.record(KEY)


def test_bytes_that_unseal_but_do_not_decode_are_broken_too(at: Fixture) -> None:
    """A record of a later release with another shape, say."""
    sealed = SEALER.seal(AT_REST, KEY, msgspec.msgpack.encode({"not": "a record"}), b"0" * 12)
    at.store.change(KEY, lambda _: Change(None, sealed, due=0.0))
    assert at.host.handle(calls.Fetch(KEY, 1.0)) == calls.Broken()


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (calls.Put(KEY, LIVE), calls.Held(3)),
        (calls.Absorb(KEY, LIVE, "b"), calls.Absorbed(None, digest(KEY, LIVE))),
        (calls.End(KEY, "logout", ("a", "b"), 1), calls.EndHeld(1, ("a", "b"))),
    ],
)
def test_a_broken_record_gives_way_to_the_other_s_copy_and_to_an_end(at: Fixture, call: Call, reply: calls.Reply) -> None:
    """It heals by being replaced, never by being taken for nothing."""
    at.spoil(KEY)
    assert at.host.handle(call) == reply
    assert at.counters.of("record_broken") == 1
    assert at.host.record(KEY) is not None


# --- calls about many --------------------------------------------------------------------------------------------------------


def test_confirm_names_the_differences_and_keeps_what_it_learns(at: Fixture) -> None:
    """Own copies that differ, what is missing here as None, and a pointer to what is others'."""
    at.hold(KEY, LIVE, "b")
    at.hold(KEY2, record(1, 3))
    others = record(5, 1, ("b", "c"))
    asked = calls.Confirm((digest(KEY, LIVE), digest(KEY2, record(1, 4)), digest(KEY3, others), digest(b"4" * 16, record(1, 1))))
    assert at.host.handle(asked, "b") == calls.Confirmed(((KEY2, record(1, 3)), (b"4" * 16, None)))
    assert not at.store.hinted("b", KEY)
    kept = at.host.record(KEY3)
    assert kept is not None
    assert (kept.pointer, kept.epoch, kept.owners) == (True, 5, ("b", "c"))


def test_confirm_is_answered_before_the_sync_too(at: Fixture) -> None:
    """Else two restarted owners would wait for each other."""
    at.board(member("a"))
    assert at.host.handle(calls.Confirm((digest(KEY, LIVE),)), "b") == calls.Confirmed(((KEY, None),))


def test_inventory_lists_in_steps_and_leaves_out_what_is_broken(at: Fixture) -> None:
    """In the order of keys; a broken record has nothing to compare, and does not stop the list."""
    at.hold(KEY2, LIVE)
    at.spoil(KEY3)
    at.hold(KEY, tombstone())
    assert at.host.handle(calls.Inventory(None, 2)) == calls.Listed((digest(KEY2, LIVE),), KEY3)
    assert at.host.handle(calls.Inventory(KEY3, 2)) == calls.Listed((digest(KEY, tombstone()),), KEY)
    assert at.host.handle(calls.Inventory(KEY, 2)) == calls.Listed((), None)
    assert at.counters.of("record_broken") == 1


def test_a_sweep_ends_what_has_expired_and_drops_what_is_old(at: Fixture) -> None:
    """Up to so many at a time; what is not due is not looked at, and nothing at all before the host has synced."""
    at.host.handle(calls.Put(KEY, record(owners=("a", None), lifetime=Lifetime(None, START + 100))))
    at.host.handle(calls.Put(KEY2, record(owners=("a", None), lifetime=Lifetime(None, START + 100))))
    at.host.handle(calls.Put(KEY3, record()))
    assert at.host.sweep(10) == (0, [])
    at.clock.now += 120
    assert at.host.sweep(10) == (0, []), "it has not synced"
    at.board(member("a"), tick=at.clock.now)
    assert [at.host.sweep(1), at.host.sweep(1), at.host.sweep(1)] == [(1, []), (1, []), (0, [])]
    expired = at.host.record(KEY)
    assert expired is not None
    assert expired.ended == Ending("expired: absolute", START + 120)
    at.clock.now += 26 * 3600
    at.board(member("a"), tick=at.clock.now)
    assert at.host.sweep(10) == (3, [])
    assert (at.host.record(KEY), at.host.record(KEY2)) == (None, None)
    assert at.host.record(KEY3) == record()


def test_a_sweep_says_what_has_to_be_ended_with_its_other_owner(at: Fixture) -> None:
    """Once, and again after a minute: until then an answer may come."""
    shared = record(lifetime=Lifetime(None, START + 100))
    at.host.handle(calls.Put(KEY, shared))
    for wait, overdue in ((120, True), (30, False), (35, True)):
        at.clock.now += wait
        at.board(member("a"), tick=at.clock.now)
        expected = [Overdue(KEY, shared, "expired: absolute")] if overdue else []
        assert at.host.sweep(10) == (len(expected), expected)


def test_visitors_who_come_and_go_do_not_keep_a_user_out() -> None:
    """However many sessions of nobody have ended within a day, a login finds room; the logout of a user stays."""
    at, life = Fixture(bytes_max=40_000), Lifetime(60.0)
    clock = at.clock
    at.board(member("a"))
    at.host.handle(calls.Put(b"logged out".ljust(16), record(owners=("a", None), principal="u", lifetime=life)))
    at.host.handle(calls.End(b"logged out".ljust(16), "logout", ("a", None), 1))
    refused = 0
    for hour in range(20):
        for visitor in range(20):
            key = f"{hour} {visitor}".encode().ljust(16)
            new = record(owners=("a", None), lifetime=life, created=clock.now, last_seen=clock.now)
            refused += at.host.handle(calls.Put(key, new)) != calls.Held(1)
        clock.now += 3600
        at.board(member("a"), tick=clock.now)
        while at.host.sweep(10)[0]:
            pass
    login = record(owners=("a", None), principal="u", created=clock.now, last_seen=clock.now)
    assert (refused, at.host.handle(calls.Put(KEY, login))) == (0, calls.Held(1))
    assert at.store.stats().entries < 300, "all of them would have fitted"
    logged_out = at.host.record(b"logged out".ljust(16))
    assert logged_out is not None
    assert logged_out.ended is not None


def test_a_hint_that_has_nothing_to_tell_can_be_dropped(at: Fixture) -> None:
    """The record stays as it is."""
    at.hold(KEY, LIVE, "b", "c")
    at.host.unhint("b", KEY)
    assert (at.store.hint_count("b"), at.store.hint_count("c"), at.host.record(KEY)) == (0, 1, LIVE)


# --- what the node process knows ---------------------------------------------------------------------------------------------


def test_the_view_is_that_of_the_board(at: Fixture) -> None:
    """The same object until the board's members change, then a new one."""
    view = at.host.view
    assert (set(view.members), view.me, view.converged) == ({"a", "b"}, "a", True)
    assert at.host.view is view
    at.board(member("a"), member("c"))
    assert set(at.host.view.members) == {"a", "c"}


def tag(who: Member, kid: int) -> str:
    key = RING.get(kid)
    assert key is not None
    return node_tag(key, who.identity, who.port)


def test_an_owner_s_tag_is_looked_up_among_the_members(at: Fixture) -> None:
    """By the identity's half, so that a changed port does not lose a session; unknown tags and keys name nobody."""
    assert at.host.view.members
    for kid in (1, 2):
        assert at.host.owner_of(RING, kid, tag(member("b"), kid)) == "b"
        assert at.host.owner_of(RING, kid, tag(member("b", port=7), kid)) == "b"
        assert at.host.owner_of(RING, kid, tag(member("z"), kid)) is None
    assert at.host.owner_of(RING, 1, tag(member("b"), 2)) is None
    assert at.host.owner_of(RING, 9, tag(member("b"), 1)) is None


def test_tags_follow_the_members(at: Fixture) -> None:
    """Who joins is found, who is not there any more is not."""
    assert at.host.view.members
    assert at.host.owner_of(RING, 1, tag(member("c"), 1)) is None
    at.board(member("a"), member("c", State.DEAD))
    assert at.host.view.members
    assert at.host.owner_of(RING, 1, tag(member("c"), 1)) == "c"
    assert at.host.owner_of(RING, 1, tag(member("b"), 1)) is None


def test_a_record_is_decoded_once_until_its_bytes_change(at: Fixture) -> None:
    """The same object is handed out, so that what is made of it can be kept beside it."""
    at.host.handle(calls.Put(KEY, LIVE))
    first = at.host.record(KEY)
    assert at.host.record(KEY) is first
    at.hold(KEY, record(1, 9))  # another process has written it
    assert at.host.record(KEY) == record(1, 9)
    assert at.host.record(KEY2) is None


def test_the_board_survives_its_bytes() -> None:
    """Members, leases and all; a later release may append fields."""
    store = MemoryStore(now=Clock())
    board = Board((member("a"), member("b", State.LEFT)), {"b": 5.0}, True, 4.0, True, 3, 2)
    write_board(store, board)
    data = store.board(NAME)
    assert data is not None
    assert decode_board(data) == board
    assert decode_board(msgspec.msgpack.encode([*msgspec.msgpack.decode(data), "later"])) == board


# --- small parts -------------------------------------------------------------------------------------------------------------


def test_a_cache_is_bounded_and_keeps_the_newest() -> None:
    """Half of it goes at once when it is full."""
    cache: BoundedCache[int, str] = BoundedCache(4)
    for number in range(6):
        cache.put(number, str(number))
    assert [cache.get(number) for number in range(6)] == [None, None, "2", "3", "4", "5"]
    cache.drop(5)
    cache.drop(5)
    assert cache.get(5) is None
    cache.clear()
    assert cache.get(4) is None


def test_a_changed_ring_makes_a_new_sealer() -> None:
    """And an unchanged one does not; what the old key sealed stays readable while it is in the ring."""
    ring = KeyRing.parse("1:pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a")
    current = CurrentSealer(lambda: ring, "test")
    first = current()
    assert current() is first
    sealed = first.seal(AT_REST, KEY, b"data", b"0" * 12)
    ring = RING
    second = current()
    assert second is not first
    assert isinstance(second, Sealer)
    assert second.open(AT_REST, KEY, sealed) == b"data"
    assert second.seal(AT_REST, KEY, b"data", b"0" * 12)[0] == 2


def test_pointers_are_kept_and_answered(at: Fixture) -> None:
    """Across the store, as data never."""
    at.hold(KEY, pointer(4))
    assert at.host.handle(calls.Fetch(KEY, 1.0)) == calls.Moved(4, ("b", "c"))
    stored: Record | None = at.host.record(KEY)
    assert stored == pointer(4)


def test_calls_of_one_message_are_carried_out_each_by_itself(at: Fixture) -> None:
    """With the replies that each would have had alone, also about one session one after the other."""
    at.hold(KEY, LIVE, "b")
    at.spoil(KEY2)
    others = record(5, 1, ("b", "c"))
    asked = calls.Many(
        (
            calls.Put(KEY3, record(1, 4)),
            calls.Export(KEY3),
            calls.Touch(KEY2),
            calls.Settle(KEY3, 1, ("a", "b"), 4),
            calls.Confirm((digest(KEY, LIVE), digest(b"4" * 16, others))),
            calls.Put(KEY2, record(1, 7)),
            calls.Fetch(KEY2, 0.0),
            calls.Export(b"5" * 16),
        )
    )
    assert at.host.handle(asked, "b") == calls.Each(
        (
            calls.Held(4),
            calls.Exported(record(1, 4)),
            calls.Broken(),
            calls.Done(),
            calls.Confirmed(()),
            calls.Held(7),
            calls.Found(record(1, 7), serving=True),
            calls.Exported(None),
        )
    )
    assert not at.store.hinted("b", KEY)
    assert at.host.record(b"4" * 16) == pointer(5, ("b", "c"), 0, last_seen=at.clock.now, created=0.0, principal="")
    assert at.host.record(KEY2) == record(1, 7)


@pytest.mark.parametrize(
    ("error", "reply", "counted"),
    [
        (StoreFull("no room"), calls.Full(), "store_full"),
        (ShardDown(3, 42), calls.Unreachable("down"), "shard_down"),
        (Corrupt("broken"), calls.Broken(), "record_broken"),
    ],
)
def test_what_the_store_cannot_do_is_a_reply_among_others(error: Exception, reply: calls.Reply, counted: str) -> None:
    """One for each call, as alone: the other calls of a message have their own fate."""
    fixture = Fixture(store=Failing(error, Clock()))
    assert fixture.host.handle(calls.Many((calls.Touch(KEY), calls.Export(KEY2), calls.Touch(KEY2)))) == calls.Each(
        (reply, calls.Exported(None), reply)  # type: ignore[arg-type]
    )
    assert fixture.counters.snapshot() == {counted: 2}


def test_a_confirmation_of_what_the_store_cannot_read_is_none() -> None:
    """Neither alike nor unlike: whoever asks must ask again."""
    fixture = Fixture(store=Failing(ShardDown(3, 42), Clock()))
    assert fixture.host.handle(calls.Confirm((digest(KEY, LIVE),)), "b") == calls.Unreachable("down")
