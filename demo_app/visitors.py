"""Users of the shop, as the check plays them: two tabs each that share one cookie jar, clicking all the time.

A visitor knows what the shop has acknowledged and holds every answer against it. What is compared was acknowledged before
the request was sent, within one login, so that nothing depends on the order in which parallel requests are served.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, NamedTuple
from urllib.parse import urlencode

from .balancer import INDETERMINATE
from .http1 import Connection, Cut, Headers, Request, Response, request_bytes
from .tally import Tally

REPEATS = 5
ATTEMPT_TIMEOUT_S = 15.0
CART_MAX = 40  # then it is time to log out

_ADD, _READ = 0.48, 0.48  # shares of what a logged-in visitor does; the rest is logging out


class Shop(NamedTuple):
    """Where the shop is reached (the balancer)."""

    host: str
    port: int


class Failed(Exception):
    """A request was not answered as it must be, also after its repeats."""


class Answer(NamedTuple):
    """One page. `repeated`: the first attempt was cut, so it may have been carried out twice."""

    user: str | None
    cart: dict[str, int]
    owners: dict[str, Any] | None
    repeated: bool


class Retired(NamedTuple):
    """A Cookie header of a login that is over, and what was put into the cart during that login."""

    cookies: bytes
    items: frozenset[str]


class Jar:
    """The cookies of one browser, and every value they have had since the last logout."""

    def __init__(self) -> None:
        self.cookies: dict[bytes, bytes] = {}
        self.seen: set[bytes] = set()

    def header(self) -> bytes:
        return b"; ".join(b"%s=%s" % pair for pair in self.cookies.items())

    def take(self, headers: Headers) -> None:
        """As a browser does: the last answer to arrive wins."""
        for name, value in headers:
            if name == b"set-cookie":
                pair, _, attributes = value.partition(b";")
                key, _, text = pair.strip().partition(b"=")
                if b"max-age=0" in attributes.lower().replace(b" ", b"") or not text.strip(b'"'):
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = text
                    self.seen.add(self.header())


class Tab:
    """One tab of a browser: a connection of its own, one request at a time."""

    def __init__(self, shop: Shop, jar: Jar, tally: Tally) -> None:
        self._shop, self._jar, self._tally = shop, jar, tally
        self._connection: Connection | None = None
        self.idle = asyncio.Event()
        self.idle.set()

    async def ask(self, target: str, form: dict[str, str] | None = None) -> Answer:
        """Send it, again after a cut, and read the page. Raises `Failed`."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        self._tally.requests += 1
        self.idle.clear()
        try:
            return await self._ask(target, form)
        finally:
            self.idle.set()
            self._tally.spans.append((begun, clock()))

    async def _ask(self, target: str, form: dict[str, str] | None) -> Answer:
        for attempt in range(1 + REPEATS):
            try:
                response = await self._attempt(target, form)
            except (Cut, OSError):
                self._tally.indeterminate += 1
                continue
            self._jar.take(response.headers)
            if response.status == 502 and response.header(INDETERMINATE):
                self._tally.indeterminate += 1
            elif response.status == 409:
                self._tally.conflicts += 1
            else:
                return _read(target, response, repeated=attempt > 0)
        raise Failed(f"{target}: no answer after {REPEATS} repeats")

    async def _attempt(self, target: str, form: dict[str, str] | None) -> Response:
        if self._connection is None or not self._connection.usable:
            self._connection = await Connection.open(self._shop.host, self._shop.port, ATTEMPT_TIMEOUT_S)
        headers = [(b"host", b"shop"), (b"accept", b"application/json"), (b"cookie", self._jar.header())]
        if form is None:
            request = Request(b"GET", target.encode("ascii"), headers, b"")
        else:
            headers.append((b"content-type", b"application/x-www-form-urlencoded"))
            request = Request(b"POST", target.encode("ascii"), headers, urlencode(form).encode("ascii"))
        return await self._connection.ask(request_bytes(request, close=False), ATTEMPT_TIMEOUT_S)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _read(target: str, response: Response, *, repeated: bool) -> Answer:
    if response.status != 200:
        served_by = (response.header(b"x-served-by") or b"nobody").decode()
        raise Failed(f"{target}: {response.status} from {served_by}: {response.body[:200].decode(errors='replace').strip()}")
    page = json.loads(response.body)
    return Answer(page["user"], page["cart"], page["owners"], repeated)


class Visitor:
    """One user. `login` counts logins and logouts, so that an answer is judged only by the login it was asked in."""

    def __init__(self, name: str, shop: Shop, tally: Tally, chance: random.Random) -> None:
        self.name, self._tally, self._chance = name, tally, chance
        self.jar = Jar()
        self.tabs = (Tab(shop, self.jar, tally), Tab(shop, self.jar, tally))
        self.logged_in = False
        self.login = 0
        self.owners: dict[str, Any] | None = None
        self.retired: list[Retired] = []
        self._changing = False
        self._acked: set[str] = set()
        self._taken_along: set[str] = set()
        self._items = 0
        self._watched: tuple[int, str, int] | None = None

    async def click(self, tab: Tab) -> None:
        """Whatever comes next in this tab."""
        try:
            await self._click(tab)
        except Failed as failure:
            self._tally.wrong("errors", f"{self.name} {failure}")

    async def _click(self, tab: Tab) -> None:
        if self._changing:
            self._expect_own(await tab.ask("/"))
        elif not self.logged_in:
            await self._alone(self.log_in(tab))
        else:
            dice = self._chance.random()
            if dice < _ADD and len(self._acked) < CART_MAX:
                await self.add(tab)
            elif dice < _ADD + _READ and len(self._acked) < CART_MAX:
                await self.look(tab)
            else:
                await self._alone(self.log_out(tab))

    async def _alone(self, change: Any) -> None:
        self._changing = True
        try:
            await change
        finally:
            self._changing = False

    async def log_in(self, tab: Tab) -> None:
        """Half of the time with something in the cart already, which must still be there afterwards."""
        taken_along = set()
        if self._chance.random() < 0.5:
            item = self._new_item()
            await tab.ask("/cart", {"item": item, "quantity": "1"})
            self._tally.writes += 1
            taken_along.add(item)
        answer = await tab.ask("/login", {"user": self.name})
        if answer.user != self.name:
            raise Failed(f"/login: the answer is the page of {answer.user}")
        self._acked = set() if answer.repeated else set(taken_along)
        self._taken_along = taken_along
        self._tally.logins += 1
        self.login += 1
        self.logged_in = True
        self._judge(answer, self.login, set(self._acked))
        self.owners = None  # that page was made before the login was stored

    async def log_out(self, tab: Tab) -> None:
        """Afterwards every cookie this login has had must be worth nothing."""
        self.logged_in = False
        self.login += 1
        answer = await tab.ask("/logout", {})
        if answer.user is not None:
            raise Failed(f"/logout: the answer is the page of {answer.user}")
        self._tally.logouts += 1
        for other in self.tabs:
            await other.idle.wait()  # nobody types a name before the page is there
        items = frozenset(self._acked - self._taken_along)  # the anonymous cart stays readable for some seconds
        self.retired.extend(Retired(cookies, items) for cookies in self.jar.seen)
        self.jar.seen.clear()
        self._acked, self.owners = set(), None

    async def add(self, tab: Tab) -> None:
        item, login, expected = self._new_item(), self.login, set(self._acked)
        answer = await tab.ask("/cart", {"item": item, "quantity": "1"})
        if self._judge(answer, login, expected | {item}):
            self._acked.add(item)
        self._tally.writes += 1

    async def look(self, tab: Tab) -> None:
        login, expected = self.login, set(self._acked)
        self._judge(await tab.ask("/"), login, expected)

    async def check_at_the_end(self) -> None:
        """Look at the cart once more in each tab, with nothing else going on."""
        for tab in self.tabs:
            try:
                if self.logged_in:
                    await self.look(tab)
            except Failed as failure:
                self._tally.wrong("errors", f"{self.name} {failure}")

    def watch(self, host: str) -> bool:
        """`host` is about to fail: whether it is the master of this session, whose failover is counted from now on."""
        mastered = self.logged_in and self.owners is not None and self.owners["master"] == host
        self._watched = (self.login, host, self.owners["epoch"]) if mastered and self.owners is not None else None
        return mastered

    def waits_for_failover(self) -> bool:
        return self._watched is not None and self._watched[0] == self.login

    def close(self) -> None:
        for tab in self.tabs:
            tab.close()

    def _new_item(self) -> str:
        self._items += 1
        return f"{self.name}-{self._items}"

    def _expect_own(self, answer: Answer) -> None:
        if answer.user not in (None, self.name):
            raise Failed(f"the answer is the page of {answer.user}")

    def _judge(self, answer: Answer, login: int, expected: set[str]) -> bool:
        """Hold an answer against what was acked before it was asked for; False when the login is over meanwhile."""
        self._expect_own(answer)
        if login != self.login or not self.logged_in:
            return False
        if answer.user is None:
            self.logged_in, self.login = False, self.login + 1
            self._tally.wrong("logged_out_unexpectedly", f"{self.name}, owners were {self.owners}")
            return False
        for item in expected - answer.cart.keys():
            self._acked.discard(item)
            self._tally.wrong("lost_cart_items", f"{item} of {self.name}, owners {answer.owners}, before {self.owners}")
        self._note_owners(answer.owners)
        return True

    def _note_owners(self, owners: dict[str, Any] | None) -> None:
        if owners is None:
            return
        if self._watched is not None:
            login, host, epoch = self._watched
            if login != self.login:
                self._watched = None
            elif owners["master"] != host and owners["epoch"] > epoch:
                self._tally.failovers += 1
                self._watched = None
        if self.owners is None or owners["epoch"] >= self.owners["epoch"]:
            self.owners = owners


class Thief:
    """Tries cookies of sessions that are over, at whatever host comes next."""

    def __init__(self, shop: Shop, tally: Tally) -> None:
        self._jar = Jar()
        self._tab, self._tally = Tab(shop, self._jar, tally), tally

    async def replay(self, retired: Retired) -> None:
        """Ask for the shop with an old Cookie header; nobody may be greeted, nothing of that cart may be shown."""
        name, _, value = retired.cookies.partition(b"=")
        self._jar.cookies = {name: value}
        self._tally.replays += 1
        try:
            answer = await self._tab.ask("/")
        except Failed as failure:
            self._tally.wrong("errors", f"replay: {failure}")
            return
        if answer.user is not None or retired.items & answer.cart.keys():
            self._tally.wrong("resurrected_logouts", f"an old cookie is {answer.user} again, owners {answer.owners}")

    def close(self) -> None:
        self._tab.close()
