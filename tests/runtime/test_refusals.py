"""What is counted and told of a session that was refused."""

from __future__ import annotations

import logging
import re
import time

import pytest

from clustersession.core.keyring import KeyRing
from clustersession.core.session_id import SessionId
from clustersession.runtime import refusals
from clustersession.runtime.counters import Counters
from clustersession.runtime.refusals import LINES_IN_WINDOW, SAME_SESSION_S, WINDOW_S, Refusals
from clustersession.testing.in_process import SECRET, InProcessCluster

KEY = KeyRing.parse(SECRET).signing
LINE = re.compile(
    r"session refused: time=20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ level=(?P<level>info|warning) code=(?P<code>\w+) "
    r'id=(?P<id>[0-9a-f]{32}) age=(?P<age>\w+) left_out=(?P<left_out>\d+) reason="[^"\n]+"'
)


def sid(number: int, minutes_old: float = 0) -> SessionId:
    born = int(time.time() / 60 - minutes_old)
    return SessionId(1, born, b"sixteen token by", "aaaaaaaa-aaaaaaaa", None, 1, 1, number.to_bytes(16))


def lines(caplog: pytest.LogCaptureFixture) -> list[re.Match[str]]:
    found = [LINE.fullmatch(record.getMessage()) for record in caplog.records]
    assert None not in found, caplog.text
    return [match for match in found if match is not None]


def test_a_refused_session_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """However many requests bring it; each request is counted, and the line has neither the cookie nor a part of its secret."""
    counters = Counters()
    refused = Refusals(counters)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            refused.session("expired_idle", sid(7, minutes_old=90))
            refused.text("foreign", "evil\r\n\x1b[31m user=alice", KEY)
    idle, foreign = lines(caplog)
    assert (idle["code"], idle["id"], idle["level"]) == ("expired_idle", sid(7).handle, "info")
    assert idle["age"] in ("90min", "91min")
    assert (foreign["code"], foreign["level"], foreign["age"]) == ("foreign", "warning", "unknown")
    assert "alice" not in caplog.text
    assert "token" not in caplog.text
    assert counters.of("refused_expired_idle") == counters.of("refused_foreign") == 3
    assert counters.of("refused_session_expired_idle") == counters.of("refused_session_foreign") == 1


def test_the_hash_of_a_cookie_is_of_this_cluster_only(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody without its secret can find out by trying which cookie it was."""
    other = KeyRing.parse("1:Wq8ZpL3nV6xR1tY5uB9cD0eF4gH7jKmN").signing
    with caplog.at_level(logging.INFO):
        for key in (KEY, other, KEY):
            Refusals(Counters()).text("not_ours", "PHPSESSID-of-alice", key)
    ours, theirs, again = lines(caplog)
    assert ours["id"] == again["id"] != theirs["id"]


def test_a_flood_writes_few_lines_and_says_how_many_it_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are counted."""
    now = [1.7e9]
    monkeypatch.setattr(refusals, "time", lambda: now[0])
    counters = Counters()
    refused = Refusals(counters)
    with caplog.at_level(logging.INFO):
        for number in range(500):
            refused.text("not_ours", f"{number}", KEY)
        assert len(lines(caplog)) == LINES_IN_WINDOW
        now[0] += WINDOW_S
        refused.text("not_ours", "one more", KEY)
    assert [line["left_out"] for line in lines(caplog)] == ["0"] * LINES_IN_WINDOW + [f"{500 - LINES_IN_WINDOW}"]
    assert counters.of("refused_not_ours") == counters.of("refused_session_not_ours") == 501


def test_only_an_id_of_the_last_minutes_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not verify has no age that could be believed."""
    counters = Counters()
    refused = Refusals(counters)
    refused.session("lost", sid(1, minutes_old=1))
    refused.session("lost", sid(2, minutes_old=60))
    refused.text("unknown_key", "cookie", KEY)
    assert (counters.of("refused_session_lost"), counters.of("refused_young_lost")) == (2, 1)
    assert counters.of("refused_young_unknown_key") == 0


def test_a_session_that_is_refused_for_long_is_told_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten minutes, and counted again: somebody is still out there with it."""
    now = [1.7e9]
    monkeypatch.setattr(refusals, "time", lambda: now[0])
    counters = Counters()
    refused = Refusals(counters)
    with caplog.at_level(logging.INFO):
        refused.text("not_ours", "cookie", KEY)
        now[0] += SAME_SESSION_S - 1
        refused.text("not_ours", "cookie", KEY)
        now[0] += 1
        refused.text("not_ours", "cookie", KEY)
    assert len(lines(caplog)) == counters.of("refused_session_not_ours") == 2


def test_a_handle_that_leads_nowhere_is_no_refused_cookie(caplog: pytest.LogCaptureFixture) -> None:
    """An app looked for a session that is gone; no browser has come with anything."""
    cluster = InProcessCluster()
    engine = cluster["a"].engine
    visit = engine.visit_by_handle("0a" * 16)
    with caplog.at_level(logging.INFO):
        assert dict(visit.session) == {}
    assert cluster.counted("session_lost") == 1
    assert cluster.counted("refused_lost") == 0
    assert "session refused" not in caplog.text
