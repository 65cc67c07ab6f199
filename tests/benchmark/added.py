"""What a session costs a request: every row, framework and path in one interleaved run, over the same app without a session."""

from __future__ import annotations

from asyncio import Runner
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from . import apps_django, apps_flask, apps_starlette, traffic
from .cluster import NAMES, Cluster
from .measure import Block, Times, interleaved, times_of
from .redis_servers import Servers
from .traffic import ACTIONS, AsgiApp, WsgiApp

BASE: Final = "no session"
OWNER: Final = "clustersession, owner's host"
COLD: Final = "clustersession, owner's host, cold"
BACKUP: Final = "clustersession, backup's host"
THIRD: Final = "clustersession, third host"
SIGNED: Final = "the framework's signed cookie"
REDIS: Final = "on Redis"
REDIS_TWO: Final = "on Redis, 2 copies"

FRAMEWORKS: Final = ("Starlette", "Flask", "Django")
ON_REDIS: Final = {"Starlette": "starsessions", "Flask": "Flask-Session", "Django": "Django's cache sessions"}
ROWS: Final = (BASE, OWNER, COLD, BACKUP, THIRD, SIGNED, REDIS, REDIS_TWO)


class Cell(NamedTuple):
    """One thing that is timed: a framework, a row of its table, and what the request does with the session."""

    framework: str
    row: str
    action: str


Added: TypeAlias = Mapping[Cell, Times]


class Cookies(NamedTuple):
    """Cookie headers of sessions by where this host stands to them. `cold` are more than a worker remembers."""

    owner: list[str]
    cold: list[str]
    backup: list[str]
    third: list[str]


def cookies_of(cluster: Cluster, sessions: int, cold: int) -> Cookies:
    a, b, c = NAMES
    values = traffic.values()

    def made(owners: tuple[str, str], count: int) -> list[str]:
        return [kept.cookie for kept in cluster.sessions(owners, count, values)]

    return Cookies(made((a, b), sessions), made((a, b), cold), made((b, a), sessions), made((b, c), sessions))


def bench_added(cluster: Cluster, servers: Servers, cookies: Cookies, rounds: int, block: int) -> dict[Cell, Times]:
    """The times of every cell, the baseline's whole, all others beyond it. Once in a process: it sets Django up."""
    apps_django.configure(servers)
    with Runner() as runner:
        apps = _apps(cluster, servers, cookies, runner)
        blocks: dict[Cell, Block] = {
            Cell(framework, row, action): app.block(action)
            for action in ACTIONS
            for framework in FRAMEWORKS
            for row, app in apps[framework].items()
        }
        for calls in blocks.values():
            calls(traffic.SESSIONS)  # every session once, every connection open
        named = {"/".join(cell): calls for cell, calls in blocks.items()}
        taken = interleaved(named, rounds, block)
    whole = {cell: times_of(taken["/".join(cell)]) for cell in blocks}
    return {cell: _beyond(whole, cell) for cell in whole}


def _beyond(whole: Mapping[Cell, Times], cell: Cell) -> Times:
    return whole[cell] if cell.row == BASE else whole[cell].added_to(whole[cell._replace(row=BASE)])


def _apps(
    cluster: Cluster, servers: Servers, cookies: Cookies, runner: Runner
) -> dict[str, dict[str, AsgiApp] | dict[str, WsgiApp]]:
    home = cluster.home
    at = {OWNER: cookies.owner, COLD: cookies.cold, BACKUP: cookies.backup, THIRD: cookies.third}
    return {
        "Starlette": {
            BASE: apps_starlette.base(runner),
            **{row: apps_starlette.ours(home, runner, found) for row, found in at.items()},
            SIGNED: apps_starlette.signed_cookies(runner),
            REDIS: apps_starlette.starsessions(servers, runner),
            REDIS_TWO: apps_starlette.starsessions_two_copies(servers, runner),
        },
        "Flask": {
            BASE: apps_flask.base(),
            **{row: apps_flask.ours(home, found) for row, found in at.items()},
            SIGNED: apps_flask.signed_cookies(),
            REDIS: apps_flask.flask_session(servers),
            REDIS_TWO: apps_flask.flask_session_two_copies(servers),
        },
        "Django": {
            BASE: apps_django.base(),
            **{row: apps_django.ours(home, found) for row, found in at.items()},
            SIGNED: apps_django.signed_cookies(),
            REDIS: apps_django.cache_sessions(),
            REDIS_TWO: apps_django.cache_sessions_two_copies(),
        },
    }
