"""A fresh project as `django-admin startproject` makes it, with one of the two settings forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clustersession.integrations.django.checks import DJANGOS_OWN, ENGINE, MIDDLEWARE
from tests.end_to_end.servers import TOP, bare_environ

ENGINE_LINE = f"SESSION_ENGINE = {ENGINE!r}\n"
APP_LINE = f"INSTALLED_APPS += [{ENGINE!r}]\n"
OURS_LINE = f"MIDDLEWARE = [{MIDDLEWARE!r} if each == {DJANGOS_OWN!r} else each for each in MIDDLEWARE]\n"
REQUEST = "from django.test import Client; print(Client(raise_request_exception=False).get('/admin/login/').status_code)"

LABEL = "from django.apps import apps; print(apps.get_app_config('clustersession').name)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "django", "startproject", "shop", str(tmp_path)], check=True)
    return tmp_path


def manage(project: Path, more: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`manage.py` with these lines at the end of the settings."""
    settings = project / "shop" / "settings.py"
    fresh = settings.read_text().partition("# ours\n")[0]
    settings.write_text(f"{fresh}# ours\nALLOWED_HOSTS = ['testserver']\n{more}")
    environ = {**bare_environ(project / "home"), "CLUSTERSESSION_MODE": "dev", "PYTHONPATH": os.pathsep.join([str(TOP)])}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=project, env=environ, capture_output=True, text=True, check=False
    )


def test_the_check_finds_the_forgotten_middleware_where_the_app_is_installed(project: Path) -> None:
    """The third line is for that; with it and both settings nothing is found, and there is nothing to migrate."""
    found = manage(project, ENGINE_LINE + APP_LINE, "check")
    assert found.returncode == 1
    assert "clustersession.E001" in found.stderr
    assert f"Put '{MIDDLEWARE}' in its place" in found.stderr
    good = ENGINE_LINE + APP_LINE + OURS_LINE
    assert "no issues" in manage(project, good, "check", "--fail-level", "WARNING").stdout
    assert "No changes detected" in manage(project, good, "makemigrations", "--check").stdout
    listed = manage(
        project, good, "shell", "-c", "from django.apps import apps; print(apps.get_app_config('clustersession').name)"
    )
    assert listed.stdout.splitlines()[-1] == ENGINE, listed.stderr


def test_the_first_request_says_which_middleware_to_put_in(project: Path) -> None:
    """Without the third line it is the first to find out: a 500, whose error in the log says all."""
    asked = manage(project, ENGINE_LINE, "shell", "-c", REQUEST)
    assert asked.stdout.splitlines()[-1] == "500"
    *_, last = asked.stderr.strip().splitlines()
    assert last.startswith("django.core.exceptions.ImproperlyConfigured: ")
    for words in ("MIDDLEWARE", DJANGOS_OWN, MIDDLEWARE, "SESSION_ENGINE"):
        assert words in last
