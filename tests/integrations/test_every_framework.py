"""What holds whatever framework the app is written in: the same app, the same requests, on a cluster in one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from clustersession.core.calls import Fetch
from clustersession.core.session import Session
from clustersession.errors import LoginTooOld, SessionRefused
from clustersession.integrations.django import source
from clustersession.testing.in_process import InProcessCluster
from tests.integrations.apps import (
    CHANGING,
    FRAMEWORKS,
    MORE_OPERATIONS,
    OPERATIONS,
    Site,
    act,
    meanwhile,
    pair,
    session_cookies,
)
from tests.middleware.calling import Answer


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


@pytest.fixture(params=sorted(FRAMEWORKS))
def site(request: pytest.FixtureRequest, cluster: InProcessCluster) -> Iterator[Site]:
    if request.param.startswith("django"):
        yield Site(request.param, cluster)
        source._current = None
    else:
        yield Site(request.param, cluster)


# --- the session follows its cookie --------------------------------------------------------------------------------------


def test_a_login_is_known_on_every_host_and_its_logout_too(site: Site) -> None:
    """Login on one host, read and write on the others, log out on a third: everywhere the same session, then none."""
    cookie = pair(site.get("a", "/login/7"))
    assert [site.values(host, cookie) for host in "abc"] == [{"_user_id": "7"}] * 3
    for host in "abc":
        assert session_cookies(site.get(host, f"/set/from_{host}/1", cookie)) == []
    assert site.values("b", cookie) == {"_user_id": "7", "from_a": "1", "from_b": "1", "from_c": "1"}
    gone = site.get("c", "/logout", cookie)
    (deletion,) = session_cookies(gone)
    assert deletion.startswith("cs=; ")
    assert "Max-Age=0" in deletion
    assert [site.values(host, cookie) for host in "abc"] == [{}] * 3


def test_a_login_gets_a_new_id_and_the_old_one_shows_only_the_anonymous_state(site: Site) -> None:
    """An ID planted before the login is worth nothing after it (fixation)."""
    planted = pair(site.get("a", "/set/theme/dark"))
    logged_in = pair(site.get("b", "/login/7", planted))
    assert logged_in != planted
    assert site.values("c", logged_in) == {"_user_id": "7", "theme": "dark"}
    assert site.values("c", planted) == {"theme": "dark"}
    late = site.get("a", "/set/theme/light", planted)
    assert (late.status, late.one("Retry-After"), session_cookies(late)) == (409, "0", [])


def test_a_logout_that_is_followed_by_a_login_in_the_same_request_gives_a_new_session(site: Site) -> None:
    """Ending and writing in one request: the new session starts with what was written, the old one is dead."""
    old = pair(site.get("a", "/login/7"))
    site.get("a", "/set/cart/3", old)
    new = pair(site.get("b", "/relogin/8", old))
    assert site.values("c", new) == {"_user_id": "8"}
    assert site.values("c", old) == {}


def test_what_is_changed_in_place_is_saved(site: Site) -> None:
    """A list in the session that was appended to needs no flag."""
    cookie = pair(site.get("a", "/append/cart/x"))
    site.get("b", "/append/cart/y", cookie)
    assert site.values("c", cookie) == {"cart": ["x", "y"]}


def test_a_copy_of_the_session_is_none(site: Site) -> None:
    """What is changed in it, or in a deep copy's values, is changed nowhere else."""
    answer = site.get("a", "/copies/k")
    assert json.loads(answer.body) == "dict"
    assert site.values("b", pair(answer)) == {"k": ["own"]}


def test_two_tabs_that_change_different_keys_both_win(site: Site) -> None:
    """Nobody writes back what it has only read."""
    cookie = pair(site.get("a", "/set/start/1"))
    site.get("b", "/set/left/1", cookie)
    site.get("c", "/set/right/1", cookie)
    assert site.values("a", cookie) == {"left": "1", "right": "1", "start": "1"}


def test_what_a_streaming_body_changes_is_saved(site: Site) -> None:
    """The record takes it although the response has started; no cookie is needed for that."""
    cookie = pair(site.get("a", "/set/start/1"))
    answer = site.get("b", "/stream", cookie)
    assert (answer.status, answer.body, session_cookies(answer)) == (200, b"one two", [])
    assert site.values("c", cookie) == {"start": "1", "streamed": "yes"}


# --- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_look_at_the_session_makes_caches_tell_users_apart(site: Site, name: str) -> None:
    """Vary: Cookie for each operation, and no-store whenever an ID goes out."""
    if site.framework.startswith("django") and name in MORE_OPERATIONS:
        return
    answer = site.get("a", f"/op/{name}")
    assert answer.status == 200
    assert answer.varies
    assert bool(session_cookies(answer)) == (name in CHANGING)
    assert (answer.one("Cache-Control") == "no-store") == (name in CHANGING)


def test_a_page_that_never_looks_at_the_session_may_be_cached(site: Site) -> None:
    """Neither Vary nor no-store nor a cookie nor a call, even if the request brought a session."""
    cookie = pair(site.get("a", "/set/start/1"))
    answer = site.get("a", "/quiet", cookie)
    assert not answer.varies
    assert answer.one("Cache-Control") is None
    assert session_cookies(answer) == []


def test_the_apps_own_cookies_stay(site: Site) -> None:
    """Ours is appended to them."""
    assert sorted(cookie.strip().partition("=")[0] for cookie in site.get("a", "/login/7").cookies) == ["cs", "theme"]


def test_anonymous_requests_store_nothing_and_get_no_cookie(site: Site) -> None:
    """Looking at an empty session makes none."""
    for _ in range(20):
        answer = site.get("a", "/")
        assert (answer.status, session_cookies(answer)) == (200, [])
        assert session_cookies(site.get("b", "/logout")) == []
    assert site.cluster.entries() == 0


def test_ordinary_writes_set_no_cookie(site: Site) -> None:
    """Of parallel answers the last one to arrive would otherwise put an old ID back."""
    cookie = pair(site.get("a", "/login/7"))
    assert [session_cookies(site.get(host, "/set/n/1", cookie)) for host in "abcabc"] == [[]] * 6


# --- cookies that are none ---------------------------------------------------------------------------------------------


def hostile(cookie: str) -> dict[str, str]:
    name, _, text = cookie.partition("=")
    foreign = pair(Site("asgi", InProcessCluster(("a", "b"), cluster="other")).get("a", "/set/k/v"))
    return {
        "empty": f"{name}=",
        "truncated": cookie[:-1],
        "longer": cookie + "0",
        "bit flipped": cookie[:-20] + ("0" if cookie[-20] != "0" else "1") + cookie[-19:],
        "owner swapped": f"{name}={text[18:36]}{text[:18]}{text[36:]}",
        "upper case": f"{name}={text.upper()}",
        "percent-encoded name": f"%63s={text}",
        "other case of the name": f"CS={text}",
        "nameless": f"={cookie}",
        "quoted": f'{name}="{text}"',
        "foreign cluster": foreign,
        "not ASCII": f"{name}={'é' * 105}",
        "oversized": f"{name}={'0' * 60_000}",
        "hostile header": "a=b;" * 12_000,
        "traversal": f"{name}=../../../../etc/passwd",
        "the handle": f"{name}={'0' * 32}",
    }


@pytest.mark.parametrize("kind", sorted(hostile("cs=" + "0" * 105)))
def test_a_cookie_that_fails_is_no_session(site: Site, kind: str) -> None:
    """No values, no call, no entry, no error: as if the browser had sent none."""
    cookie = pair(site.get("a", "/login/7"))
    entries = site.cluster.entries()
    with site.cluster.silence():
        answer = site.get("b", "/", hostile(cookie)[kind])
    assert (answer.status, json.loads(answer.body), session_cookies(answer)) == (200, {}, [])
    assert site.cluster.entries() == entries


def test_of_several_cookies_of_our_name_one_must_be_valid(site: Site) -> None:
    """One valid among junk counts, two different valid ones don't, nor does one among more than three."""
    mine, other = pair(site.get("a", "/login/7")), pair(site.get("a", "/login/8"))
    junk = f"cs={'0' * 105}"
    assert site.values("b", f"{junk}; {mine}; {junk}") == {"_user_id": "7"}
    assert site.values("b", f"{mine}; {mine}") == {"_user_id": "7"}
    assert site.values("b", f"{mine}; {other}") == {}
    assert site.values("b", f"cs=1; cs=2; cs=3; {mine}") == {}
    assert site.cluster.counted("refused_duplicate") == 2


# --- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["down", "paused", "garbage", "dead"])
@pytest.mark.parametrize("which", ["master", "backup"])
def test_one_owner_that_fails_costs_nothing_but_time(site: Site, cluster: InProcessCluster, fault: str, which: str) -> None:
    """Read, write, log out on the other hosts: right answers, and the fault was met."""
    cookie = pair(site.get("a", "/login/7"))
    owner = "a" if which == "master" else next(each.target for each in cluster.sent if each.source == "a")
    others = [name for name in "abc" if name != owner]
    getattr(cluster, fault)(owner)
    before = len(cluster.sent)
    assert [site.values(host, cookie) for host in others] == [{"_user_id": "7"}] * 2
    written = site.get(others[0], "/set/k/v", cookie)
    assert written.status == 200
    newer = pair(written) if session_cookies(written) else cookie
    assert site.values(others[1], newer) == {"_user_id": "7", "k": "v"}
    assert site.values(others[1], cookie) == {"_user_id": "7", "k": "v"}
    assert site.get(others[1], "/logout", newer).status == 200
    assert [site.values(host, each) for host in others for each in (cookie, newer)] == [{}] * 4
    assert fault == "dead" or any(each.target == owner for each in cluster.sent[before:])


@pytest.mark.parametrize("fault", ["down", "paused", "garbage"])
def test_no_owner_that_answers_is_a_503_and_not_an_empty_session(site: Site, cluster: InProcessCluster, fault: str) -> None:
    """503 with Retry-After, the cookie left alone; when the owners are back, so is the session."""
    cookie = pair(site.get("a", "/login/7"))
    backup = next(each.target for each in cluster.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)
    getattr(cluster, fault)("a", backup)
    for path in ("/", "/set/k/v", "/login/8", "/rotate"):
        answer = site.get(third, path, cookie)
        assert (answer.status, answer.one("Retry-After"), session_cookies(answer)) == (503, "1", []), path
        assert answer.varies
    assert site.get(third, "/quiet", cookie).status == 200
    cluster.back("a", backup)
    assert site.values(third, cookie) == {"_user_id": "7"}


def test_a_logout_that_no_owner_hears_still_removes_the_cookie(site: Site, cluster: InProcessCluster) -> None:
    """503, since it is not final yet, but this browser is logged out."""
    cookie = pair(site.get("a", "/login/7"))
    backup = next(each.target for each in cluster.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)
    cluster.down("a", backup)
    answer = site.get(third, "/logout", cookie)
    (deletion,) = session_cookies(answer)
    assert (answer.status, answer.one("Retry-After")) == (503, "1")
    assert deletion.startswith("cs=; ")
    assert "Max-Age=0" in deletion


def test_a_session_that_is_unavailable_is_asked_for_once_a_request(site: Site, cluster: InProcessCluster) -> None:
    """The error page does not wait for the same silence again."""
    cookie = pair(site.get("a", "/login/7"))
    backup = next(each.target for each in cluster.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)
    cluster.down("a", backup)
    before = len(cluster.sent)
    assert site.get(third, "/", cookie).status == 503
    fetches = [each for each in cluster.sent[before:] if isinstance(each.call, Fetch)]
    assert sorted(each.target for each in fetches) == sorted({"a", backup})


def elsewhere(cluster: InProcessCluster, host: str, cookie: str, change: Callable[[Session], None]) -> Callable[[], None]:
    """Another request, on `host`, from beginning to end."""

    def request() -> None:
        engine = cluster[host].engine
        visit = engine.visit((cookie,), blocking=True)
        change(visit.session)
        engine.blocking.run(visit.save(), visit.budget)

    return request


@pytest.mark.parametrize("change", [Session.end, Session.rotate], ids=["logout", "rotation"])
def test_a_write_that_comes_too_late_is_refused(site: Site, cluster: InProcessCluster, change: Callable[[Session], None]) -> None:
    """The session ended while this request was at work: 409, to be repeated at once; nothing is set, nothing revived."""
    cookie = pair(site.get("a", "/login/7"))
    meanwhile.append(elsewhere(cluster, "c", cookie, change))
    answer = site.get("b", "/interrupted/k/v", cookie)
    assert (answer.status, answer.one("Retry-After"), session_cookies(answer)) == (409, "0", [])
    assert [site.values(host, cookie) for host in "abc"] == [{}] * 3
    assert cluster.counted("late_write") == 1


def test_a_write_during_another_write_is_kept_with_it(site: Site, cluster: InProcessCluster) -> None:
    """Two requests at work on one session at the same time: no lost update."""
    cookie = pair(site.get("a", "/login/7"))
    meanwhile.append(elsewhere(cluster, "c", cookie, lambda session: session.update(other="w")))
    assert site.get("b", "/interrupted/k/v", cookie).status == 200
    assert site.values("a", cookie) == {"_user_id": "7", "k": "v", "other": "w"}


def test_after_a_logout_the_next_write_begins_a_new_session(site: Site) -> None:
    """The old ID is dead for good, and what is written under it gets a new one."""
    cookie = pair(site.get("a", "/login/7"))
    site.get("c", "/logout", cookie)
    answer = site.get("a", "/set/k/v", cookie)
    assert site.values("c", pair(answer)) == {"k": "v"}
    assert site.values("b", cookie) == {}


def test_an_error_of_the_app_is_left_to_the_framework(site: Site, cluster: InProcessCluster) -> None:
    """The middleware neither hides nor changes it."""
    try:
        answer = site.get("a", "/boom")
    except ZeroDivisionError:
        return
    assert answer.status == 500


def failed(site: Site, host: str, path: str, cookie: str) -> Answer | None:
    """The answer of a page that fails; None where the server makes it of the exception."""
    try:
        answer = site.get(host, path, cookie)
    except ZeroDivisionError:
        assert site.framework not in ("flask", "django", "django_async"), "these make a page of it"
        return None
    assert answer.status == 500
    return answer


def test_a_logout_counts_also_if_the_page_fails_then(site: Site, cluster: InProcessCluster) -> None:
    """Dead on every host before anybody sees the error page; nothing of it begins a new session where no cookie can go out."""
    cookie = pair(site.get("a", "/login/7"))
    failed(site, "b", "/logout_boom", cookie)
    assert [site.values(host, cookie) for host in "abc"] == [{}] * 3
    assert cluster.counted("session_ended") == 1


def test_a_page_that_fails_keeps_the_session_and_its_id(site: Site) -> None:
    """A new ID that no answer carries would be a logout: there is none then."""
    cookie = pair(site.get("a", "/login/7"))
    answer = failed(site, "b", "/rotate_boom", cookie)
    carried = pair(answer) if answer is not None and session_cookies(answer) else cookie
    assert site.values("c", carried) == {"_user_id": "7"}


def test_a_page_that_fails_gives_up_its_lock(site: Site) -> None:
    """The next request has it at once, whether the page failed or was refused; and nothing else of the page is stored where
    the framework drops that."""
    cookie = pair(site.get("a", "/login/7"))
    failed(site, "b", "/lock_boom/pay", cookie)
    engine = site.cluster["b"].engine
    engine.visit((cookie,), blocking=True).session.lock("other")
    assert site.get("c", "/lock_both/pay/other", cookie).status == 409
    assert site.get("a", "/lock/pay", cookie).status == 200
    kept = {"before": "boom"} if site.framework == "flask" else {}
    assert site.values("c", cookie) == {"_user_id": "7", "pay": "done", **kept}


@pytest.mark.parametrize("path", ["/large", "/strange"])
def test_what_no_session_can_hold_is_an_error_of_the_app(site: Site, cluster: InProcessCluster, path: str) -> None:
    """Too large or of an unknown type: a server error, and the stored version is intact."""
    cookie = pair(site.get("a", "/set/k/v"))
    try:
        answer = site.get("b", path, cookie)
    except SessionRefused:
        assert site.framework not in ("flask", "django", "django_async"), "these make a page of it"
    else:
        assert (answer.status, session_cookies(answer)) == (500, [])
    assert site.values("c", cookie) == {"k": "v"}


# --- operations ------------------------------------------------------------------------------------------------------------


def test_operations_of_parallel_requests_both_count(site: Site) -> None:
    """Another host counts between this request's look and its save; every framework's session has the operations."""
    cookie = pair(site.get("a", "/set/theme/dark"))
    assert site.get("b", "/count/n", cookie).status == 200
    meanwhile.append(elsewhere(site.cluster, "c", cookie, lambda session: act(session, "/count/n")))
    assert json.loads(site.get("a", "/count/n", cookie).body) == 2
    assert meanwhile == []
    engine = site.cluster["b"].engine
    assert dict(engine.visit((cookie,), blocking=True).session) == {
        "theme": "dark",
        "n": 3,
        "n log": [1, 2, 2],  # what each request saw
        "n set": {1},
    }


def test_a_value_that_is_not_what_the_app_expects_is_a_conflict(site: Site) -> None:
    """409, to be repeated at once; nothing is saved, the cookie is left alone, and the repeated request sees the new value."""
    cookie = pair(site.get("a", "/set/seat/free"))
    meanwhile.append(elsewhere(site.cluster, "b", cookie, lambda session: act(session, "/set/seat/lost")))
    answer = site.get("c", "/take/seat", cookie)
    assert (answer.status, answer.one("Retry-After"), session_cookies(answer)) == (409, "0", [])
    assert site.values("a", cookie) == {"seat": "lost"}
    meanwhile.append(lambda: None)
    assert site.get("c", "/take/seat", cookie).status == 200
    assert site.values("b", cookie) == {"seat": "taken"}


# --- all sessions of a user ----------------------------------------------------------------------------------------------


def test_a_user_sees_and_ends_the_other_sessions(site: Site) -> None:
    """In every framework: the list on any host, with from where; then only the one that asks is left, and others' stay."""
    mine, phone, other = (pair(site.get(host, f"/login/{user}")) for host, user in (("a", "7"), ("b", "7"), ("c", "8")))
    shown = json.loads(site.get("c", "/sessions/7", mine).body)
    assert len(shown) == 2
    assert {each["address"] for each in shown} == {"127.0.0.1"}
    assert site.get("c", "/end_others/7", mine).body == b"1"
    assert [bool(site.values("a", cookie)) for cookie in (mine, phone, other)] == [True, False, True]
    assert len(json.loads(site.get("b", "/sessions/7", mine).body)) == 1


def test_a_slow_request_does_not_undo_the_end_of_all(site: Site) -> None:
    """What a request that began before changes after it is refused, and sets no cookie."""
    cookie = pair(site.get("a", "/login/7"))
    meanwhile.append(lambda: site.cluster["c"].engine.users.end_all("7"))
    answer = site.get("b", "/interrupted/late/1", cookie)
    assert meanwhile == []
    assert (answer.status, session_cookies(answer)) == (409, [])
    assert [site.values(host, cookie) for host in "abc"] == [{}] * 3


def test_a_fresh_login_is_asked_for(site: Site) -> None:
    """The error of an old login is the app's to answer; a login shown again is fresh, under a new ID."""
    cookie = pair(site.get("a", "/login/7"))
    with pytest.raises((LoginTooOld, AssertionError)):
        assert site.get("a", "/fresh/0", cookie).status == 200
    again = pair(site.get("a", "/relogin_now", cookie))
    assert again != cookie
    assert site.get("b", "/fresh/60", again).status == 200
    assert site.values("a", cookie) == {}


def test_a_request_that_looks_again_sees_what_others_have_changed(site: Site, cluster: InProcessCluster) -> None:
    """What is stored now, under what the request has changed itself; and both are stored then."""
    cookie = pair(site.get("a", "/set/k/old"))
    meanwhile.append(elsewhere(cluster, "c", cookie, lambda session: session.update(k="new", other=1)))
    assert json.loads(site.get("b", "/refresh/k", cookie).body) == {"k": "new", "other": 1}
    meanwhile.append(elsewhere(cluster, "c", cookie, lambda session: session.update(k="theirs", other=2)))
    assert json.loads(site.get("b", "/set_refresh/k/mine", cookie).body) == {"k": "mine", "other": 2}
    assert site.values("a", cookie) == {"k": "mine", "other": 2}


def test_a_request_that_looks_again_sees_a_logout_elsewhere(site: Site, cluster: InProcessCluster) -> None:
    """The session is empty from then on, and what the request has changed in it is refused, not begun anew."""
    cookie, other = pair(site.get("a", "/login/7")), pair(site.get("a", "/login/8"))
    meanwhile.append(elsewhere(cluster, "c", cookie, Session.end))
    seen = site.get("b", "/refresh/_user_id", cookie)
    assert (seen.status, json.loads(seen.body), session_cookies(seen)) == (200, {}, [])
    meanwhile.append(elsewhere(cluster, "c", other, Session.end))
    assert site.get("b", "/set_refresh/k/mine", other).status == 409
    assert site.values("b", other) == {}


def test_a_request_that_looks_again_and_gets_no_answer_is_a_503(site: Site, cluster: InProcessCluster) -> None:
    """Unknown is not what was seen before."""
    cookie = pair(site.get("a", "/login/7"))
    backup = next(each.target for each in cluster.sent if each.source == "a")
    third = next(name for name in "bc" if name != backup)
    meanwhile.append(lambda: cluster.down("a", backup))
    answer = site.get(third, "/refresh/_user_id", cookie)
    assert (answer.status, answer.one("Retry-After"), session_cookies(answer)) == (503, "1", [])


def test_a_locked_session_is_a_409_for_the_other_request(site: Site) -> None:
    """In every framework: the second request is told to come again, and the first one saves what it did."""
    cookie = pair(site.get("a", "/login/7"))
    engine = site.cluster["c"].engine
    first = engine.visit((cookie,), blocking=True)
    first.session.lock("pay")
    assert site.get("b", "/lock/pay", cookie).status == 409
    engine.blocking.run(first.save(), first.budget)
    assert site.get("b", "/lock/pay", cookie).status == 200
    assert site.get("c", "/lock/pay", cookie).status == 200
    assert site.values("a", cookie) == {"_user_id": "7", "pay": "done"}
