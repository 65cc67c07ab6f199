"""What Beaker and Django do to their users, reproduced with the library, and how the same app fares here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from beaker.middleware import SessionMiddleware as BeakerMiddleware
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.test import override_settings

from clustersession.middleware.wsgi import SESSION, SessionMiddleware
from clustersession.testing.in_process import InProcessCluster
from tests.integrations import django_project
from tests.middleware.calling import call_wsgi
from tests.runtime.test_pipeline import read, save, visit, write

assert django_project.__doc__, "it configures Django"


def writer(key: str) -> Any:
    """An app that writes into its session, wherever that is."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        session = environ[key]
        session["visited"] = "yes"
        if hasattr(session, "save"):
            session.save()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    return app


def test_beaker_keeps_the_id_that_a_client_has_chosen(tmp_path: Path) -> None:
    """Unsigned, as it is by default: the attacker who planted it reads along."""
    options = {"session.type": "file", "session.data_dir": str(tmp_path), "session.key": "cs"}
    app = BeakerMiddleware(writer("beaker.session"), options)
    call_wsgi(app, "/", "cs=attacker1")
    assert any("attacker1" in path.name for path in tmp_path.rglob("*"))


def test_a_chosen_id_is_none() -> None:
    """What is written gets a new one, which the client did not choose."""
    cluster = InProcessCluster()
    app = SessionMiddleware(writer(SESSION), cluster["a"].engine)
    answer = call_wsgi(app, "/", "cs=attacker1")
    assert "attacker1" not in answer.pair
    assert call_wsgi(app, "/", answer.pair).cookies == []


def test_django_keeps_the_last_of_two_writers(tmp_path: Path) -> None:
    """Each saves the whole session as it has loaded it."""
    with override_settings(SESSION_FILE_PATH=str(tmp_path)):
        first = FileStore()
        first["begun"] = 1
        first.save()
        one, two = FileStore(first.session_key), FileStore(first.session_key)
        assert one["begun"] == two["begun"] == 1
        one["one"], two["two"] = 1, 2
        one.save()
        two.save()
        assert dict(FileStore(first.session_key).items()) == {"begun": 1, "two": 2}


def test_django_fails_a_writer_beside_a_new_key(tmp_path: Path) -> None:
    """A login in one tab makes the other tab's request an error (`SessionInterrupted`, 400), whatever it wrote."""
    with override_settings(SESSION_FILE_PATH=str(tmp_path)):
        first = FileStore()
        first["begun"] = 1
        first.save()
        other = FileStore(first.session_key)
        other["cart"] = 1
        first.cycle_key()
        with pytest.raises(UpdateError):
            other.save()


def test_both_writers_are_kept() -> None:
    """A request sends what it has changed, key by key."""
    cluster = InProcessCluster()
    a, b = cluster["a"].engine, cluster["b"].engine
    cookie = write(a, begun=1)
    one, two = visit(a, cookie), visit(b, cookie)
    one.session["one"], two.session["two"] = 1, 2
    save(a, one)
    save(b, two)
    assert read(cluster["c"].engine, cookie) == {"begun": 1, "one": 1, "two": 2}
