"""A request from its cookie to its Set-Cookie, without a framework: when what is stored, sent and refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from clustersession.config import Config, CookieConfig, Lifetimes, Limits
from clustersession.core.calls import Apply, Fetch, Put, Touch
from clustersession.core.session_id import verify
from clustersession.errors import (
    ChangeAfterResponse,
    LateWrite,
    SessionTooLarge,
    SessionUnavailable,
    ValueNotSupported,
)
from clustersession.runtime.board import Board, write_board
from clustersession.runtime.engine import Engine
from clustersession.runtime.outages import LOST_KEPT_S, PATIENCE_S
from clustersession.runtime.pipeline import GRACE_S, Visit
from clustersession.testing.in_process import InProcessCluster


class Clock:
    """The hosts' time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(clock: Clock) -> InProcessCluster:
    return InProcessCluster(clock=clock)


def visit(engine: Engine, cookie: str | None = None) -> Visit:
    return engine.visit((cookie,) if cookie else (), blocking=True)


def save(engine: Engine, visit: Visit) -> None:
    engine.blocking.run(visit.save(), visit.budget)


def write(engine: Engine, cookie: str | None = None, **values: Any) -> str:
    """One request that sets these values; the cookie the browser has then."""
    made = visit(engine, cookie)
    made.session.update(values)
    save(engine, made)
    cookies = made.headers().cookies
    return cookies[0].partition(";")[0] if cookies else cookie or ""


def read(engine: Engine, cookie: str) -> dict[str, Any]:
    return dict(visit(engine, cookie).session)


def backup_of(cluster: InProcessCluster) -> str:
    return next(each.target for each in cluster.sent if isinstance(each.call, Put))


# --- what is stored and when a cookie goes out -----------------------------------------------------------------------------


def test_no_cookie_no_work(cluster: InProcessCluster) -> None:
    """A request without our cookie neither loads nor stores, whatever it looks at."""
    engine = cluster["a"].engine
    made = visit(engine)
    assert (len(made.session), made.session.id, made.session.is_new, made.session.placement) == (0, None, True, None)
    assert not made.pending()
    assert made.headers() == ((), True)
    assert (cluster.entries(), cluster.sent) == (0, [])


def test_a_new_session_is_on_two_hosts_before_the_cookie_is_made(cluster: InProcessCluster) -> None:
    """The master is this host, and the ID names both."""
    engine = cluster["a"].engine
    made = visit(engine)
    made.session["k"] = "v"
    save(engine, made)
    assert cluster.entries() == 2
    placement = made.session.placement
    assert placement is not None
    assert (placement.master, placement.backup, placement.epoch) == ("a", backup_of(cluster), 1)
    (cookie,) = made.headers().cookies
    sid = verify(cookie[3:108], cluster.ring, engine.cookies._issued)
    assert sid.handle == made.session.id
    assert made.session.id not in cookie


def test_a_read_on_the_owners_host_sends_nothing(cluster: InProcessCluster) -> None:
    """Neither on the master's nor on the backup's."""
    cookie = write(cluster["a"].engine, k="v")
    with cluster.silence():
        assert read(cluster["a"].engine, cookie) == {"k": "v"}
        assert read(cluster[backup_of(cluster)].engine, cookie) == {"k": "v"}


def test_a_read_elsewhere_is_one_call(cluster: InProcessCluster) -> None:
    """The ID says whom to ask."""
    cookie = write(cluster["a"].engine, k="v")
    third = next(name for name in "bc" if name != backup_of(cluster))
    before = len(cluster.sent)
    assert read(cluster[third].engine, cookie) == {"k": "v"}
    assert [type(each.call) for each in cluster.sent[before:]] == [Fetch]


def test_nothing_changed_nothing_written(cluster: InProcessCluster) -> None:
    """Setting what is there already is no change."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v", items=[1])
    with cluster.silence():
        assert write(engine, cookie, k="v", items=[1]) == cookie


def test_save_is_idempotent(cluster: InProcessCluster) -> None:
    """A second save of the same request writes only what has changed since the first."""
    engine = cluster["a"].engine
    made = visit(engine)
    made.session["k"] = ["v"]
    save(engine, made)
    before = len(cluster.sent)
    save(engine, made)
    assert len(cluster.sent) == before
    made.session["k"].append("w")
    save(engine, made)
    assert len(made.headers().cookies) == 1
    assert read(cluster["b"].engine, made.headers().cookies[0].partition(";")[0]) == {"k": ["v", "w"]}


def test_a_changed_owner_brings_a_new_id(cluster: InProcessCluster) -> None:
    """The same session, the same handle; also on a page that only reads, so that the next request finds it at once."""
    cookie = write(cluster["a"].engine, k="v")
    backup = backup_of(cluster)
    third = next(name for name in "bc" if name != backup)
    cluster.dead("a")
    newer = write(cluster[third].engine, cookie, k="w")
    assert newer != cookie
    reading = visit(cluster[backup].engine, cookie)
    assert reading.session["k"] == "w"
    (again,) = reading.headers().cookies
    assert again[:45] == newer[:45]
    assert visit(cluster[backup].engine, newer).session.id == reading.session.id


def test_a_single_copy_is_told_in_the_id(cluster: InProcessCluster) -> None:
    """Nobody else is left: it is taken, counted, and the ID says that there is no backup."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    cluster.dead("b", "c")
    newer = write(engine, cookie, k="w")
    assert newer[21:38] == "00000000-00000000"
    assert cluster.counted("saved_degraded") == 1
    assert write(engine, newer, k="x") == newer


def test_min_copies_refuses_what_only_one_host_could_take() -> None:
    """503, and the cookie is left alone."""
    cluster = InProcessCluster(min_copies=2)
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    cluster.dead("b", "c")
    with pytest.raises(SessionUnavailable):
        write(engine, cookie, k="w")
    with pytest.raises(SessionUnavailable):
        write(engine, k="new")


def test_a_cookie_under_an_old_name_is_replaced_with_the_next_new_id(cluster: InProcessCluster) -> None:
    """And the old name is removed from the browser then, not before."""
    old = write(cluster["a"].engine, k="v")
    cookie = CookieConfig(names=("new", "cs"), secure=False)
    engine = cluster["a"].engine_with(cookie=cookie)
    assert write(engine, old, k="w") == old
    made = visit(engine, old)
    made.session["_user_id"] = "7"
    save(engine, made)
    issued, deleted = made.headers().cookies
    assert issued.startswith("new=")
    assert deleted.startswith("cs=; ")
    assert read(engine, f"{old}; {issued.partition(';')[0]}") == {}, "two sessions until the browser has dropped the old"


# --- lives -----------------------------------------------------------------------------------------------------------------


def test_a_persistent_cookie_slides_once_a_quarter_of_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a page that only reads, too."""
    cluster = InProcessCluster(cookie=CookieConfig(names=("cs",), secure=False, max_age_s=4000))
    engine = cluster["a"].engine
    monkeypatch.setattr("clustersession.runtime.cookies.time", lambda: 60_000_000.0)
    monkeypatch.setattr("clustersession.runtime.issuing.time", lambda: 60_000_000.0)
    made = visit(engine)
    made.session["k"] = "v"
    save(engine, made)
    (issued,) = made.headers().cookies
    assert "; Max-Age=4000" in issued
    cookie = issued.partition(";")[0]

    def cookies_after(seconds: float) -> int:
        monkeypatch.setattr("clustersession.runtime.issuing.time", lambda: 60_000_000.0 + seconds)
        reading = visit(engine, cookie)
        assert reading.session["k"] == "v"
        return len(reading.headers().cookies)

    assert [cookies_after(seconds) for seconds in (0, 999, 1000, 3999)] == [0, 0, 1, 1]


def test_a_request_keeps_its_session_alive_without_a_write(cluster: InProcessCluster, clock: Clock) -> None:
    """Both owners are told that it was used, at most once a minute, and nobody waits for it."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    for minutes in range(1, 100):
        clock.now = 1000.0 + 60.0 * minutes
        reading = visit(engine, cookie)
        assert reading.session["k"] == "v", minutes
        save(engine, reading)
    touches = [each for each in cluster.sent if isinstance(each.call, Touch)]
    assert 80 <= len(touches) <= 100
    with cluster.silence():
        reading = visit(engine, cookie)
        assert reading.session["k"] == "v"
        save(engine, reading)


def test_an_idle_session_ends(cluster: InProcessCluster, clock: Clock) -> None:
    """After its idle limit it is gone, and what is written gets a new ID."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    clock.now += 1800.0 + 300.0 + 61.0
    assert read(engine, cookie) == {}
    assert write(engine, cookie, k="w") != cookie


def test_the_absolute_limit_is_not_moved_by_use_nor_by_a_login(cluster: InProcessCluster, clock: Clock) -> None:
    """Twelve hours from the first write, through a rotation."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    for _ in range(int(43200 / 1200) - 1):
        clock.now += 1200.0
        cookie = write(engine, cookie, n=clock.now, _user_id="7")
    clock.now += 1260.0
    assert read(engine, cookie) == {}


def test_a_life_that_the_app_sets(cluster: InProcessCluster, clock: Clock) -> None:
    """`set_lifetime` on a stored session takes effect, and the cookie is sent again."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    made = visit(engine, cookie)
    made.session.set_lifetime(60.0, None)
    save(engine, made)
    assert len(made.headers().cookies) == 1
    clock.now += 67.0
    assert read(engine, cookie) == {}


def test_what_the_operator_limits_the_app_cannot_extend(cluster: InProcessCluster, clock: Clock) -> None:
    """With a set idle time-out of a minute, an hour is a minute."""
    engine = cluster["a"].engine_with(lifetimes=Lifetimes(idle_s=60.0, absolute_s=600.0), lifetimes_set=True)
    made = visit(engine)
    made.session["k"] = "v"
    made.session.set_lifetime(3600.0, None)
    save(engine, made)
    assert made._stored is not None
    record = made._stored.record
    assert (record.lifetime.idle, record.lifetime.deadline) == (60.0, clock.now + 600.0)


# --- rotation and end ------------------------------------------------------------------------------------------------------


def test_the_grace_of_a_login_reads_and_never_writes(cluster: InProcessCluster, clock: Clock) -> None:
    """Parallel requests of the login see the anonymous state for ten seconds; then the old ID is dead."""
    engine = cluster["a"].engine
    old = write(engine, theme="dark")
    new = write(engine, old, _user_id="7")
    assert (read(engine, old), read(engine, new)) == ({"theme": "dark"}, {"theme": "dark", "_user_id": "7"})
    with cluster.silence(), pytest.raises(LateWrite):
        write(engine, old, theme="light")
    late = visit(engine, old)
    late.session.end()
    with pytest.raises(LateWrite):
        save(engine, late)
    clock.now += GRACE_S + 0.1
    assert read(engine, old) == {}


def test_a_request_with_an_id_that_was_rotated_sets_no_cookie(cluster: InProcessCluster) -> None:
    """Not even where the app wants the cookie sent again: it would put the old ID in the place of the new."""
    engine = cluster["a"].engine
    old = write(engine, theme="dark")
    write(engine, old, _user_id="7")
    parallel = visit(engine, old)
    assert parallel.session["theme"] == "dark"
    parallel.reissue = True
    assert parallel.headers() == ((), True)


@pytest.mark.parametrize("grace", [True, False])
def test_other_rotations_end_the_old_id_at_once(cluster: InProcessCluster, grace: bool) -> None:
    """Unless the app asks for the grace."""
    engine = cluster["a"].engine
    old = write(engine, _user_id="7")
    made = visit(engine, old)
    made.session.rotate(grace=grace)
    save(engine, made)
    assert read(engine, old) == ({"_user_id": "7"} if grace else {})
    assert read(engine, made.headers().cookies[0].partition(";")[0]) == {"_user_id": "7"}


def test_right_after_a_rotation_an_old_id_begins_nothing_new(cluster: InProcessCluster, clock: Clock) -> None:
    """Its answer could arrive after the login's and put a session without user in its place. Later it may."""
    engine = cluster["a"].engine
    old = write(engine, _user_id="7")
    write(engine, old, _user_id="8")
    with pytest.raises(LateWrite):
        write(engine, old, k="v")
    clock.now += GRACE_S + 0.1
    assert write(engine, old, k="v") != old


def test_a_login_whose_answer_was_lost_can_be_repeated_at_once(cluster: InProcessCluster) -> None:
    """The browser still has the old ID: in the grace, and where there is none, it gets a session of its own."""
    engine = cluster["a"].engine
    anonymous = write(engine, theme="dark")
    write(engine, anonymous, _user_id="7")
    again = write(engine, anonymous, _user_id="7")
    assert read(engine, again) == {"theme": "dark", "_user_id": "7"}
    write(engine, again, _user_id="8")
    assert read(engine, write(engine, again, _user_id="9")) == {"_user_id": "9"}
    assert read(engine, anonymous) == {"theme": "dark"}


def test_a_logout_by_removing_the_user_rotates_too(cluster: InProcessCluster) -> None:
    """As Flask-Login does it: the rest stays, under a new ID; the old ID is dead."""
    engine = cluster["a"].engine
    old = write(engine, _user_id="7", theme="dark")
    made = visit(engine, old)
    del made.session["_user_id"]
    save(engine, made)
    new = made.headers().cookies[0].partition(";")[0]
    assert (read(engine, old), read(engine, new)) == ({}, {"theme": "dark"})


def test_one_rotation_a_request(cluster: InProcessCluster) -> None:
    """The app's own and the one for the new user are the same."""
    engine = cluster["a"].engine
    made = visit(engine, write(engine, theme="dark"))
    made.session.rotate()
    made.session["_user_id"] = "7"
    save(engine, made)
    assert (cluster.counted("session_rotated"), len(made.headers().cookies)) == (1, 1)


def test_the_time_of_the_login_is_kept(cluster: InProcessCluster, clock: Clock) -> None:
    """Through writes and a rotation for the same user; another user sets it anew."""
    engine = cluster["a"].engine
    cookie = write(engine, _user_id="7")
    clock.now += 100.0
    cookie = write(engine, cookie, k="v")
    rotated = visit(engine, cookie)
    assert (rotated.session.auth_age_s, rotated.session.created_age_s) == (100.0, 100.0)
    rotated.session.rotate()
    save(engine, rotated)
    cookie = rotated.headers().cookies[0].partition(";")[0]
    clock.now += 100.0
    assert visit(engine, cookie).session.auth_age_s == 200.0
    cookie = write(engine, cookie, _user_id="8")
    later = visit(engine, cookie).session
    assert (later.auth_age_s, later.created_age_s) == (0.0, 200.0)


def test_a_reserved_handle_is_that_of_the_next_new_id(cluster: InProcessCluster) -> None:
    """Apps may note it before it is stored."""
    engine = cluster["a"].engine
    made = visit(engine, write(engine, k="v"))
    made.session.rotate()
    handle = made.reserve()
    assert made.reserved == handle == made.reserve()
    save(engine, made)
    assert made.session.id == handle
    assert not made.reserved


# --- refusals --------------------------------------------------------------------------------------------------------------


def test_too_large_is_refused_before_anything_is_sent() -> None:
    """The stored version is intact, the limit is named."""
    cluster = InProcessCluster(limits=Limits(session_bytes_max=1000, session_bytes_warn=500))
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    with cluster.silence(), pytest.raises(SessionTooLarge, match="1000"):
        write(engine, cookie, large="x" * 2000)
    with pytest.raises(ValueNotSupported):
        write(engine, cookie, strange=object())
    assert read(engine, cookie) == {"k": "v"}
    write(engine, cookie, large="x" * 600)
    assert cluster.counted("session_large") == 1


def test_after_the_response_only_the_stored_session_can_change(cluster: InProcessCluster) -> None:
    """Values are saved; a new session, a new ID and a new user are not possible any more, and say so."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    made = visit(engine, cookie)
    made.session["k"] = "w"
    save(engine, made)
    made.headers()
    made.session["k"] = "x"
    save(engine, made)
    assert read(engine, cookie) == {"k": "x"}
    made.session["_user_id"] = "7"
    with pytest.raises(ChangeAfterResponse):
        save(engine, made)
    ended = visit(engine, cookie)
    ended.headers()
    ended.session.end()
    save(engine, ended)
    assert read(engine, cookie) == {}
    fresh = visit(engine)
    fresh.headers()
    fresh.session["k"] = "v"
    with pytest.raises(ChangeAfterResponse):
        save(engine, fresh)


# --- sessions that cannot be found -------------------------------------------------------------------------------------


def silenced(cluster: InProcessCluster) -> Iterator[str]:
    cluster.down("a", backup_of(cluster))
    yield next(name for name in "bc" if name != backup_of(cluster))


def test_unavailable_is_neither_empty_nor_for_ever(cluster: InProcessCluster, clock: Clock) -> None:
    """503 for a minute of asking; then, with all the others saying that they hold nothing, it is lost."""
    cookie = write(cluster["a"].engine, k="v")
    (third,) = silenced(cluster)
    engine = cluster[third].engine
    while clock.now < 1000.0 + PATIENCE_S:
        with pytest.raises(SessionUnavailable):
            read(engine, cookie)
        clock.now += 10.0
    assert read(engine, cookie) == {}
    assert cluster.counted("session_lost") == 1


def test_a_session_that_comes_back_in_time_is_there(cluster: InProcessCluster, clock: Clock) -> None:
    """An outage shorter than that costs nothing."""
    cookie = write(cluster["a"].engine, k="v")
    (third,) = silenced(cluster)
    with pytest.raises(SessionUnavailable):
        read(cluster[third].engine, cookie)
    clock.now += PATIENCE_S - 1
    cluster.back("a", "b", "c")
    assert read(cluster[third].engine, cookie) == {"k": "v"}


def test_a_lost_session_is_searched_for_once(cluster: InProcessCluster, clock: Clock) -> None:
    """Then its ID is answered from memory for ten seconds, and what is written gets a new one."""
    cookie = write(cluster["a"].engine, k="v")
    cluster.dead("a", backup_of(cluster))
    third = next(name for name in "bc" if name != backup_of(cluster))
    engine = cluster[third].engine
    assert read(engine, cookie) == {}
    with cluster.silence():
        assert read(engine, cookie) == {}
    clock.now += LOST_KEPT_S
    before = len(cluster.sent)
    assert read(engine, cookie) == {}
    assert len(cluster.sent) > before
    assert write(engine, cookie, k="w") != cookie
    assert cluster.counted("session_lost") == 2


def test_policy_anonymous_begins_no_second_session() -> None:
    """Reads go on as if there were none; a write would put another session in the place of the one that will be back."""
    cluster = InProcessCluster(("a", "b", "c", "d", "e"), unavailable="anonymous")
    cookie = write(cluster["a"].engine, k="v")
    backup = backup_of(cluster)
    cluster.down("a", backup)
    engine = cluster[next(name for name in "bcde" if name != backup)].engine
    assert read(engine, cookie) == {}
    made = visit(engine, cookie)
    made.session["k"] = "w"
    with cluster.silence(), pytest.raises(SessionUnavailable):
        save(engine, made)


def test_a_logout_without_any_known_owner_is_not_acked(cluster: InProcessCluster) -> None:
    """Both hosts that the ID names are members no more, and others may not be known yet: 503, and the cookie goes."""
    engine = cluster["a"].engine
    cookie = engine.cookies.issued(b"t" * 16, ("gone", "too"), (1, 1), None).partition(";")[0]
    members = tuple(engine.host.view.members.values())
    write_board(engine.host.store, Board(members, {}, True, float("inf"), False, 1, None))
    made = visit(engine, cookie)
    made.session.end()
    with pytest.raises(SessionUnavailable):
        save(engine, made)
    (deleted,) = made.refusal_headers().cookies
    assert deleted.startswith("cs=; ")


def test_what_the_store_holds_is_never_the_raw_id(cluster: InProcessCluster) -> None:
    """Neither keys nor values of the store contain the token, and no repr shows it."""
    engine = cluster["a"].engine
    cookie = write(engine, k="v")
    made = visit(engine, cookie)
    assert made.session["k"] == "v"
    assert made._stored is not None
    token = made._stored.token
    for node in cluster:
        for key in node.store.keys(None, 100):
            assert token not in key
            assert token not in (node.store.read(key) or b"")
    shown = repr([made.session, made.ticket, engine.config, Config(secret="x" * 32, node="a")])
    assert token.hex() not in shown
    assert cookie not in shown


def test_a_patch_names_its_own_id(cluster: InProcessCluster) -> None:
    """Two writes are never taken for one."""
    engine = cluster["b"].engine
    cookie = write(cluster["a"].engine, k="v")
    for value in "wx":
        write(engine, cookie, k=value)
    patches = {each.call.patch.id for each in cluster.sent if isinstance(each.call, Apply)}
    deliveries = [each for each in cluster.sent if hasattr(each.call, "patch")]
    assert len(patches | {each.call.patch.id for each in deliveries}) == 2  # type: ignore[union-attr]


def test_an_engine_of_another_app_on_the_same_host(cluster: InProcessCluster) -> None:
    """Its cookie has another name, so neither takes the other's ID."""
    engine = cluster["a"].engine
    other = cluster["a"].engine_with(cookie=replace(engine.config.cookie, names=("other",)))
    cookie = write(engine, k="v")
    assert read(other, cookie) == {}
    assert read(other, cookie.replace("cs=", "other=")) == {}
