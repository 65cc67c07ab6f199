"""The two situations of an operator whose users are logged out, made on purpose with real hosts: a few users with old cookies,
and new sessions that do not stick. Each makes its fault, has users pass by, and proves that the fault was there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from clustersession.core.keyring import KeyRing
from clustersession.core.session_id import IdContext, encode, node_tag, verify
from clustersession.core.symptoms import YOUNG_MIN
from clustersession.settings import new_key
from tests.end_to_end.browser import Browser, send
from tests.end_to_end.cluster import SECRET, Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until
from tests.end_to_end.servers import WSGI, Address, gunicorn
from tests.faults.apart import ApartCluster, namespaces
from tests.faults.proxy import links

from .stripping import stripping

USERS: Final = 30
SHOWN_S: Final = 10.0
NAMES: Final = ("n1", "n2", "n3")
FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
WRONG_CLOCK: Final = Path(__file__).parents[1] / "faults" / "wrong_clock"
HOURS: Final = 13


class Expected(NamedTuple):
    """What the doctor must say. `cause`: None if all is well; `where`: hosts that it must name, by name or address."""

    verdict: str
    cause: str | None = None
    where: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()  # reasons of old cookies, each of which it must have seen
    complaint: str | None = None  # what the logs say at each host, and complain of nothing else


class Making(NamedTuple):
    """What a situation is made with. `stack`: what ends when the doctor has been."""

    new_cluster: NewCluster
    stack: ExitStack
    directory: Path


Situation = Callable[[Making], tuple[Cluster, Expected]]


def start(cluster: Cluster, *, whole: bool = True) -> Cluster:
    for host in cluster:
        host.run(gunicorn(WSGI, host.app, workers=1))
    if whole:
        cluster.await_whole()
    else:
        for host in cluster:
            until(host.serves, f"{host.name} does not serve")
    return cluster


def log_in(cluster: Cluster, number: int, at: Address | None = None) -> Browser:
    browser = Browser()
    hosts = cluster.hosts
    browser.get(at or hosts[number % len(hosts)].app, "/set", _user_id=f"user {number}", cart="apple")
    return browser


def pass_by(cluster: Cluster, users: int = USERS) -> list[Browser]:
    """New users, each of whom goes on to the next host with what the first has given; nobody is logged out."""
    hosts, browsers = cluster.hosts, [log_in(cluster, number) for number in range(users)]
    for number, browser in enumerate(browsers):
        assert browser.get(hosts[(number + 1) % len(hosts)].app, "/look").items["cart"] == "apple"
    return browsers


def logged_out(cluster: Cluster, browsers: list[Browser]) -> int:
    """How many find an empty session, or none at all, on some host."""
    answers = [[send(host.app, "/look", browser.cookies) for host in cluster] for browser in browsers]
    return sum(any(each.status != 200 or not each.items for each in row) for row in answers)


def counted(cluster: Cluster, name: str) -> int:
    """In all hosts, as their nodes know."""
    lines = [line for host in cluster for line in host.ask_admin("/metrics")[1].splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"clustersession_{name}_total "))


def shown(cluster: Cluster, name: str, least: int) -> None:
    """The counts of the workers have reached their nodes."""
    until(lambda: counted(cluster, name) >= least, f"{name}: {counted(cluster, name)} of {least}", SHOWN_S)


# --- nothing is wrong --------------------------------------------------------------------------------------------------------


def all_is_well(making: Making) -> tuple[Cluster, Expected]:
    cluster = start(making.new_cluster(3))
    pass_by(cluster)
    shown(cluster, "id_returned", USERS)
    return cluster, Expected("healthy")


# --- a few users with old cookies --------------------------------------------------------------------------------------------


def a_key_was_retired(making: Making) -> tuple[Cluster, Expected]:
    """The ring is rotated while the hosts serve, and the old key is dropped before some users are back."""
    cluster = making.new_cluster(3)
    file = cluster.hosts[0].directory / "ring"
    old, new = new_key(1), new_key(2)
    file.write_text(old)
    for host in cluster:
        del host.environ["CLUSTERSESSION_SECRET"]
        host.environ["CLUSTERSESSION_SECRET_FILE"] = str(file)
    start(cluster)
    away = pass_by(cluster, 5)
    for ring in (f"{new},{old}", new):
        file.write_text(ring)
        kids = [int(each.partition(":")[0]) for each in ring.split(",")]
        until(lambda kids=kids: all(_kids(host) == [kids] * 3 for host in cluster), "the ring is not everywhere")  # type: ignore[misc]
    time.sleep(1.5)  # the workers look at the file once a second too, and nothing shows that they have
    assert logged_out(cluster, away) == len(away)
    pass_by(cluster)
    shown(cluster, "refused_unknown_key", len(away))
    return cluster, Expected("old_cookies", codes=("unknown_key",))


def _kids(host: Host) -> list[list[int]]:
    return [member["kids"] for member in host.status()["members"]]


def cookies_of_another_cluster(making: Making) -> tuple[Cluster, Expected]:
    """Another site of the same domain had the same cookie name, and keys of its own."""
    cluster = start(making.new_cluster(3))
    key = KeyRing.parse(new_key(1)).signing
    strangers = []
    for number in range(5):
        tag, token = node_tag(key, "www", 10060), bytes([number] * 16)
        born = int(time.time() / 60) - 90
        text = encode(
            token=token, born=born, master=tag, backup=None, epoch=1, version=1, key=key, context=IdContext("other", "cs")
        )
        strangers.append(Browser({"cs": text}))
    assert logged_out(cluster, strangers) == len(strangers)
    pass_by(cluster)
    shown(cluster, "refused_foreign", len(strangers))
    return cluster, Expected("old_cookies", codes=("foreign",))


def sessions_that_idled_out(making: Making) -> tuple[Cluster, Expected]:
    """Users who were away for longer than a session may idle; their cookies say that they are 40 minutes old."""
    cluster = start(making.new_cluster(3, IDLE_TIMEOUT="3s"))
    away = [_issued_before(browser, minutes=40) for browser in pass_by(cluster, 5)]
    until(lambda: all(_is_over(cluster.hosts[0], browser) for browser in away), "they do not idle out")
    assert logged_out(cluster, away) == len(away)
    pass_by(cluster)
    shown(cluster, "refused_expired_idle", len(away))
    return cluster, Expected("old_cookies", codes=("expired_idle",))


def _is_over(host: Host, browser: Browser) -> bool:
    """Whether it has passed a limit, found out without using it."""
    handle = verify(browser.jar["cs"], KeyRing.parse(SECRET), IdContext("default", "cs")).handle
    facts = [each["facts"] for each in json.loads(host.ask_admin(f"/explain/{handle}")[1])["holdings"]]
    return any(each is not None and (each["expired"] or each["ended"]) for each in facts)


def _issued_before(browser: Browser, minutes: int) -> Browser:
    """With the ID that it would have if it had got it so long ago."""
    ring, context = KeyRing.parse(SECRET), IdContext("default", "cs")
    sid = verify(browser.jar["cs"], ring, context)
    text = encode(
        token=sid.token,
        born=sid.born - minutes,
        master=sid.master,
        backup=sid.backup,
        epoch=sid.epoch,
        version=sid.version,
        key=ring.signing,
        context=context,
    )
    return Browser({"cs": text})


def cookies_of_the_system_before(making: Making) -> tuple[Cluster, Expected]:
    """The app's former sessions had the name that ours has now."""
    cluster = start(making.new_cluster(3))
    before = [Browser({"cs": f"eyJ1c2VyIjoi{number}In0.aRk3nQ.signature-of-before"}) for number in range(8)]
    assert logged_out(cluster, before) == len(before)
    for number, browser in enumerate(before[:4]):  # half of them log in anew, and that sticks
        browser.get(cluster.hosts[number % 3].app, "/set", _user_id="again")
    assert logged_out(cluster, before[:4]) == 0
    shown(cluster, "refused_not_ours", len(before))
    return cluster, Expected("old_cookies", codes=("not_ours",))


# --- something is wrong, and new sessions stick ------------------------------------------------------------------------------


def a_host_that_nobody_reaches(making: Making) -> tuple[Cluster, Expected]:
    """n2 calls the others, and none of their calls reaches it: a firewall with a rule for one direction only. Whatever n2 has,
    the other owner has too."""
    cluster = making.new_cluster(3)
    found = making.stack.enter_context(links(cluster))
    start(cluster)
    link = found["n2"]
    making.stack.callback(link.heal)
    link.swallowed = frozenset({"in"})
    until(lambda: link.hit["swallow"] > 3, "nothing was swallowed")
    browsers = [log_in(cluster, number) for number in range(USERS)]
    browsers = [browser for browser in browsers if browser.jar]  # a login that was a 503 would be repeated
    assert len(browsers) > USERS // 2
    answers = [send(host.app, "/look", browser.cookies) for browser in browsers for host in cluster]
    assert all(answer.status == 503 or answer.items["cart"] == "apple" for answer in answers), "somebody was logged out"
    late = sum(answer.status == 503 for answer in answers)
    assert late <= len(answers) // 20
    shown(cluster, "refused_unavailable", late)
    verdict = "impaired" if late < YOUNG_MIN else "not_sticking"  # as its page says: users were refused
    return cluster, Expected(verdict, "link", ("n2",))


# --- new sessions do not stick -----------------------------------------------------------------------------------------------


def hosts_with_different_secrets(making: Making) -> tuple[Cluster, Expected]:
    cluster = making.new_cluster(3)
    odd = cluster.hosts[2]
    odd.environ["CLUSTERSESSION_SECRET"] = new_key(1)
    start(cluster, whole=False)
    until(lambda: all(host.sees({"n1", "n2"}) for host in cluster.hosts[:2]), "the others do not meet")
    browsers = [log_in(cluster, number) for number in range(USERS)]
    assert logged_out(cluster, browsers) == USERS
    return cluster, Expected("not_sticking", "secret", (f"{odd.peer[0]}:{odd.peer[1]}",))


def a_host_that_came_back_with_another_secret(making: Making) -> tuple[Cluster, Expected]:
    """It had left as it should, so nobody misses it."""
    cluster = start(making.new_cluster(3))
    odd = cluster.hosts[2]
    assert odd.end() == 0
    odd.environ["CLUSTERSESSION_SECRET"] = new_key(1)
    odd.run(gunicorn(WSGI, odd.app, workers=1))
    until(odd.serves, "it does not serve")
    assert cluster.hosts[0].member_states()["n3"] == "left"
    browsers = [log_in(cluster, number) for number in range(USERS)]
    assert logged_out(cluster, browsers) == USERS
    return cluster, Expected("not_sticking", "secret", (f"{odd.peer[0]}:{odd.peer[1]}",))


def hosts_of_one_name(making: Making) -> tuple[Cluster, Expected]:
    cluster = making.new_cluster(2)
    for host in cluster:
        host.environ["CLUSTERSESSION_NODE"] = "app"
    start(cluster, whole=False)
    browsers = [log_in(cluster, number) for number in range(USERS)]
    assert logged_out(cluster, browsers) == USERS
    return cluster, Expected("not_sticking", "name", ("app",), complaint="calls itself 'app' as this one does")


def names_that_do_not_resolve(making: Making) -> tuple[Cluster, Expected]:
    """Each host is alone with its users, and those of the other one are refused there."""
    cluster = making.new_cluster(2)
    for host in cluster:
        host.environ["CLUSTERSESSION_PEERS"] = "app-1.invalid:10060,app-2.invalid:10060"
    start(cluster, whole=False)
    browsers = [log_in(cluster, number) for number in range(USERS)]
    assert logged_out(cluster, browsers) == USERS
    for host in cluster:
        until(lambda host=host: _refused_young(host) >= YOUNG_MIN, "the refusals are not counted", SHOWN_S)  # type: ignore[misc]
    return cluster, Expected("not_sticking", "unmet")


def _refused_young(host: Host) -> int:
    lines = host.ask_admin("/metrics")[1].splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("clustersession_refused_young_unavailable_total "))


def a_secure_cookie_over_plain_http(making: Making) -> tuple[Cluster, Expected]:
    """A browser keeps no Secure cookie that came over plain HTTP (RFC 6265bis 5.7, step 8)."""
    cluster = making.new_cluster(3, COOKIE_SECURE="1")
    start(cluster)
    kept = [log_in(cluster, number).jar for number in range(USERS)]
    assert all(list(jar) == ["__Host-cs"] for jar in kept)
    assert logged_out(cluster, [Browser()] * 3) == 3
    shown(cluster, "id_sent_plain", USERS)
    return cluster, Expected("not_sticking", "secure")


def a_proxy_that_strips_set_cookie(making: Making) -> tuple[Cluster, Expected]:
    cluster = start(making.new_cluster(3))
    for number, host in enumerate(cluster):
        at, dropped = making.stack.enter_context(stripping(host.app))
        browsers = [log_in(cluster, user, at) for user in range(number, USERS, 3)]
        assert len(dropped) == len(browsers)
        assert logged_out(cluster, browsers) == len(browsers)
    shown(cluster, "id_sent", USERS)
    return cluster, Expected("not_sticking", "stripped")


def another_app_with_the_same_cookie_name(making: Making) -> tuple[Cluster, Expected]:
    """It sets its own value with every page, between any two requests of ours."""
    cluster = start(making.new_cluster(3))
    browsers = [log_in(cluster, number) for number in range(USERS)]
    for browser in browsers:
        browser.jar["cs"] = "consent=all"
    assert logged_out(cluster, browsers) == USERS
    shown(cluster, "refused_not_ours", USERS)
    return cluster, Expected("not_sticking", "clash")


def a_host_that_is_cut_off(making: Making) -> tuple[Cluster, Expected]:
    """Nothing of n1 arrives anywhere, and nothing arrives at n1; the balancer, which reaches all, goes on as before."""
    network = making.stack.enter_context(namespaces("n1", "n2", "n3"))
    cluster = making.stack.enter_context(ApartCluster(making.directory / "apart", network))
    start(cluster)
    for other in ("n2", "n3"):
        cluster.cut("n1", other)
        cluster.cut(other, "n1")
    browsers = [log_in(cluster, number) for number in range(USERS)]
    until(lambda: cluster["n1"].member_states() == {"n1": "alive", "n2": "dead", "n3": "dead"}, "n1 still believes in the others")
    until(lambda: cluster["n2"].member_states() == {"n1": "dead", "n2": "alive", "n3": "alive"}, "n2 still believes in n1")
    browsers += [log_in(cluster, number) for number in range(USERS)]
    assert logged_out(cluster, browsers) >= USERS
    shown(cluster, "refused_session_lost", 3)
    making.stack.callback(_mended, cluster)
    return cluster, Expected("not_sticking", "cut_off", ("n1",))


def _mended(cluster: ApartCluster) -> None:
    dropped = cluster.mend()
    assert len(dropped) == 4
    assert all(dropped.values()), "nothing was cut"


def a_clock_that_is_hours_behind(making: Making) -> tuple[Cluster, Expected]:
    """What n3 gives out is older than twelve hours for the others, at once."""
    return _with_wrong_clock(making, -HOURS)


def a_clock_that_is_hours_ahead(making: Making) -> tuple[Cluster, Expected]:
    """What the others give out is older than twelve hours for n3, at once."""
    return _with_wrong_clock(making, HOURS)


def _with_wrong_clock(making: Making, hours: int) -> tuple[Cluster, Expected]:
    cluster = making.new_cluster(3, PROFILE="strict")
    wrong = cluster.hosts[2]
    file = wrong.directory / "clock"
    file.write_text(f"{hours * 3600:+d}\n")
    wrong.environ |= {
        "LD_PRELOAD": str(FAKETIME),
        "PYTHONPATH": f"{WRONG_CLOCK}:{wrong.environ['PYTHONPATH']}",
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    start(cluster)
    browsers = [log_in(cluster, number) for number in range(USERS)]
    assert logged_out(cluster, browsers) >= USERS // 3
    shown(cluster, "refused_outlived", USERS // 3)
    return cluster, Expected("not_sticking", "clock", ("n3",))


IMPAIRED: Final[tuple[Situation, ...]] = (a_host_that_nobody_reaches,)
OLD_COOKIES: Final[tuple[Situation, ...]] = (
    a_key_was_retired,
    cookies_of_another_cluster,
    sessions_that_idled_out,
    cookies_of_the_system_before,
)
NOT_STICKING: Final[tuple[Situation, ...]] = (
    hosts_with_different_secrets,
    a_host_that_came_back_with_another_secret,
    hosts_of_one_name,
    names_that_do_not_resolve,
    a_secure_cookie_over_plain_http,
    a_proxy_that_strips_set_cookie,
    another_app_with_the_same_cookie_name,
    a_host_that_is_cut_off,
    a_clock_that_is_hours_behind,
    a_clock_that_is_hours_ahead,
)


@contextmanager
def made(situation: Situation, new_cluster: NewCluster, directory: Path) -> Iterator[tuple[Cluster, Expected]]:
    with ExitStack() as stack:
        yield situation(Making(new_cluster, stack, directory))


def told(said: dict[str, Any]) -> str:
    """For the report of a run."""
    return f"{said['verdict']}, {said['cause']}: {said['words']}"
