"""All sessions of a user: listed from every host, ended on every host, also on those that hear of it late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

from clustersession.core import calls
from clustersession.core.bars import REASON
from clustersession.core.graces import AT_ONCE_MAX
from clustersession.core.keyring import KeyRing
from clustersession.core.record import DEVICE, SOMEBODY, Key, Record
from clustersession.core.replica.ends import TOMBSTONE_KEPT_S
from clustersession.core.sealing import Sealer
from clustersession.core.upkeep import barred
from clustersession.errors import LateWrite, LoginTooOld, SessionUnavailable, TooManySessions, ValueNotSupported
from clustersession.runtime.board import write_board
from clustersession.runtime.budget import Budget
from clustersession.runtime.engine import Engine
from clustersession.runtime.session import RequestSession
from clustersession.testing.in_process import SECRET, InProcessCluster, InProcessNode
from tests.runtime.test_pipeline import Clock, read, save, visit, write

OWN = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "Firefox"}
SCOPE = {"type": "http", "client": ("192.0.2.8", 5000), "headers": [(b"cookie", b"x=y"), (b"user-agent", b"Safari")]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(clock: Clock) -> InProcessCluster:
    return InProcessCluster(clock=clock)


def login(engine: Engine, user: str, cookie: str | None = None, origin: Any = OWN) -> str:
    """A login; the cookie of it."""
    made = visit(engine, cookie)
    made.origin = origin
    made.session["_user_id"] = user
    save(engine, made)
    return made.headers().cookies[0].partition(";")[0]


def handle(engine: Engine, cookie: str) -> str:
    found = visit(engine, cookie).session.id
    assert found is not None
    return found


def key_of(engine: Engine, cookie: str) -> Key:
    return bytes.fromhex(handle(engine, cookie))


def held(cluster: InProcessCluster, key: Key) -> dict[str, Record]:
    found = {node.name: node.host.record(key) for node in cluster}
    return {name: record for name, record in found.items() if record is not None}


def alive(cluster: InProcessCluster, *cookies: str) -> list[bool]:
    """Whether each still holds a session, on every host."""
    shown = [[bool(read(engine, cookie)) for engine in cluster.engines()] for cookie in cookies]
    assert all(len(set(each)) == 1 for each in shown), shown
    return [each[0] for each in shown]


# --- the list --------------------------------------------------------------------------------------------------------------


def test_sessions_are_listed_from_every_host(cluster: InProcessCluster, clock: Clock) -> None:
    """Wherever they are kept, each once, the latest login first, with what is known of it; other users' are not among them."""
    a, b, c = cluster.engines()
    first = login(a, "7", write(a, cart=1))
    clock.now += 60
    second = login(b, "7", origin=SCOPE)
    login(c, "8")
    write(c, nobody="logged in")
    clock.now += 1
    for engine in cluster.engines():
        found = engine.users.sessions_of("7")
        assert [each.id for each in found] == [handle(b, second), handle(a, first)]
        assert [(each.login_age_s, each.address, each.user_agent) for each in found] == [
            (1.0, "192.0.2.8", "Safari"),
            (61.0, "192.0.2.7", "Firefox"),
        ]
    assert len(a.users.sessions_of("8")) == 1
    assert a.users.sessions_of("9") == []


def test_users_are_named_by_text_and_numbers(cluster: InProcessCluster) -> None:
    """As the session holds them: 7 and "7" are one user. Anything else is a mistake, and so is nobody."""
    users = cluster["a"].engine.users
    login(cluster["a"].engine, "7")
    login(cluster["a"].engine, "12345678-1234-5678-1234-567812345678")
    assert len(users.sessions_of(7)) == len(users.sessions_of(UUID("12345678-1234-5678-1234-567812345678"))) == 1
    for wrong in (None, True, b"7", {"sub": "7"}):
        with pytest.raises(TypeError, match="pass its id"):
            users.sessions_of(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nobody"):
        users.sessions_of("")


def test_a_user_may_be_named_like_nobody_else(clock: Clock) -> None:
    """A name that begins with a zero character, as those of our own records do, or that is very long: such a user has sessions
    like any other, which are listed, limited and ended."""
    cluster = InProcessCluster(clock=clock, user_sessions_max=2)
    a, b, c = cluster.engines()
    for name in ("\0x", "\0", "\0canary", "x" * 60_000):
        cookies = []
        for engine in (a, b, c):
            clock.now += 1
            cookies.append(login(engine, name))
        assert alive(cluster, *cookies) == [False, True, True]
        assert read(a, cookies[2]) == {"_user_id": name}
        assert len(b.users.sessions_of(name)) == 2
        assert c.users.end_all(name) == 2
        assert alive(cluster, *cookies) == [False] * 3


def test_nobody_is_named_by_what_no_session_can_hold(cluster: InProcessCluster) -> None:
    """Text with lone surrogates is refused at the login, so who asks for such a user finds none."""
    a = cluster["a"].engine
    with pytest.raises(ValueNotSupported, match="lone surrogates"):
        login(a, "\ud800")
    assert (a.users.sessions_of("\ud800"), a.users.end_all("\ud800")) == ([], 0)


def test_ended_expired_and_handed_over_sessions_are_not_listed(cluster: InProcessCluster, clock: Clock) -> None:
    """The index of each host follows what becomes of a session."""
    a = cluster["a"].engine
    out, rotated, idle = login(a, "7"), login(a, "7"), login(a, "7")
    ending = visit(a, out)
    ending.session.end()
    save(a, ending)
    again = visit(a, rotated)
    again.session.rotate()
    save(a, again)
    clock.now += 1700.0
    kept = again.headers().cookies[0].partition(";")[0]
    write(a, kept, seen=1)
    clock.now += 300.0
    assert [each.id for each in a.users.sessions_of("7")] == [handle(a, kept)]
    assert read(a, idle) == {}


def test_one_silent_node_hides_nothing_two_may(cluster: InProcessCluster) -> None:
    """Every session has two owners; when two hosts give no answer the list is unknown, not short."""
    a = cluster["a"].engine
    cookies = [login(engine, "7") for engine in cluster.engines()]
    cluster.paused("c")
    assert sorted(each.id for each in a.users.sessions_of("7")) == sorted(handle(a, cookie) for cookie in cookies)
    cluster.paused("b")
    with pytest.raises(SessionUnavailable, match="b, c gave no answer"):
        a.users.sessions_of("7")


def test_devices_are_kept_only_if_wanted() -> None:
    """CLUSTERSESSION_DEVICES=0: neither address nor browser is stored."""
    cluster = InProcessCluster(devices=False)
    a = cluster["a"].engine
    cookie = login(a, "7")
    [only] = a.users.sessions_of("7")
    assert (only.address, only.user_agent) == ("", "")
    assert all(DEVICE not in record.extra for record in held(cluster, key_of(a, cookie)).values())


def test_a_device_stays_with_its_login(cluster: InProcessCluster) -> None:
    """A new ID for the same login keeps it, another user's login replaces it, a logout by emptying the user drops it."""
    a = cluster["a"].engine
    cookie = login(a, "7")
    again = visit(a, cookie)
    again.session.rotate()
    save(a, again)
    [kept] = a.users.sessions_of("7")
    assert kept.address == "192.0.2.7"
    cookie = login(a, "8", again.headers().cookies[0].partition(";")[0], origin=SCOPE)
    assert [each.address for each in a.users.sessions_of("8")] == ["192.0.2.8"]
    nobody = visit(a, cookie)
    nobody.session["cart"] = 1
    del nobody.session["_user_id"]
    save(a, nobody)
    [record] = {r.version: r for r in held(cluster, key_of(a, nobody.headers().cookies[0].partition(";")[0])).values()}.values()
    assert DEVICE not in record.extra


# --- the end of all ----------------------------------------------------------------------------------------------------------


def test_logged_out_everywhere(cluster: InProcessCluster, clock: Clock) -> None:
    """Every session of the user is gone on every host; those of others, and later logins, are not touched."""
    a, b, c = cluster.engines()
    theirs = [login(engine, "7") for engine in (a, b, c, a)]
    others = [login(b, "8"), write(c, cart=1)]
    assert b.users.end_all("7") == 4
    clock.now += 0.001
    later = login(c, "7")
    assert alive(cluster, *theirs) == [False] * 4
    assert alive(cluster, *others, later) == [True] * 3
    assert len(a.users.sessions_of("7")) == 1
    assert b.users.end_all("9") == 0


def test_nothing_of_the_user_is_kept(cluster: InProcessCluster) -> None:
    """A tombstone of it has neither values nor device nor name."""
    a = cluster["a"].engine
    cookie = login(a, "7", write(a, secret="x"))
    key = key_of(a, cookie)
    a.users.end_all("7")
    for record in held(cluster, key).values():
        assert record.ended is not None
        assert record.ended.reason == REASON
        assert (record.items, record.extra, record.principal) == ({}, {}, SOMEBODY)


def test_all_but_this_one(cluster: InProcessCluster, clock: Clock) -> None:
    """The spared session goes on, also under the IDs that it gets later, and when its copies move; a new login of it ends with
    the next call that does not spare it."""
    a, b, c = cluster.engines()
    mine, other = login(a, "7"), login(b, "7")
    assert a.users.end_all("7", except_=handle(a, mine)) == 1
    assert alive(cluster, mine, other) == [True, False]
    for engine in (b, c, a):
        turned = visit(engine, mine)
        turned.session.rotate()
        save(engine, turned)
        mine = turned.headers().cookies[0].partition(";")[0]
        assert alive(cluster, mine) == [True]
    clock.now += 0.001
    again = login(c, "7")
    assert b.users.end_all("7", except_=handle(a, mine)) == 1
    assert alive(cluster, mine, again) == [True, False]
    assert c.users.end_all("7") == 1
    assert alive(cluster, mine) == [False]


@pytest.mark.parametrize("wrong", ["", "x", "00ff", "g" * 32])
def test_only_a_handle_is_spared(cluster: InProcessCluster, wrong: str) -> None:
    """What is none is a mistake that ends nothing."""
    a = cluster["a"].engine
    cookie = login(a, "7")
    with pytest.raises(ValueError, match=r"pass session\.id"):
        a.users.end_all("7", except_=wrong)
    assert alive(cluster, cookie) == [True]


def test_to_spare_what_is_not_the_user_s_ends_all(cluster: InProcessCluster) -> None:
    """Somebody else's handle saves nobody."""
    a = cluster["a"].engine
    mine, other = login(a, "7"), login(a, "8")
    a.users.end_all("7", except_=handle(a, other))
    assert alive(cluster, mine, other) == [False, True]


def test_a_session_that_cannot_be_found_is_not_spared_by_halves(cluster: InProcessCluster) -> None:
    """Whoever has it gives no answer: spared under its present ID alone it would end with its next one."""
    a = cluster["a"].engine
    cookie = login(a, "7")
    cluster.dead("b", "c")
    lonely = login(a, "7")
    cluster.back("b", "c")
    cluster.paused("a")
    b = cluster["b"].engine
    with pytest.raises(SessionUnavailable, match="a gave no answer"):
        b.users.end_all("7", except_=handle(a, lonely))
    cluster.back("a")
    b.users.end_all("7", except_=handle(a, lonely))
    assert alive(cluster, cookie, lonely) == [False, True]


def test_two_nodes_must_take_it(cluster: InProcessCluster) -> None:
    """Fewer is no ack; the order to end may be given again."""
    a = cluster["a"].engine
    cookie = login(a, "7")
    cluster.paused("b", "c")
    with pytest.raises(SessionUnavailable, match="fewer than two"):
        a.users.end_all("7")
    cluster.back("b", "c")
    a.users.end_all("7")
    assert alive(cluster, cookie) == [False]


def test_a_host_alone_is_enough(cluster: InProcessCluster) -> None:
    """Where all others are known to be gone there is nobody else to tell."""
    a = cluster["a"].engine
    cookie = login(a, "7")
    cluster.dead("b", "c")
    assert a.users.end_all("7") == 1
    assert read(a, cookie) == {}


# --- who hears of it late ----------------------------------------------------------------------------------------------------


def late_pair(cluster: InProcessCluster) -> tuple[str, Key]:
    """A session of user 7 that only b and c hold, and a's order to end it that neither has heard, as both were down."""
    b, c = cluster["b"].engine, cluster["c"].engine
    cookie = next(made for made in (login(b, "7") for _ in range(50)) if set(held(cluster, key_of(b, made))) == {"b", "c"})
    key = key_of(c, cookie)
    cluster.dead("b", "c")
    cluster["a"].engine.users.end_all("7")
    cluster.back("b", "c")
    assert read(b, cookie)["_user_id"] == "7", "the fault did not happen: it was told"
    return cookie, key


def told(cluster: InProcessCluster, name: str, by: str) -> None:
    """What a heartbeat, or the beginning of a sync, does."""
    engine = cluster[name].engine
    assert engine.blocking.run(barred(name, by, cluster[name].host.bars.tally()), Budget(1.0))


def test_a_host_that_was_away_ends_what_it_holds_when_it_hears(cluster: InProcessCluster) -> None:
    """From anybody that knows the bar, no owner of the session among them."""
    cookie, _ = late_pair(cluster)
    assert cluster["b"].host.bars.tally().digest() != cluster["a"].host.bars.tally().digest()
    told(cluster, "b", "a")
    told(cluster, "c", "b")
    assert len({node.host.bars.tally().digest() for node in cluster}) == 1
    assert alive(cluster, cookie) == [False]


@pytest.mark.parametrize("call", [calls.Put, calls.Absorb])
def test_a_copy_that_comes_later_meets_the_bar(cluster: InProcessCluster, call: Callable[[Key, Record], calls.Call]) -> None:
    """Whoever brings a copy of before to a host that knows better leaves a tombstone there, and learns of it."""
    _, key = late_pair(cluster)
    stale = cluster["b"].host.record(key)
    assert stale is not None
    a = cluster["a"].host
    reply = a.handle(call(key, stale.but(epoch=stale.epoch + 1, base=stale.epoch, owners=("b", "a"), accepted=False)), "b")
    assert isinstance(reply, calls.Gone) or (isinstance(reply, calls.Absorbed) and reply.better is not None)
    met = a.record(key)
    assert met is not None
    assert met.ended is not None
    assert isinstance(a.handle(calls.Fetch(key, 0.0), "c"), calls.Gone)


def test_a_bar_outlives_no_tombstone(cluster: InProcessCluster, clock: Clock) -> None:
    """After 25 h no node may come back with such a copy any more: the bar is forgotten, and not taken from others."""
    a, b = cluster["a"], cluster["b"]
    a.engine.users.end_all("7")
    assert len(a.host.bars.all()) == 1
    clock.now += TOMBSTONE_KEPT_S - 1.0
    assert a.host.bars.drop_old() == 0
    clock.now += 3601.0
    assert a.host.bars.drop_old() == 1
    assert (a.host.bars.all(), a.host.bars.tally().digest()) == ((), b"")
    told(cluster, "a", "b")
    assert a.host.bars.all() == b.host.bars.all() == ()


def test_a_bar_that_cannot_be_read_is_not_forgotten(cluster: InProcessCluster, clock: Clock) -> None:
    """A later release has written it, and will read it again: this one leaves it where it is."""
    a = cluster["a"]
    a.engine.users.end_all("7")
    a.store.set_board("bar unreadable", b"of a later release")
    clock.now += TOMBSTONE_KEPT_S + 1.0
    assert a.host.bars.drop_old() == 1
    assert a.store.boards("bar ") == {"bar unreadable": b"of a later release"}


OLD, NEW = KeyRing.parse(SECRET), KeyRing.parse("2:mX3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a")
BOTH = KeyRing.parse(f"2:mX3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a,{SECRET}")


def with_ring(node: InProcessNode, ring: KeyRing) -> None:
    """What a new secret file does to a worker."""
    sealer = Sealer(ring, "default")
    node.host._sealer = node.host.bars._sealer = lambda: sealer
    node.engine.ring = node.engine.cookies.ring = lambda: ring


def signing(cluster: InProcessCluster, kid: int) -> None:
    """What each node makes known when it has heard of everybody's keys."""
    for node in cluster:
        write_board(node.store, msgspec.structs.replace(node.host.board, signing_kid=kid))


def test_a_key_change_loses_no_one(cluster: InProcessCluster) -> None:
    """Sessions indexed under the old key are found with a ring that signs with a new one and still has the old."""
    a = cluster["a"]
    cookie = login(a.engine, "7")
    for node in cluster:
        with_ring(node, BOTH)
    assert [each.id for each in a.engine.users.sessions_of("7")] == [handle(a.engine, cookie)]
    assert a.engine.users.end_all("7") == 1


@pytest.mark.parametrize("asked", ["a", "b"])
@pytest.mark.parametrize("ahead", ["", "a", "ac", "abc"])
def test_a_key_put_in_front_on_one_host_after_the_other_hides_no_one(clock: Clock, ahead: str, asked: str) -> None:
    """While not all hosts have it, whoever is asked finds the sessions of those that do, counts and ends them."""
    cluster = InProcessCluster(clock=clock, user_sessions_max=12)
    signing(cluster, 1)
    for name in ahead:
        with_ring(cluster[name], BOTH)
    cookies = [login(cluster[name].engine, "7") for name in "abc" * 4]
    asked_one = cluster[asked].engine
    assert len(asked_one.users.sessions_of("7")) == 12
    clock.now += 1
    cookies.append(login(asked_one, "7"))
    assert cluster.counted("login_over_limit") == 1
    assert asked_one.users.end_all("7") == 12
    assert alive(cluster, *cookies) == [False] * 13


def test_a_key_change_from_one_end_to_the_other(cluster: InProcessCluster, clock: Clock) -> None:
    """At each step all that can still be read is found: the new key known, signing, and alone."""
    a, b, c = cluster
    signing(cluster, 1)
    early = login(a.engine, "7")
    for node in (a, b, c):
        with_ring(node, BOTH)
        between = login(node.engine, "7")
        assert len(b.engine.users.sessions_of("7")) == len(c.engine.users.sessions_of("7"))
    signing(cluster, 2)
    late = login(b.engine, "7")
    assert len(c.engine.users.sessions_of("7")) == 5
    clock.now += 61
    used = write(a.engine, early, seen=1)
    assert used == early, "the ID is still of the old key"
    for node in cluster:
        with_ring(node, NEW)
    assert alive(cluster, early, between, late) == [False, False, True]
    assert handle(a.engine, late) in [each.id for each in a.engine.users.sessions_of("7")]
    c.engine.users.end_all("7")
    assert alive(cluster, late) == [False]


# --- the grace of a rotation -------------------------------------------------------------------------------------------------


def rotated(engine: Engine, cookie: str, **values: Any) -> str:
    """A request that asks for a new ID and a grace for the old one; None deletes a value."""
    made = visit(engine, cookie)
    made.session.rotate(grace=True)
    for name, value in values.items():
        made.session.pop(name, None) if value is None else made.session.update({name: value})
    save(engine, made)
    return made.headers().cookies[0].partition(";")[0]


def log_out(engine: Engine, cookie: str) -> None:
    made = visit(engine, cookie)
    made.session.end()
    save(engine, made)


def test_a_logout_ends_the_grace_of_the_ids_before(cluster: InProcessCluster) -> None:
    """However often the session got a new ID within it, and whatever host is asked; other sessions keep theirs."""
    a, b, c = cluster.engines()
    cookies, other = [login(a, "7")], login(a, "7")
    for engine in (b, c, a):
        cookies.append(rotated(engine, cookies[-1]))
    successor = rotated(b, other)
    assert alive(cluster, *cookies, other) == [True] * 5, "there is no grace to end"
    assert len(a.users.sessions_of("7")) == 2
    log_out(b, cookies[-1])
    assert alive(cluster, *cookies, other, successor) == [False] * 4 + [True] * 2
    assert cluster.counted("session_ended") == 1


def test_the_oldest_login_makes_room_with_its_grace(clock: Clock) -> None:
    """What ends for a login too many is not shown under a former ID."""
    cluster = InProcessCluster(clock=clock, user_sessions_max=1)
    a, b, c = cluster.engines()
    old = login(a, "7")
    new = rotated(b, old)
    clock.now += 1
    assert alive(cluster, old, new, login(c, "7")) == [False, False, True]


def test_ids_that_change_too_quickly_have_no_grace(cluster: InProcessCluster, clock: Clock) -> None:
    """A session knows only so many of its former ones: none can be read that it does not know."""
    a, b, _ = cluster.engines()
    cookies = [login(a, "7")]
    for _ in range(AT_ONCE_MAX + 2):
        cookies.append(rotated(a, cookies[-1]))
    assert alive(cluster, *cookies) == [True] * AT_ONCE_MAX + [False] * 2 + [True]
    clock.now += 20.0
    cookies.append(rotated(b, cookies[-1]))
    assert alive(cluster, *cookies[-2:]) == [True, True], "those of before don't count any more"
    log_out(b, cookies[-1])
    assert alive(cluster, *cookies[-2:]) == [False, False]


def test_a_grace_asked_for_at_the_login_shows_what_nobody_held(cluster: InProcessCluster) -> None:
    """As without asking: the anonymous state, which does not end with the user's session."""
    a = cluster["a"].engine
    old = write(a, theme="dark")
    new = rotated(a, old, _user_id="7")
    log_out(a, new)
    assert (read(a, old), read(a, new)) == ({"theme": "dark"}, {})


class EndsWhenEmpty(RequestSession):
    """As those of Flask and Starlette are."""

    ends_when_empty = True


def test_a_session_that_is_emptied_leaves_no_grace(cluster: InProcessCluster) -> None:
    """That is a logout too, and so is the removal of the user in a later request, or another user in its place."""
    a, b, c = cluster.engines()
    for name, value in (("all", None), ("_user_id", None), ("_user_id", "8")):
        old = login(a, "7")
        new = rotated(b, old)
        out = c.visit((new,), blocking=True, session_type=EndsWhenEmpty)
        if name == "all":
            out.session.clear()
        elif value is None:
            out.session["cart"] = 1
            del out.session[name]
        else:
            out.session[name] = value
        assert alive(cluster, old) == [True], "there is no grace to end"
        save(c, out)
        assert alive(cluster, old, new) == [False, False], (name, value)


@pytest.mark.parametrize("user", [None, "8"])
def test_no_grace_shows_a_user_who_is_gone_with_the_request_that_asks_for_it(cluster: InProcessCluster, user: str | None) -> None:
    """A logout or another login in it ends the old ID at once."""
    a = cluster["a"].engine
    old = login(a, "7")
    new = rotated(a, old, _user_id=user, cart=1)
    assert alive(cluster, old, new) == [False, True]


def test_a_grace_is_over_where_the_user_is_logged_out_everywhere(cluster: InProcessCluster, clock: Clock) -> None:
    """The old ID shows nothing any more on any host, and is no session of its own in what is counted."""
    a, b, c = cluster.engines()
    old = login(a, "7")
    new = rotated(b, old)
    other = rotated(b, login(c, "8"))
    assert alive(cluster, old) == [True], "there is no grace to end"
    assert c.users.end_all("7") == 1
    assert alive(cluster, old, new, other) == [False, False, True]
    for record in held(cluster, bytes.fromhex(handle_in(cluster, old))).values():
        assert (record.items, record.extra, record.principal) == ({}, {}, SOMEBODY)


def handle_in(cluster: InProcessCluster, cookie: str) -> str:
    ticket = cluster["a"].engine.cookies.ticket((cookie,))
    assert ticket is not None
    return ticket.sid.handle


def test_a_spared_session_keeps_its_grace(cluster: InProcessCluster) -> None:
    """Parallel requests of the page that says "everywhere but here" are not logged out."""
    a, b, _ = cluster.engines()
    old, other = login(a, "7"), login(b, "7")
    new = rotated(b, old)
    assert a.users.end_all("7", except_=handle(a, new)) == 1
    assert alive(cluster, old, new, other) == [True, True, False]


def test_a_grace_ends_on_a_host_that_hears_late(cluster: InProcessCluster) -> None:
    """An owner that was away when the user was logged out does not show what it held, neither before nor after it is told."""
    a, b, c = cluster
    logins = (login(b.engine, "7") for _ in range(50))
    old = next(made for made in logins if set(held(cluster, key_of(b.engine, made))) == {"b", "c"})
    key = key_of(b.engine, old)
    rotated(b.engine, old)
    assert b.host.handle(calls.Fetch(key, 0.0), "a").grace is not None  # type: ignore[union-attr]
    cluster.paused("b")
    a.engine.users.end_all("7")
    graced = b.host.record(key)
    assert graced is not None
    assert graced.items, "the fault did not happen: it was told"
    assert b.host.handle(calls.Fetch(key, 0.0), "b").grace is None, "nobody vouches for it"  # type: ignore[union-attr]
    cluster.back("b")
    told(cluster, "b", "c")
    assert alive(cluster, old) == [False]
    assert c.host.record(key) == b.host.record(key)


def test_a_logout_that_cannot_end_the_grace_is_none(cluster: InProcessCluster, clock: Clock) -> None:
    """Whoever may still show it gives no answer: the client is told so. When the grace is over nobody is asked."""
    cluster = InProcessCluster(tuple("abcde"), clock=clock)
    a = cluster["a"].engine

    def apart() -> tuple[str, set[str]]:
        """A session and who still has its graced ID, none of whom owns it now."""
        while True:
            old = login(cluster["b"].engine, "7")
            owners = set(held(cluster, key_of(a, old)))
            new = rotated(a, old)
            if owners.isdisjoint(held(cluster, key_of(a, new))) and "a" not in owners:
                return new, owners

    new, owners = apart()
    cluster.paused(*owners)
    with pytest.raises(SessionUnavailable):
        log_out(a, new)
    assert read(a, new) == {}
    cluster.back(*owners)

    new, owners = apart()
    clock.now += 20.0
    cluster.paused(*owners)
    log_out(a, new)
    assert read(a, new) == {}


# --- beside a rotation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grace", [False, True])
def test_a_logout_beside_a_rotation_does_not_seem_to_have_happened(cluster: InProcessCluster, grace: bool) -> None:
    """The request that logs out has seen the session under the ID that another one has just replaced: it is refused as a late
    write is, and the new cookie, which is on its way, is not deleted; with that the next try logs out."""
    a, b, _ = cluster.engines()
    cookie = login(a, "7")
    late, rotating = visit(b, cookie), visit(a, cookie)
    assert late.session["_user_id"] == "7"
    rotating.session.rotate(grace=grace)
    save(a, rotating)
    new = rotating.headers().cookies[0].partition(";")[0]
    late.session.end()
    with pytest.raises(LateWrite):
        save(b, late)
    assert late.refusal_headers().cookies == ()
    assert alive(cluster, new) == [True]
    again = visit(b, new)
    again.session.end()
    save(b, again)
    assert alive(cluster, new, cookie) == [False, False]


# --- awaited -----------------------------------------------------------------------------------------------------------------


def test_awaited(cluster: InProcessCluster) -> None:
    """The same in async code."""
    a = cluster["a"].engine
    mine, other = login(a, "7"), login(a, "7")

    async def both() -> None:
        assert len(await a.users.asessions_of("7")) == 2
        assert await a.users.aend_all("7", except_=handle(a, mine)) == 1

    asyncio.run(both())
    assert alive(cluster, mine, other) == [True, False]


# --- how many ----------------------------------------------------------------------------------------------------------------


def test_the_oldest_login_makes_room(clock: Clock) -> None:
    """One too many ends the session that logged in first; other users don't count."""
    cluster = InProcessCluster(clock=clock, user_sessions_max=2)
    a, b, c = cluster.engines()
    cookies = []
    for engine in (a, b, c):
        clock.now += 1
        cookies.append(login(engine, "7"))
    other = login(a, "8")
    assert alive(cluster, *cookies, other) == [False, True, True, True]
    assert cluster.counted("login_over_limit") == 1


class NoEndsArrive(InProcessCluster):
    """While `deaf`, what would end a session, or move it, is lost on its way to another host."""

    deaf = False
    lost = 0

    def answer(self, source: str, target: str, call: calls.Call) -> calls.Reply:
        if not self.deaf or not isinstance(call, calls.End | calls.LeaveHint | calls.Promote):
            return super().answer(source, target, call)
        self.lost += 1
        return calls.Unreachable("timeout")


def test_a_login_stands_when_the_oldest_cannot_be_told_that_it_ends(clock: Clock) -> None:
    """Its end waits at the hosts that can be reached, and the next login ends it if it is still there."""
    cluster = NoEndsArrive(clock=clock, user_sessions_max=1)
    a = cluster["a"].engine
    old = login(a, "7")
    key = key_of(a, old)
    stranger = next(node for node in cluster if node.name not in held(cluster, key))
    clock.now += 1
    cluster.deaf = True
    new = login(stranger.engine, "7")
    cluster.deaf = False
    waiting = stranger.host.record(key)
    assert cluster.lost
    assert waiting is not None
    assert waiting.ended is not None
    assert read(stranger.engine, new) == {"_user_id": "7"}
    assert read(a, old) == {"_user_id": "7"}
    clock.now += 1
    assert alive(cluster, old, new, login(a, "7")) == [False, False, True]


@pytest.mark.parametrize("over", ["end-oldest", "refuse"])
def test_a_login_leaves_nothing_where_nobody_knows_how_many_there_are(clock: Clock, over: str) -> None:
    """Two hosts without an answer may hold any number: it fails before it is stored, and can be tried again as it was."""
    cluster = InProcessCluster(tuple("abcd"), clock=clock, user_sessions_max=2, user_sessions_over=over)
    a = cluster["a"].engine
    anonymous = write(a, cart=1)
    strangers = [node.name for node in cluster if node.name not in held(cluster, key_of(a, anonymous))]
    before = cluster.entries()
    cluster.paused(*strangers)
    for cookie in (None, anonymous):
        with pytest.raises(SessionUnavailable, match="may hold sessions of this user"):
            login(a, "7", cookie)
    assert cluster.entries() == before
    cluster.back(*strangers)
    assert [each.id for each in a.users.sessions_of("7")] == []
    assert read(a, login(a, "7", anonymous)) == {"cart": 1, "_user_id": "7"}


def test_a_login_too_many_is_refused(clock: Clock) -> None:
    """Nothing of it is stored, the others stay, and after a logout there is room again."""
    cluster = InProcessCluster(clock=clock, user_sessions_max=1, user_sessions_over="refuse")
    a, b, _ = cluster.engines()
    first, anonymous = login(a, "7"), write(b, cart=1)
    for cookie in (None, anonymous):
        with pytest.raises(TooManySessions, match="which is the limit"):
            login(b, "7", cookie)
    assert alive(cluster, first, anonymous) == [True, True]
    assert read(b, anonymous) == {"cart": 1}
    a.users.end_all("7")
    clock.now += 0.001
    assert alive(cluster, login(b, "7", anonymous)) == [True]


# --- how fresh ---------------------------------------------------------------------------------------------------------------


def test_a_login_must_be_fresh(cluster: InProcessCluster, clock: Clock) -> None:
    """Nobody's login is fresh, one of a while ago not enough; shown again who they are, it is, under a new ID."""
    a = cluster["a"].engine
    with pytest.raises(LoginTooOld, match="nobody is logged in"):
        visit(a, write(a, cart=1)).session.require_fresh(300)
    cookie = login(a, "7")
    clock.now += 301
    old = visit(a, cookie)
    with pytest.raises(LoginTooOld, match="301 s old"):
        old.session.require_fresh(300)
    old.session.require_fresh(302)
    old.session.refresh_login()
    save(a, old)
    fresh = visit(a, old.headers().cookies[0].partition(";")[0])
    fresh.session.require_fresh(1)
    assert read(a, cookie) == {}
    assert fresh.session["_user_id"] == "7"


def test_a_new_id_alone_refreshes_nothing(cluster: InProcessCluster, clock: Clock) -> None:
    """A rotation keeps the age of the login, and so does a change of owners."""
    a = cluster["a"].engine
    cookie = login(a, "7")
    clock.now += 301
    turned = visit(a, cookie)
    turned.session.rotate()
    save(a, turned)
    with pytest.raises(LoginTooOld):
        visit(a, turned.headers().cookies[0].partition(";")[0]).session.require_fresh(300)
