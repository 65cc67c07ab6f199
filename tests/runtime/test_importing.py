"""Sessions of before that are taken over while their users are away, under the real rules on three hosts in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from clustersession.config import Lifetimes
from clustersession.core import calls
from clustersession.core.effects import Ask, Operation
from clustersession.core.replica.ends import TOMBSTONE_KEPT_S
from clustersession.errors import ConfigError, SourceRefused, SourceUnavailable
from clustersession.runtime import adoption as adoption_module
from clustersession.runtime import importing, old_lives, remembered
from clustersession.runtime.adoption import Adoption
from clustersession.runtime.budget import Budget
from clustersession.runtime.importing import Fate, Imported, Importer
from clustersession.runtime.switching import ModeSwitch
from clustersession.sources import Legacy, Page, StarletteCookie
from clustersession.testing.in_process import InProcessCluster

OLD, HOUR_S, DAY_S = "old", 3600.0, 86400.0
MINUTE_S = 60.0


class Before:
    """The old system: a dict. `left_s` is how long each session has left by its own count."""

    name, cookie_name, keyless = "before", OLD, False

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.sessions: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, float | None] = {}
        self.own: dict[str, tuple[float | None, float | None]] = {}  # seconds of inactivity, and an end
        self.down = False

    def add(self, cookie: str, left_s: float | None = DAY_S, **items: Any) -> str:
        self.sessions[cookie] = items
        self.ends[cookie] = None if left_s is None else self.clock() + left_s
        return cookie

    def read(self, cookie: str, now: float) -> Legacy | None:
        if self.down:
            raise SourceUnavailable("the old store is down")
        items, end = self.sessions.get(cookie), self.ends.get(cookie)
        if items is None or (end is not None and end <= now):
            return None
        if "pickle" in items:
            raise SourceRefused("the pickled session holds a shop.Cart")
        idle_s, deadline = self.own.get(cookie, (None, None))
        return Legacy(dict(items), cookie.encode(), expires=end, idle_s=idle_s, deadline=deadline)

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        raise AssertionError

    def end(self, cookie: str) -> None:
        if self.down:
            raise SourceUnavailable("the old store is down")
        self.sessions.pop(cookie, None)

    def id_of(self, cookie: str) -> bytes | None:
        return cookie.encode()

    def pages(self, cursor: str = "") -> Iterator[Page]:
        if self.down:
            raise SourceUnavailable("the old store is down")
        keys = sorted(key for key in self.sessions if key > cursor)
        for start in range(0, len(keys), 2):
            page = tuple(keys[start : start + 2])
            yield Page(page, page[-1] if start + 2 < len(keys) else "")


class Site:
    """Three hosts whose app has the given idle limit, and one clock for all."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, idle_s: float | None = 7 * DAY_S, kind: type[InProcessCluster] = InProcessCluster
    ) -> None:
        self.clock = 1.8e9
        for module in (adoption_module, importing, old_lives, remembered):
            monkeypatch.setattr(module, "time", lambda: self.clock)
        self.before = Before(lambda: self.clock)
        lifetimes = Lifetimes(idle_s=idle_s, absolute_s=None)
        self.cluster = kind(clock=lambda: self.clock, lifetimes=lifetimes, lifetimes_set=True)
        self.set_up()

    def set_up(self, **how: Any) -> None:
        for node in self.cluster:
            node.engine.adoption = Adoption(self.before, **how)

    @property
    def importer(self) -> Importer:
        return Importer(self.cluster["a"].engine, self.before)

    def run(self, *, dry_run: bool = False) -> dict[str, Fate]:
        importer = self.importer
        cookies = [cookie for page in importer.pages("") for cookie in page.cookies]
        return {cookie: importer.take(cookie, dry_run=dry_run).fate for cookie in cookies}

    def come(self, host: str, jar: dict[str, str], **changes: Any) -> dict[str, Any]:
        """A request of a browser with these cookies, which it keeps."""
        engine = self.cluster[host].engine
        visit = engine.visit(("; ".join(f"{name}={value}" for name, value in jar.items()),), blocking=True)
        seen = dict(visit.session)
        visit.session.update(changes)
        if changes.get("end"):
            visit.session.end()
        if visit.pending():
            engine.blocking.run(visit.carry_out(), visit.budget)
        for text in visit.headers().cookies:
            name, _, value = text.partition(";")[0].partition("=")
            jar[name] = value
        visit.close()
        return seen

    def logged_out(self, host: str, cookie: str) -> None:
        self.come(host, {OLD: cookie}, end=True)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def test_what_is_taken_over_opens_on_every_host(site: Site) -> None:
    """With the old cookie alone, and once: the second import finds all of them here."""
    for number in range(5):
        site.before.add(f"c{number}", user=f"u{number}", _user_id=f"u{number}")
    assert set(site.run().values()) == {Fate.TAKEN}
    assert site.cluster.counted("session_imported") == 5
    assert set(site.run().values()) == {Fate.HERE}
    for number in range(5):
        for host in "abc":
            assert site.come(host, {OLD: f"c{number}"})["user"] == f"u{number}"
    users = site.cluster["b"].engine.users
    assert len(users.sessions_of("u3")) == 1


def test_each_fate_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken, here already, logged out here, over there, refused with its reason, and without an answer."""
    before = site.before
    for cookie in ("new", "used", "out", "over"):
        before.add(cookie, left_s=-1.0 if cookie == "over" else DAY_S, user=cookie)
    before.add("odd", pickle=True)
    before.add("huge", value={1: object()})
    site.come("b", {OLD: "used"})
    site.logged_out("c", "out")
    before.add("out", user="out")  # the old system has not forgotten it
    importer = site.importer
    assert importer.take("new") == Imported(Fate.TAKEN)
    assert importer.take("used") == Imported(Fate.HERE)
    assert importer.take("out") == Imported(Fate.ENDED)
    assert importer.take("over") == Imported(Fate.NOT_ACCEPTED)
    assert importer.take("never") == Imported(Fate.NOT_ACCEPTED)
    assert importer.take("odd") == Imported(Fate.REFUSED, "the pickled session holds a shop.Cart")
    assert importer.take("huge").fate == Fate.REFUSED
    before.down = True
    assert importer.take("new") == Imported(Fate.FAILED, "the old store is down")


def test_a_session_without_an_id_stays_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could find it here by its old cookie."""
    site.before.add("c", user="u")
    monkeypatch.setattr(site.before, "read", lambda cookie, now: Legacy({"user": "u"}, None))
    assert site.importer.take("c").fate is Fate.REFUSED
    assert site.cluster.entries() == 0


def test_a_dry_run_says_the_same_and_writes_nothing(site: Site) -> None:
    """Neither a session nor a guard."""
    for cookie in ("one", "two", "three"):
        site.before.add(cookie, user=cookie)
    site.come("b", {OLD: "one"})
    site.logged_out("b", "two")
    site.before.add("two", user="two")
    entries = site.cluster.entries()
    told = site.run(dry_run=True)
    assert told == {"one": Fate.HERE, "two": Fate.ENDED, "three": Fate.TAKEN}
    assert site.cluster.entries() == entries
    assert site.run() == told
    assert site.cluster.entries() > entries


def test_without_an_answer_nothing_is_known(site: Site) -> None:
    """Hosts that may have the session are down: it is not taken over a second time."""
    site.before.add("c", user="u")
    site.come("b", {OLD: "c"})
    site.cluster.down("b", "c")
    found = site.importer.take("c")
    assert found.fate in (Fate.FAILED, Fate.HERE)
    site.before.add("d", user="v")
    assert site.importer.take("d").fate is Fate.FAILED
    site.cluster.back("b", "c")
    assert site.importer.take("c").fate is Fate.HERE
    assert site.importer.take("d").fate in (Fate.TAKEN, Fate.HERE)


class CutOffByAPut(InProcessCluster):
    """Once `armed`, the first record that is sent to another host arrives, and no host hears of another from then on."""

    armed = cut = False

    def answer(self, source: str, target: str, call: calls.Call) -> calls.Reply:
        if not self.cut:
            reply = super().answer(source, target, call)
            self.cut = self.armed and isinstance(call, calls.Put)
        return calls.Unreachable("timeout") if self.cut else reply


def test_what_the_import_has_stored_without_hearing_of_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try knows it again, and counts it once. What a user has stored between two tries is here already."""
    site = Site(monkeypatch, kind=CutOffByAPut)
    cluster = site.cluster
    assert isinstance(cluster, CutOffByAPut)
    cookies = [site.before.add(f"c{number}", user=f"u{number}") for number in range(8)]
    importer = site.importer
    for cookie in cookies:
        cluster.armed = True
        assert importer.take(cookie).fate is Fate.FAILED
        assert cluster.cut
        cluster.armed = cluster.cut = False
        assert importer.take(cookie) == Imported(Fate.TAKEN)
        assert importer.take(cookie) == Imported(Fate.HERE)
    assert cluster.counted("session_imported") == len(cookies)
    site.before.add("d", user="v")
    cluster.down("b", "c")
    assert importer.take("d").fate is Fate.FAILED
    cluster.back("b", "c")
    site.come("b", {OLD: "d"})
    assert importer.take("d") == Imported(Fate.HERE)


def test_nobody_is_kept_for_longer_than_the_old_system_would(site: Site) -> None:
    """An hour left there is an hour here, whatever the app's limit is, if the user does not come."""
    site.before.add("c", left_s=HOUR_S, user="u")
    site.run()
    site.clock += HOUR_S + MINUTE_S
    site.set_up(imported=True)
    assert site.come("b", {OLD: "c"}) == {}


def test_nobody_is_kept_for_a_shorter_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app ends what is idle for half an hour; who is away when the import runs was not idle by its count yet."""
    site = Site(monkeypatch, idle_s=HOUR_S / 2)
    site.before.add("c", left_s=DAY_S, user="u")
    site.run()
    site.clock += DAY_S - HOUR_S
    assert site.come("b", {OLD: "c"}) == {"user": "u"}


def test_from_when_its_user_comes_the_limits_of_the_app_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session goes on beyond its old end as long as it is used, and ends when it is not."""
    site = Site(monkeypatch, idle_s=2 * HOUR_S)
    site.before.add("c", left_s=3 * HOUR_S, user="u")
    site.run()
    site.clock += 2.5 * HOUR_S
    jar = {OLD: "c"}
    for host in "bcabc":
        assert site.come(host, jar, seen_on=host)["user"] == "u", host
        site.clock += 1.5 * HOUR_S
    site.clock += HOUR_S
    assert site.come("a", jar) == {}


def test_what_passes_the_limits_of_a_session_stays_there(site: Site) -> None:
    """In size or depth, by an import and when its user comes: what no app could save is not stored."""
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    site.before.add("large", _user_id="u", cart="x" * 70_000)
    site.before.add("deep", _user_id="u", cart=deep)
    for cookie, why in (("large", "size of the session"), ("deep", "nested")):
        told = site.importer.take(cookie)
        assert told.fate is Fate.REFUSED
        assert why in told.why
        assert site.come("b", {OLD: cookie}) == {}
    assert (site.cluster.counted("adoption_refused"), site.cluster.entries()) == (2, 0)


@pytest.mark.parametrize("imported", [False, True])
def test_an_end_of_its_own_is_not_put_off_by_use(monkeypatch: pytest.MonkeyPatch, imported: bool) -> None:
    """Neither when its user comes at once nor when an import has taken it over before."""
    site = Site(monkeypatch, idle_s=7 * DAY_S)
    site.before.add("c", left_s=3 * HOUR_S, user="u")
    site.before.own["c"] = (2 * HOUR_S, site.clock + 3 * HOUR_S)
    if imported:
        site.run()
        site.clock += HOUR_S
    jar = {OLD: "c"}
    while site.clock < 1.8e9 + 3 * HOUR_S - MINUTE_S:
        assert site.come("b", jar, seen=site.clock)["user"] == "u"
        site.clock += HOUR_S / 4
    site.clock += MINUTE_S
    assert site.come("c", jar) == {}


@pytest.mark.parametrize("imported", [False, True])
def test_a_limit_of_inactivity_of_its_own_stays(monkeypatch: pytest.MonkeyPatch, imported: bool) -> None:
    """Whatever the app's is, from when its user has come."""
    site = Site(monkeypatch, idle_s=7 * DAY_S)
    site.before.add("c", left_s=3 * HOUR_S, user="u")
    site.before.own["c"] = (HOUR_S, None)
    if imported:
        site.run()
        site.clock += 2 * HOUR_S
    jar = {OLD: "c"}
    assert site.come("b", jar) == {"user": "u"}
    site.clock += HOUR_S - MINUTE_S
    assert site.come("b", jar) == {"user": "u"}
    site.clock += HOUR_S + MINUTE_S
    assert site.come("b", jar) == {}


def test_a_session_without_an_end_there_gets_that_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the import on."""
    site = Site(monkeypatch, idle_s=HOUR_S)
    site.before.add("c", left_s=None, user="u")
    site.before.add("d", left_s=None, user="v")
    site.run()
    site.clock += HOUR_S / 2
    assert site.come("b", {OLD: "c"}) == {"user": "u"}
    site.clock += 0.75 * HOUR_S
    assert site.come("b", {OLD: "c"}) == {"user": "u"}
    assert site.come("b", {OLD: "d"}) == {}


def test_the_old_store_is_not_needed_any_more(site: Site) -> None:
    """With `imported`: what was taken over opens without it, what was not is nothing, and a logout is one without it too."""
    site.before.add("c", user="u")
    site.before.add("later", user="w")
    site.importer.take("c")
    site.before.down = True
    site.set_up(imported=True)
    assert site.come("a", {OLD: "c"}) == {"user": "u"}
    assert site.come("b", {OLD: "later"}) == {}
    assert site.come("b", {OLD: "made up"}) == {}
    site.logged_out("c", "c")
    site.clock += TOMBSTONE_KEPT_S + HOUR_S
    for host in "abc":
        assert site.come(host, {OLD: "c"}) == {}
    assert site.cluster.counted("adoption_end_failed") == 0


def test_a_user_who_logs_in_later_leaves_no_old_cookie_behind(site: Site) -> None:
    """A planted old cookie is dead after the login, on every host, with the store or without."""
    site.before.add("planted", cart=["apple"])
    site.run()
    jar = {OLD: "planted"}
    assert site.come("a", jar, _user_id="victim") == {"cart": ["apple"]}
    site.clock += MINUTE_S
    assert site.come("b", jar)["_user_id"] == "victim"
    for imported in (False, True):
        site.set_up(imported=imported)
        assert [site.come(host, {OLD: "planted"}) for host in "abc"] == [{}, {}, {}]


class Killed(Exception):
    """The process, in the middle of an operation."""


def test_what_was_killed_between_a_session_and_its_guard_is_mended(site: Site) -> None:
    """The second run stores the guard, so that the cookie is dead for longer than the tombstone is kept."""
    site.before.add("c", left_s=9 * DAY_S, user="u")
    engine = site.cluster["a"].engine
    adoption = engine.adoption
    assert adoption is not None
    _, claims = adoption.claims(engine, b"c")
    legacy = site.before.read("c", site.clock)
    assert legacy is not None
    taking = adoption.of_key(engine, legacy, adoption.encoded(engine, legacy), waiting=True)
    with pytest.raises(Killed):
        engine.blocking.run(killed_at(taking, claims[0].guard), Budget(5.0))
    assert site.importer.take("c").fate is Fate.HERE
    site.set_up(imported=True)
    site.logged_out("b", "c")
    site.clock += TOMBSTONE_KEPT_S + HOUR_S
    for node in site.cluster:
        node.host.sweep(1000)
    site.set_up()
    assert [site.come(host, {OLD: "c"}) for host in "abc"] == [{}, {}, {}]


def killed_at(operation: Operation[Any], guard: bytes) -> Generator[Any, Any, None]:
    reply: Any = None
    while True:
        effect = operation.send(reply)
        if isinstance(effect, Ask) and isinstance(effect.call, calls.Put) and effect.call.key == guard:
            raise Killed
        reply = yield effect


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "mirror"}, "every host is in mode 'on'"),
        ({"mode": "off"}, "every host is in mode 'on'"),
        ({"mode": "dev"}, "every host is in mode 'on'"),
        ({"adopt_imported": True}, "have been imported"),
    ],
)
def test_an_import_does_not_begin_at_the_wrong_time(site: Site, change: dict[str, Any], words: str) -> None:
    """While other hosts may change the old sessions, or after it was said to be over."""
    engine = site.cluster["a"].engine
    engine.config = replace(engine.config, **change)
    with pytest.raises(ConfigError, match=words):
        _ = site.importer


@pytest.mark.parametrize(("mode", "percent", "begins"), [("on", 100, True), ("on", 60, False), ("mirror", 100, False)])
def test_the_cluster_s_switch_counts_where_a_host_follows_it(site: Site, mode: str, percent: int, *, begins: bool) -> None:
    """The old system still has what was not switched to `on`."""
    engine = site.cluster["a"].engine
    engine.config = replace(engine.config, mode="off", mode_switch=True)
    ModeSwitch(site.cluster["a"].store, engine.ring, engine.config.cluster).order(mode, percent, 1.0, "a")
    if begins:
        assert site.importer.name == "before"
    else:
        with pytest.raises(ConfigError, match="every host is in mode 'on'"):
            _ = site.importer


def test_an_import_does_not_begin_without_anything_to_take_over(site: Site) -> None:
    """An app that adopts nothing, or not any more, or whose sessions are in the cookies."""
    engine = site.cluster["a"].engine
    engine.adoption = Adoption(site.before, until=site.clock - 1)
    with pytest.raises(ConfigError, match="ADOPT_UNTIL"):
        _ = site.importer
    engine.adoption = Adoption(StarletteCookie("secret"))
    with pytest.raises(ConfigError, match="in the cookies themselves"):
        _ = site.importer
    engine.adoption = None
    with pytest.raises(ConfigError, match="takes no sessions over"):
        _ = site.importer


def test_a_source_that_needs_its_store_cannot_do_without_it() -> None:
    """`imported` is refused at once for a source without `id_of`; a signed cookie needs none."""

    with pytest.raises(ConfigError, match="id_of"):
        Adoption(type("Odd", (), {"name": "odd", "cookie_name": "c", "keyless": False})(), imported=True)
    Adoption(StarletteCookie("secret"), imported=True)
