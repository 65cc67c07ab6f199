"""/explain/HANDLE of a real node that other hosts can reach."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clustersession.core.holdings import Answer
from clustersession.core.keyring import KeyRing
from clustersession.core.session_id import IdContext, verify
from clustersession.node.explaining import key_in
from tests.end_to_end.browser import Browser
from tests.end_to_end.cluster import SECRET, Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.servers import FLASK, gunicorn

TOKEN = "t" * 24
USER, VALUE = "mallory-the-user", "value-that-nobody-may-see"


@pytest.fixture(scope="module")
def host(module_cluster: NewCluster) -> Host:
    """One host, with a control listener on every address."""
    cluster: Cluster = module_cluster(1, ADMIN_TOKEN=TOKEN)
    [found] = cluster
    found.environ["CLUSTERSESSION_ADMIN_LISTEN"] = f"0.0.0.0:{found.admin[1]}"
    found.run(gunicorn(FLASK, found.app, workers=1))
    cluster.await_whole()
    return found


def handle_of(browser: Browser) -> str:
    [(name, text)] = browser.jar.items()
    return verify(text, KeyRing.parse(SECRET), IdContext("default", name)).handle


def explained(host: Host, handle: str) -> dict[str, Any]:
    status, body = host.ask_admin(f"/explain/{handle}")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def test_it_says_what_is_held_and_shows_none_of_it(host: Host) -> None:
    """Counts and ages of a stored session; no value, no key's name, no user, and nothing of the cookie's secret part."""
    browser = Browser()
    browser.get(host.app, "/set", _user_id=USER, cart=VALUE)
    handle = handle_of(browser)
    [(_, text)] = browser.jar.items()
    found = explained(host, handle)
    said = json.dumps(found)
    for word in (USER, VALUE, "_user_id", "cart", text[45:]):
        assert word not in said
    [holding] = found["holdings"]
    facts = holding["facts"]
    assert (found["handle"], found["asked"], holding["node"], holding["answer"]) == (handle, "n1", "n1", Answer.COPY)
    assert (facts["owners"], facts["principal"], facts["keys"], facts["serving"]) == (["n1", None], True, 2, True)
    assert facts["bytes"] > len(USER) + len(VALUE)
    assert 0 <= facts["created_ago_s"] < 60


def test_asking_changes_nothing(host: Host) -> None:
    """A session that is only looked at goes on to age."""
    browser = Browser()
    browser.get(host.app, "/set", cart=VALUE)
    first, second = (explained(host, handle_of(browser))["holdings"][0]["facts"] for _ in range(2))
    assert second["last_seen_ago_s"] > first["last_seen_ago_s"]
    assert second["idle_left_s"] < first["idle_left_s"]
    assert (second["epoch"], second["version"]) == (first["epoch"], first["version"])


def test_a_handle_that_nobody_knows_is_an_answer(host: Host) -> None:
    """It is no error: the node answers that it holds nothing, and keeps nothing of the question."""
    entries = host.status()["store"]["entries"]
    found = explained(host, "0a" * 16)
    assert [(one["answer"], one["facts"]) for one in found["holdings"]] == [(Answer.NOTHING, None)]
    assert host.status()["store"]["entries"] == entries


def test_it_needs_the_token(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everything else on a listener that others reach."""
    monkeypatch.setitem(host.environ, "CLUSTERSESSION_ADMIN_TOKEN", TOKEN + "x")
    status, body = host.ask_admin(f"/explain/{'0a' * 16}")
    assert (status, "handle" in body) == (401, False)


@pytest.mark.parametrize("path", [b"/explain", b"/explain/", b"/status", b"/explain/" + b"0A" * 16, b"/explain/" + b"0a" * 17])
def test_only_a_handle_is_a_key(path: bytes) -> None:
    """Other paths and other spellings name no session."""
    assert key_in(path) is None
    assert key_in(b"/explain/" + b"0a" * 16) == b"\n" * 16
