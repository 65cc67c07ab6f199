"""How a worker process gets its engine: late, once, anew after a fork, and not at all without good settings."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clustersession import hostclock
from clustersession.config import Address, Config, CookieConfig, Limits, Timeouts
from clustersession.core.node import Member
from clustersession.errors import ConfigError, StoreRefused
from clustersession.middleware.assembly import EngineSource
from clustersession.middleware.wsgi import SESSION, SessionMiddleware
from clustersession.ports import Store
from clustersession.runtime.board import Board, write_board
from clustersession.runtime.engine import Engine
from clustersession.settings import load_settings
from clustersession.store import LmdbStore, NodeLock, open_store, place_for
from tests.middleware.calling import call_wsgi

TOP = Path(__file__).parents[2]
SECRET = "1:K7rV9xq2LmP4sTzW8yBnC3dFgH6jQaEu"


def settings(place: Path, **more: Any) -> Config:
    """Those of a host whose node somebody else runs."""
    return Config(
        secret=SECRET,
        node="here",
        data_dir=str(place),
        spawn=False,
        listen=Address(host="127.0.0.1", port=1),
        cookie=CookieConfig(names=("cs",), secure=False),
        timeouts=Timeouts(ready_s=0.0),
        **more,
    )


def counting(environ: Any, start_response: Any) -> list[bytes]:
    session = environ[SESSION]
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session["n"]).encode()]


def with_node(source: EngineSource) -> Engine:
    """The engine, with what a running node would have written by now."""
    engine = source()
    me = Member("here", "127.0.0.1", 1, 1)
    write_board(engine.host.store, Board((me,), {}, True, float("inf"), True, 1, None))
    return engine


def test_wrapping_an_app_opens_nothing(tmp_path: Path) -> None:
    """Commands that only import the app leave no trace, even where nothing could be opened."""
    nowhere = tmp_path / "missing"
    wrapped = SessionMiddleware(counting, settings(nowhere / "deeper"))
    assert not nowhere.exists()
    assert not wrapped._engine.is_open


def test_a_wrong_setting_is_told_when_the_app_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one, what is wrong with it, how to mend it."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    with pytest.raises(ConfigError, match="CLUSTERSESSION_SECRET"):
        SessionMiddleware(counting)
    monkeypatch.setenv("CLUSTERSESSION_SECRET", "changeme" * 8)
    with pytest.raises(ConfigError, match="example"):
        SessionMiddleware(counting)


def test_a_place_without_room_is_told_when_the_app_is_wrapped(tmp_path: Path) -> None:
    """Before the first user finds out; nothing is made for that."""
    with pytest.raises(ConfigError, match="CLUSTERSESSION_MAX_BYTES: it asks for"):
        SessionMiddleware(counting, settings(tmp_path / "data", limits=Limits(store_bytes_max=2**60)))
    assert list(tmp_path.iterdir()) == []


def test_dev_mode_serves_sessions_without_any_setting() -> None:
    """In the memory of the process, over several requests."""
    wrapped = SessionMiddleware(counting)
    first = call_wsgi(wrapped)
    assert first.pair.startswith("cs=")
    assert "Secure" not in first.cookies[0]
    assert [call_wsgi(wrapped, "/", first.pair).body for _ in range(2)] == [b"2", b"3"]


def test_all_apps_of_a_process_share_one_store(tmp_path: Path) -> None:
    """Their cookies may differ: what is shared is the host, its files and the connections to peers."""
    config = settings(tmp_path)
    one, same = EngineSource(config, framework="WSGI")(), EngineSource(config, framework="Flask")()
    assert one.host is same.host
    assert one.blocking is same.blocking
    assert isinstance(one.host.store, LmdbStore)


def test_the_engine_is_opened_once_for_all_threads(tmp_path: Path) -> None:
    """The first requests of a worker may come together."""
    source = EngineSource(settings(tmp_path), framework="WSGI")
    found: list[Any] = []
    gate = threading.Barrier(4)

    def first_request() -> None:
        gate.wait()
        found.append(source().host)

    threads = [threading.Thread(target=first_request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(host) for host in found}) == 1


def test_a_forked_worker_opens_its_own(tmp_path: Path) -> None:
    """Nothing that was opened before a fork is used after it; both see the same sessions."""
    wrapped = SessionMiddleware(counting, settings(tmp_path))
    parent = with_node(wrapped._engine).host
    cookie = call_wsgi(wrapped).pair
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        other = wrapped._engine().host is not parent
        body = call_wsgi(wrapped, "/", cookie).body
        os.write(write, b"%d %b" % (other, body))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"1 2"
    assert wrapped._engine().host is parent
    assert call_wsgi(wrapped, "/", cookie).body == b"3"


def test_opening_does_not_block_the_event_loop(tmp_path: Path) -> None:
    """The store is opened, and the node waited for, in a thread."""
    source = EngineSource(settings(tmp_path), framework="ASGI")
    seen: list[int] = []

    async def first_request() -> None:
        engine = await source.opened()
        seen.append(id(engine))
        assert await source.opened() is engine

    asyncio.run(first_request())
    assert source.is_open
    assert len(seen) == 1


def test_a_host_without_its_node_says_so_and_reads_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has compared its files with those of others: what is new is kept here, what is old is unavailable, not empty."""
    wrapped = SessionMiddleware(counting, settings(tmp_path))
    cookie = call_wsgi(wrapped).pair
    assert f"no node runs for here in {tmp_path}/default-here" in caplog.text
    assert "set the same CLUSTERSESSION_DATA_DIR" in caplog.text
    assert wrapped._engine().counters.of("saved_degraded") == 1
    assert call_wsgi(wrapped, "/", cookie).status == 503
    with_node(wrapped._engine)
    assert call_wsgi(wrapped, "/", cookie).body == b"2"


def test_the_first_request_waits_for_the_node(tmp_path: Path) -> None:
    """A node that is just being started is not one that is missing."""
    config = replace(settings(tmp_path), timeouts=Timeouts(ready_s=30.0))
    store = open_store(config)
    source = EngineSource(config, framework="WSGI")
    first = threading.Thread(target=source)
    first.start()
    assert not source.is_open
    ticking(store, first, synced=True)
    assert source.is_open


@pytest.mark.parametrize("runs", [False, True])
def test_the_fresh_board_of_a_dead_node_is_not_believed(tmp_path: Path, runs: bool) -> None:
    """It has missed what was done since. A worker that starts beside a node that runs waits for nothing."""
    config = replace(settings(tmp_path), timeouts=Timeouts(ready_s=30.0))
    store, source = open_store(config), EngineSource(config, framework="WSGI")
    lock = NodeLock(tmp_path / "default-here")
    if runs:
        assert lock.acquire()
    write_board(store, Board((Member("here", "127.0.0.1", 1, 1),), {}, True, hostclock.now(), True, 1, None))
    first = threading.Thread(target=source)
    first.start()
    first.join(10.0 if runs else 0.5)
    assert source.is_open is runs
    ticking(store, first, synced=False)
    assert source().host.board.synced is runs
    if runs:
        lock.release()


def ticking(store: Store, waiting: threading.Thread, *, synced: bool) -> None:
    """As a node does, until the worker has seen it."""
    me, deadline = Member("here", "127.0.0.1", 1, 1), hostclock.now() + 10.0
    while waiting.is_alive() and hostclock.now() < deadline:
        write_board(store, Board((me,), {}, synced, hostclock.now(), True, 1, None))
        waiting.join(0.02)


PRELOADED = """
from clustersession import hostclock
from clustersession.core.node import Member
from clustersession.middleware.assembly import EngineSource
from clustersession.runtime.board import Board, write_board
from clustersession.settings import load_settings
from clustersession.store import open_store

from gevent import monkey
monkey.patch_all()
import gevent

config = load_settings()
source = EngineSource(config, framework="WSGI")
first = [gevent.spawn(source) for _ in range(4)]
gevent.sleep(0.05)
assert not any(each.ready() for each in first), "they were to wait for the node"
store, me = open_store(config), Member("here", "127.0.0.1", 1, 1)
while not all(each.ready() for each in first):  # as a node does
    write_board(store, Board((me,), {}, True, hostclock.now(), True, 1, None))
    gevent.sleep(0.02)
gevent.joinall(first, raise_error=True)
print(len({id(each.value.host) for each in first}))
"""


def test_greenlets_of_a_worker_patched_after_loading_open_it_together(tmp_path: Path) -> None:
    """gunicorn's gevent workers with --preload: while one greenlet opens, the others wait without stopping it."""
    environ = {
        "PATH": os.environ["PATH"],
        "CLUSTERSESSION_SECRET": SECRET,
        "CLUSTERSESSION_NODE": "here",
        "CLUSTERSESSION_MODE": "on",
        "CLUSTERSESSION_SPAWN": "0",
        "CLUSTERSESSION_READY_TIMEOUT": "30s",
        "CLUSTERSESSION_DATA_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED], env=environ, cwd=TOP, timeout=10, check=False, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr


def test_a_secret_of_its_own_is_found_out(tmp_path: Path) -> None:
    """A random secret per worker would log users out at random: the second worker says so."""
    config = settings(tmp_path)
    EngineSource(config, framework="WSGI")()
    child = os.fork()
    if child == 0:
        other = load_settings(
            {
                "CLUSTERSESSION_SECRET": "1:Wq8ZpL3nV6xR1tY5uB9cD0eF4gH7jKmN",
                "CLUSTERSESSION_NODE": "here",
                "CLUSTERSESSION_MODE": "on",
                "CLUSTERSESSION_SPAWN": "0",
                "CLUSTERSESSION_READY_TIMEOUT": "2s",
                "CLUSTERSESSION_DATA_DIR": str(tmp_path),
            },
            under_test=False,
        )
        try:
            EngineSource(other, framework="WSGI")()
        except ConfigError as error:
            os._exit(7 if "another secret" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_place_that_cannot_be_used_says_so_with_the_first_request(tmp_path: Path) -> None:
    """Not an empty session, not a hang."""
    config = settings(tmp_path)
    place = place_for(config, {})
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file where the directory should be")
    with pytest.raises(StoreRefused):
        call_wsgi(SessionMiddleware(counting, config))
