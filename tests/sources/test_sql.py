"""Tables of a PostgreSQL server, whose sessions have a time zone of their own: Django's and Flask-Session's kinds of columns."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.sessions.backends import db as db_engine
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import override_settings

from clustersession.errors import SourceUnavailable
from clustersession.sources import DjangoSession, SqlShelf, django_table, flask_session_table
from tests.benchmark.cluster import free_ports, until
from tests.sources.libraries import DjangoLibrary
from tests.sources.test_django import AGE_S, ITEMS, KEY, Session, engine
from tests.sources.values import typed

OPTIONS = "-c timezone=Asia/Tokyo"


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[int]:
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("NO SESSION IN POSTGRESQL WAS TRIED HERE: initdb and postgres are not on the path (Debian's postgresql)")
    user = "postgres" if os.geteuid() == 0 else None
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="clustersession-sources-") as directory:
        if user is not None:
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        data, quiet = f"{directory}/data", {"user": user, "cwd": directory, "stdout": subprocess.DEVNULL}
        subprocess.run(["initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"], check=True, **quiet)  # type: ignore[call-overload]
        command = [
            "postgres",
            "-D",
            data,
            "-p",
            str(port),
            "-k",
            directory,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **quiet)  # type: ignore[call-overload]
        try:
            until(lambda: answers(port), "postgres did not start")
            yield port
        finally:
            process.terminate()
            process.wait(timeout=20)


def connect(port: int) -> psycopg.Connection[Any]:
    return psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", options=OPTIONS, connect_timeout=3)


def answers(port: int) -> bool:
    try:
        connect(port).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def django_on_postgres(postgres_port: int) -> Iterator[DjangoLibrary]:
    before = connections["default"]
    place = {"HOST": "127.0.0.1", "PORT": str(postgres_port), "USER": "postgres", "NAME": "postgres"}
    own = DatabaseWrapper({**before.settings_dict, "ENGINE": "django.db.backends.postgresql", **place}, "default")
    connections["default"] = own
    with own.schema_editor() as editor:
        editor.create_model(Session)
    with override_settings(SECRET_KEY=KEY):
        yield DjangoLibrary(engine(db_engine.SessionStore))
    with own.schema_editor() as editor:
        editor.delete_model(Session)
    own.close()
    connections["default"] = before


def test_django_on_postgresql(django_on_postgres: DjangoLibrary, postgres_port: int) -> None:
    """There, back, begun from here, and ended; the end is the same moment on both sides."""
    shelf = SqlShelf(lambda: connect(postgres_port), django_table(), errors=(psycopg.Error,), dates="aware")
    ours, now = DjangoSession(shelf, KEY), time.time()
    cookie = django_on_postgres.save(None, ITEMS)
    assert cookie is not None
    legacy = ours.read(cookie, now)
    assert legacy is not None
    assert typed(legacy.items) == typed(ITEMS)
    assert legacy.expires == pytest.approx(now + AGE_S, abs=1.1)
    assert ours.write(cookie, {"user": "bob"}, now + 600, now) is None
    new = ours.write(None, {"user": "cat"}, now + 600, now)
    assert new is not None
    for each, user in ((cookie, "bob"), (new, "cat")):
        assert django_on_postgres.load(each) == {"user": user}
        assert Session.objects.get(session_key=each).expire_date.timestamp() == pytest.approx(now + 600, abs=0.01)
    ours.end(cookie)
    assert django_on_postgres.load(cookie) == {}
    assert ours.read(cookie, now) is None


def test_bytes_and_times_without_a_zone(postgres_port: int) -> None:
    """The columns that SQLAlchemy makes for Flask-Session; its times are UTC."""
    with connect(postgres_port) as connection:
        connection.execute(
            "CREATE TABLE sessions (id serial PRIMARY KEY, session_id varchar(255) UNIQUE, data bytea, expiry timestamp)"
        )
    shelf = SqlShelf(lambda: connect(postgres_port), flask_session_table("public.sessions"), errors=(psycopg.Error,))
    now = time.time()
    assert not shelf.put("session:a", b"\x00", now + 60, now, new=False)
    assert shelf.put("session:a", b"\x00\xff", now + 60, now, new=True)
    with connect(postgres_port) as connection:
        row = connection.execute("SELECT extract(epoch FROM expiry) FROM sessions").fetchone()
    assert row is not None
    assert float(row[0]) == pytest.approx(now + 60, abs=0.01)
    kept = shelf.get("session:a", now)
    assert kept is not None
    assert kept.data == b"\x00\xff"
    assert kept.expires == pytest.approx(now + 60, abs=0.01)
    with pytest.raises(SourceUnavailable):
        shelf.put("session:a", b"x", now + 60, now, new=True)
    shelf.drop("session:a")
    assert shelf.get("session:a", now) is None
