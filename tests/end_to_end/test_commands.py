"""What developers run: `flask run` with its reloader, `manage.py`, and pytest. None of them opens more than it needs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from .browser import Browser
from .cluster import SECRET
from .conftest import NewCluster
from .processes import MARK, command_of, complaints, marked, until
from .servers import bare_environ

ENDS_S = 15.0
SHOP = "from tests.end_to_end.apps.flask_app import app\n"

SETTINGS = """
SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "project"
urlpatterns = []
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
    "django.contrib.sessions",
]
SESSION_ENGINE = "clustersession.integrations.django"
MIDDLEWARE = [
    "clustersession.integrations.django.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
execute_from_command_line(sys.argv)
"""

USERS_TESTS = """
import psutil
import pytest
from flask import Flask, session
from clustersession.integrations.flask import ClusterSession


@pytest.fixture
def client():
    app = Flask("shop")
    ClusterSession(app)

    @app.get("/add")
    def add():
        session["cart"] = [*session.get("cart", []), "apple"]
        return session["cart"]

    return app.test_client()


@pytest.mark.parametrize("times", [1, 3])
def test_cart(client, times):
    for _ in range(times):
        answer = client.get("/add")
    assert answer.json == ["apple"] * times
    process = psutil.Process()
    assert process.net_connections(kind="inet") == []
    assert process.children() == []
"""


def run(directory: Path, *command: str, **settings: str) -> str:
    """Runs a command to its end in `directory`; what it said. It must end well, and leave no process."""
    mark = f"command {directory}"
    environ = {**bare_environ(directory / "home"), MARK: mark, "XDG_RUNTIME_DIR": str(directory / "runtime"), **settings}
    (directory / "runtime").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *command], cwd=directory, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert complaints(said) == []
    assert [command_of(pid) for pid in marked(mark)] == []
    assert list((directory / "runtime").iterdir()) == [], "it has opened a store"
    return said


def test_flask_run_keeps_sessions_over_a_reload(new_cluster: NewCluster) -> None:
    """The reloader starts the app anew; the node that its first process had started goes on, and ends with the last one."""
    [host] = new_cluster(1)
    module = host.directory / "shop.py"
    module.write_text(SHOP)
    server = ("run", "--debug", "--host", host.app[0], "--port", str(host.app[1]))
    host.launch("app", [sys.executable, "-m", "flask", "--app", "shop", *server])
    until(host.serves, "the app does not serve")
    browser = Browser()
    browser.get(host.app, "/set", _user_id="u", cart="apple")
    pids = {browser.get(host.app, "/look").seen["pid"]}
    nodes = host.nodes
    assert len(nodes) == 1

    def reloaded() -> bool:
        with suppress(OSError, HTTPException):  # the old process ends in the middle of a request
            said = host.look(browser).seen
            assert said["items"] == {"_user_id": "u", "cart": "apple"}
            pids.add(said["pid"])
        return len(pids) > version

    for version in (1, 2):
        module.write_text(f"{SHOP}VERSION = {version}\n")
        until(reloaded, "it did not reload")
    assert host.nodes == nodes
    assert host.end("app") == 0
    until(lambda: not host.pids, f"left behind: {host.stray()}", ENDS_S)
    assert host.complaints() == []


def test_manage_py_opens_nothing(tmp_path: Path) -> None:
    """`check` and `migrate` of a project with our engine find its settings right, and start no node and open no store."""
    (tmp_path / "project.py").write_text(SETTINGS)
    (tmp_path / "manage.py").write_text(MANAGE)
    data = tmp_path / "data"
    settings = {"CLUSTERSESSION_SECRET": SECRET, "CLUSTERSESSION_DATA_DIR": str(data)}
    assert "no issues" in run(tmp_path, "manage.py", "check", **settings)
    assert "Applying" in run(tmp_path, "manage.py", "migrate", **settings)
    assert "No migrations to apply" in run(tmp_path, "manage.py", "migrate", **settings)
    assert not data.exists()


def test_pytest_of_a_users_app_runs_in_dev_mode(tmp_path: Path) -> None:
    """Without any setting: sessions work, no process, no port, no file, and one warning for the whole suite."""
    (tmp_path / "test_shop.py").write_text(USERS_TESTS)
    said = run(tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-o", "log_cli=true")
    assert "2 passed" in said
    assert said.count("dev mode") == 1
