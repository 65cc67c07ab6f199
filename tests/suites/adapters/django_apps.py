"""Django's tests of what uses sessions (auth, messages, CSRF, the test client), by its own runner in its own project."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any, Final
from unittest import TestSuite

from django.test import runner

RUNNER: Final = Path("runtests.py")
THEIRS: Final = '"django.contrib.sessions.middleware.SessionMiddleware"'
OURS: Final = '"clustersession.integrations.django.SessionMiddleware"'
EXCUSED: Final = tomllib.loads(Path(os.environ["SUITE_EXCUSED"]).read_text(encoding="utf-8"))[os.environ["SUITE"]]

# The settings module that the runner is told to use is this one.
SECRET_KEY = "of Django's own tests"
SESSION_ENGINE = "clustersession.integrations.django"
DATABASES = {name: {"ENGINE": "django.db.backends.sqlite3"} for name in ("default", "other")}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False


class Runner(runner.DiscoverRunner):
    """Expects of the tests that are excused that they fail."""

    def build_suite(self, *args: Any, **kwargs: Any) -> TestSuite:
        suite = super().build_suite(*args, **kwargs)
        for test in runner.iter_test_cases(suite):  # type: ignore[attr-defined]
            if test.id() in EXCUSED:
                test.__unittest_expecting_failure__ = True
                print(f"excused: {test.id()} - {EXCUSED[test.id()]}")
        return suite


TEST_RUNNER = f"{__name__}.{Runner.__qualname__}"

if __name__ == "__main__":
    sys.argv[:1] = [str(RUNNER), f"--settings={Path(__file__).stem}", "--parallel=1"]
    source = RUNNER.read_text(encoding="utf-8")
    assert THEIRS in source
    exec(compile(source.replace(THEIRS, OURS), str(RUNNER), "exec"), {"__name__": "__main__", "__file__": str(RUNNER.resolve())})
