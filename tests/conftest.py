"""For every test: none of the developer's own settings, and property tests that a busy machine does not fail."""

import gc
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("here", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("here"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "here"))


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLUSTERSESSION_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="module")
def _short_pauses() -> None:
    """After thousands of tests a look for cycles takes longer than a request may: what the modules before have left, and nobody
    can free any more, is not looked at again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_directory_of_another_test() -> Iterator[None]:
    """Django's file sessions keep the directory that they have seen first, for good."""
    yield
    engine = sys.modules.get("django.contrib.sessions.backends.file")
    if engine is not None and "_storage_path" in vars(engine.SessionStore):
        del engine.SessionStore._storage_path
