"""The doctor's verdict from what was found."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clustersession.core.diagnosis import Diagnosis, Health, diagnosis
from clustersession.core.facts import CanaryFacts, Checked, Examination, LinkFacts, NodeFacts
from clustersession.core.findings import Gravity

DAY = 86400.0
NAMES = ("a", "b", "c")


def facts(name: str, **changes: Any) -> NodeFacts:
    others = [each for each in NAMES if each != name]
    well = NodeFacts(
        node=name,
        release="1.0",
        wall_s=1.7e9,
        mode="on",
        ring="1:aaaa",
        exposed=False,
        cookie="cs",
        cookie_secure=True,
        synced=True,
        leaving=False,
        entries=10,
        bytes_used=10,
        bytes_max=100,
        debt=0,
        links=tuple(LinkFacts(peer=each, state="alive", ago_s=0.2, called_ago_s=0.3) for each in others),
        canaries=tuple(CanaryFacts(backup=each, ms=3.0) for each in others),
    )
    return msgspec.structs.replace(well, **changes)


def member(name: str, said: NodeFacts | None, **changes: Any) -> Checked:
    found = Checked(node=name, state="alive", address=f"10.0.0.{ord(name)}:10060", facts=said, rtt_ms=1.0, within_s=0.0005)
    return msgspec.structs.replace(found, **changes)


def examined(*members: Checked, asked: str = "a") -> Diagnosis:
    return diagnosis(Examination(asked=asked, cluster="shop", seconds=0.2, members=members))


def all_with(**changes: Any) -> Diagnosis:
    """Three hosts, of which c is different."""
    return examined(member("a", facts("a")), member("b", facts("b")), member("c", facts("c", **changes)))


def counting(**counts: tuple[int, ...]) -> Diagnosis:
    """Three hosts of which one has counted this."""
    return all_with(counts=counts)


def codes(found: Diagnosis, gravity: Gravity) -> list[str]:
    return [each.code for each in found.findings if each.gravity is gravity]


def test_nothing_found_is_healthy() -> None:
    """The sentence says what was tried."""
    found = all_with()
    assert (found.verdict, found.cause, found.findings, found.pairs) == (Health.HEALTHY, None, (), (6, 6))
    assert "3 hosts answer" in found.words
    assert "6 of 6 pairs" in found.words


def test_a_single_host_is_healthy_and_says_that_it_is_alone() -> None:
    """There is no pair to try."""
    found = examined(member("a", facts("a", links=(), canaries=())))
    assert found.verdict is Health.HEALTHY
    assert "the only host" in found.words


@pytest.mark.parametrize(
    ("changes", "gravity", "code"),
    [
        ({"ring": "1:bbbb"}, Gravity.BREAKS, "secret"),
        ({"ring": "2:bbbb 1:aaaa"}, Gravity.NOTE, "ring"),
        ({"unmet": {"10.9.9.9:10060": "auth"}}, Gravity.BREAKS, "secret"),
        ({"unmet": {"10.9.9.9:10060": "refused"}}, Gravity.TROUBLE, "unmet"),
        ({"unmet": {"app.test:10060": "Name or service not known"}}, Gravity.TROUBLE, "unmet"),
        ({"unmet": {"10.9.9.9:10060": "namesake"}}, Gravity.BREAKS, "name"),
        ({"store_error": "it is broken"}, Gravity.BREAKS, "store"),
        ({"down": {"16": "process 7 (gunicorn, stopped)"}}, Gravity.TROUBLE, "shard"),
        ({"bytes_used": 95}, Gravity.TROUBLE, "room"),
        ({"release": "1.1"}, Gravity.NOTE, "release"),
        ({"exposed": True}, Gravity.NOTE, "plain"),
        ({"synced": False}, Gravity.NOTE, "syncing"),
        ({"debt": 7}, Gravity.NOTE, "debt"),
        ({"notes": ("There is no setting CLUSTERSESSION_SECRETS.",)}, Gravity.NOTE, "setting"),
        ({"canaries": (CanaryFacts(backup="a", ms=1.0, step="create", at="c", why="full"),)}, Gravity.BREAKS, "canary"),
        ({"canaries": (CanaryFacts(backup="a", ms=1.0, step="read", at="a", why="later"),)}, Gravity.TROUBLE, "canary"),
        ({"canaries": (CanaryFacts(backup="a", ms=1.0, step="create", at="a", why="timeout"),)}, Gravity.TROUBLE, "link"),
        ({"links": (LinkFacts(peer="a", state="alive", why="timeout"),), "canaries": ()}, Gravity.TROUBLE, "link"),
        ({"counts": {"store_full": (0, 4)}}, Gravity.BREAKS, "full"),
    ],
)
def test_each_cause_has_its_code(changes: dict[str, Any], gravity: Gravity, code: str) -> None:
    """One finding, as grave as it is, and the verdict follows the gravest."""
    found = all_with(**changes)
    assert [(each.gravity, each.code) for each in found.findings] == [(gravity, code)]
    verdicts = {Gravity.BREAKS: Health.NOT_STICKING, Gravity.TROUBLE: Health.IMPAIRED, Gravity.NOTE: Health.HEALTHY}
    assert found.verdict is verdicts[gravity]
    assert found.cause == (None if gravity is Gravity.NOTE else code)


def test_the_gravest_is_told_first() -> None:
    """Of several the cause that explains the others."""
    found = all_with(ring="1:bbbb", debt=4, bytes_used=99, counts={"id_sent": (40,)})
    assert found.cause == "secret"
    assert [each.code for each in found.findings] == ["secret", "stripped", "room", "debt"]


# --- clocks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "absolute_s", "gravity"),
    [(50.0, None, None), (3700.0, None, Gravity.TROUBLE), (-3700.0, DAY, Gravity.TROUBLE), (2 * DAY, DAY, Gravity.BREAKS)],
)
def test_a_clock_is_wrong_beyond_a_minute_and_breaks_beyond_the_limit(
    ahead: float, absolute_s: float | None, gravity: Gravity | None
) -> None:
    """Against most of the others, whichever host was asked."""
    limited = {"absolute_s": absolute_s}
    for wrong in NAMES:
        off = {"a": 0.0, "b": 0.0, "c": 0.0} | {wrong: ahead}
        members = [member(each, facts(each, **limited), ahead_s=off[each] - off["a"]) for each in NAMES]
        found = examined(*members)
        assert [each.gravity for each in found.findings] == ([] if gravity is None else [gravity])
        assert [each.where for each in found.findings] == ([] if gravity is None else [(wrong,)])


def test_of_two_clocks_none_is_called_the_right_one() -> None:
    """Both are to be looked at."""
    pair = [member("a", facts("a")), member("b", facts("b"), ahead_s=7200.0)]
    (finding,) = (each for each in examined(*pair).findings if each.code == "clock")
    assert finding.where == ("a", "b")


def test_a_slow_answer_is_no_wrong_clock() -> None:
    """What the round trip may explain is not held against it."""
    slow = member("c", facts("c"), ahead_s=61.0, within_s=5.0)
    assert examined(member("a", facts("a")), member("b", facts("b")), slow).verdict is Health.HEALTHY


# --- hosts that give no answer -----------------------------------------------------------------------------------------------


def without_c(why: str, **counts: tuple[int, ...]) -> Diagnosis:
    """a and b are there; nobody hears of c."""
    gone = LinkFacts(peer="c", state="dead", why=why, ago_s=0.5)
    kept = {each: facts(each).links[0] for each in ("a", "b")}
    sent = CanaryFacts(backup="c", ms=1.0, step="create", at="c", why=why)
    told = {
        each: facts(
            each, links=(kept[each], gone), canaries=(*facts(each).canaries[:1], sent), counts=counts if each == "a" else {}
        )
        for each in ("a", "b")
    }
    lost = member("c", None, state="dead", why=why)
    return examined(member("a", told["a"]), member("b", told["b"]), lost)


def test_a_host_that_nobody_hears_of_is_down() -> None:
    """New sessions stick on the others."""
    found = without_c("refused")
    assert (found.verdict, found.cause, found.findings[0].where) == (Health.IMPAIRED, "down", ("c",))


def test_a_host_that_is_down_and_serves_users_is_cut_off() -> None:
    """The others are shown cookies that are minutes old and lead nowhere."""
    found = without_c("timeout", refused_young_lost=(4,))
    assert (found.verdict, found.cause, found.findings[0].where) == (Health.NOT_STICKING, "cut_off", ("c",))
    assert found.step_back is None
    assert "take c out of the balancer" in found.advice


def test_a_host_that_reaches_nobody_says_so_of_itself() -> None:
    """Of several others, not all can be down."""
    gone = tuple(LinkFacts(peer=each, state="dead", why="timeout", ago_s=0.5) for each in ("b", "c"))
    alone = member("a", facts("a", links=gone, canaries=()))
    found = examined(alone, *(member(each, None, state="dead", why="timeout") for each in ("b", "c")))
    assert (found.verdict, found.cause, found.findings[0].where) == (Health.NOT_STICKING, "cut_off", ("a",))


def test_who_has_called_lately_is_not_down() -> None:
    """Of two hosts: b calls a, and a cannot call b."""
    one_way = (LinkFacts(peer="b", state="alive", why="timeout", ago_s=0.5, called_ago_s=0.4),)
    found = examined(member("a", facts("a", links=one_way, canaries=())), member("b", None, why="timeout"))
    assert (found.cause, found.findings[0].where) == ("link", ("a", "b"))


@pytest.mark.parametrize("state", ["leaving"])
def test_who_leaves_is_not_missed(state: str) -> None:
    """It is about to end, and says so."""
    gone = LinkFacts(peer="c", state=state, why="refused", ago_s=0.5)
    told = [member(each, facts(each, links=(facts(each).links[0], gone), canaries=facts(each).canaries[:1])) for each in "ab"]
    assert examined(*told, member("c", None, state=state, why="refused")).verdict is Health.HEALTHY


def test_the_smaller_side_is_to_blame_for_another_secret() -> None:
    """Also where it is the one that was asked."""
    unmet = {"10.0.0.1:1": "auth", "10.0.0.2:1": "auth"}
    alone = examined(member("a", facts("a", links=(), canaries=(), unmet=unmet)))
    assert (alone.cause, alone.findings[0].where) == ("secret", ("a",))
    most = all_with(unmet={"10.0.0.9:1": "auth"})
    assert most.findings[0].where == ("10.0.0.9:1",)


def test_users_who_are_refused_by_a_host_that_meets_nobody_are_put_down_to_that() -> None:
    """Their sessions are with those whom it does not find. Where it knows others, an address that nobody has is no such cause."""
    counts = {"id_returned": (50,), "refused_young_unavailable": (9,)}
    alone = examined(member("a", facts("a", links=(), canaries=(), unmet={"b.test:10060": "timeout"}, counts=counts)))
    assert (alone.verdict, alone.cause) == (Health.NOT_STICKING, "unmet")
    assert "b.test:10060" in alone.words
    assert "minutes old" in alone.words
    assert all_with(unmet={"d.test:10060": "timeout"}, counts=counts).cause == "young"


def test_a_host_of_the_same_name_is_said_with_its_address() -> None:
    """Each has sessions that the other one does not find, and no other host can tell the two apart."""
    found = examined(member("a", facts("a", links=(), canaries=(), unmet={"10.9.9.9:10060": "namesake"})))
    assert (found.verdict, found.findings[0].where) == (Health.NOT_STICKING, ("a",))
    assert "10.9.9.9:10060" in found.words
    assert "CLUSTERSESSION_NODE" in found.advice


# --- what users show ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        ({"id_sent": (19,)}, None),
        ({"id_sent": (20,)}, "stripped"),
        ({"id_sent": (20,), "id_returned": (0, 0, 1)}, None),
        ({"id_sent": (0,) * 10 + (50,)}, None),
        ({"id_sent": (20,), "id_sent_plain": (20,)}, "secure"),
        ({"id_sent": (20,), "id_sent_plain": (9,)}, "stripped"),
        ({"id_sent": (20,), "refused_not_ours": (10,), "id_sent_plain": (20,)}, "clash"),
        ({"id_sent": (20,), "refused_tampered": (10,)}, "clash"),
    ],
)
def test_cookies_that_never_come_back(counts: dict[str, tuple[int, ...]], cause: str | None) -> None:
    """Twenty new ones in ten minutes of which none was seen again, and what came in their place."""
    assert counting(**counts).cause == cause


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        ({"refused_young_lost": (2,), "id_returned": (9,)}, None),
        ({"refused_young_lost": (3,), "id_returned": (9,)}, "young"),
        ({"refused_young_lost": (3,), "id_returned": (61,)}, None),
        ({"refused_young_lost": (0, 0, 0, 30), "id_returned": (9,)}, None),
        ({"refused_young_unavailable": (2,), "refused_young_expired_idle": (1,)}, "young"),
        ({"refused_young_logout": (30,), "refused_young_rotated": (30,), "id_returned": (9,)}, None),
    ],
)
def test_sessions_that_are_refused_too_soon(counts: dict[str, tuple[int, ...]], cause: str | None) -> None:
    """Some that were minutes old, in the last minutes, and not just a few of many; a logout is never too soon."""
    assert counting(**counts).cause == cause


def test_a_cut_way_breaks_sessions_once_users_are_refused() -> None:
    """As long as every session has an owner that can be asked, it does not."""
    fault = (CanaryFacts(backup="a", ms=1.0, step="create", at="a", why="timeout"),)
    assert all_with(canaries=fault).verdict is Health.IMPAIRED
    found = all_with(canaries=fault, counts={"refused_young_unavailable": (5,)})
    assert (found.verdict, found.cause) == (Health.NOT_STICKING, "link")


def test_old_cookies_are_harmless_and_counted() -> None:
    """How many, why, since when, and whether there are fewer of them now."""
    found = counting(
        refused_session_unknown_key=(0,) * 12 + (30, 20), refused_session_expired_idle=(1,), refused_session_lost=(9,)
    )
    assert (found.verdict, found.cause, found.step_back) == (Health.OLD_COOKIES, None, None)
    old = found.old_cookies
    assert old is not None
    assert (old.sessions, old.since_min, old.trend) == (51, 13, "falling")
    assert old.by == {"unknown_key": 50, "expired_idle": 1}
    assert "harmless" in found.words
    assert "fewer of them lately" in found.words


def test_old_cookies_are_counted_beside_a_trouble_too() -> None:
    """They are not what is wrong then."""
    found = all_with(ring="1:bbbb", counts={"refused_session_not_ours": (2,)})
    assert found.verdict is Health.NOT_STICKING
    assert found.old_cookies is not None


def test_counts_of_all_hosts_are_added() -> None:
    """Of what one has sent, another sees the return."""
    sent, returned = {"id_sent": (30,)}, {"id_returned": (3,)}
    found = examined(member("a", facts("a", counts=sent)), member("b", facts("b", counts=returned)), member("c", facts("c")))
    assert found.verdict is Health.HEALTHY


# --- whether to step back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "back"), [("on", "mirror"), ("mirror", "off"), ("off", None)])
def test_the_mode_to_step_back_to_is_the_one_before(mode: str, back: str | None) -> None:
    """Where all hosts are hit."""
    counts = {"id_sent": (40,)}
    found = examined(*(member(each, facts(each, mode=mode, counts=counts)) for each in NAMES))
    assert found.step_back == back
    assert (f"CLUSTERSESSION_MODE={back}" in found.advice) is (back is not None)


def test_nobody_steps_back_because_of_one_host() -> None:
    """That one is taken out of the balancer."""
    found = all_with(store_error="it is broken")
    assert (found.verdict, found.step_back) == (Health.NOT_STICKING, None)
    assert "take c out of the balancer" in found.advice
