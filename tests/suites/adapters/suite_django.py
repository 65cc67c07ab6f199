"""For pytest: the settings and the database of Django's session tests."""

from __future__ import annotations

from collections.abc import Iterator

import django
import pytest
from django.conf import settings


def pytest_configure(config: pytest.Config) -> None:
    """Before anything of the tests is imported."""
    settings.configure(
        SECRET_KEY="of Django's own tests",
        USE_TZ=False,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "sessions_tests"],
        SESSION_ENGINE="clustersession.integrations.django",
        MIDDLEWARE=["clustersession.integrations.django.SessionMiddleware"],
    )
    django.setup()


@pytest.fixture(scope="session", autouse=True)
def database() -> Iterator[None]:
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases, teardown_test_environment

    setup_test_environment()
    made = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(made, verbosity=0)
    teardown_test_environment()
