"""Fixtures for the tests of an app: `pytest_plugins = ["clustersession.testing.fixtures"]` in its conftest.py."""

from __future__ import annotations

import pytest

from .clock import ManualClock
from .in_process import InProcessCluster


@pytest.fixture
def session_clock() -> ManualClock:
    """The time of the hosts of `session_cluster`. `session_clock.advance(3600)` makes sessions idle for an hour."""
    return ManualClock()


@pytest.fixture
def session_cluster(session_clock: ManualClock) -> InProcessCluster:
    """Three hosts, `a`, `b` and `c`, in this process and in memory. Wrap the app once for each host that a test asks:
    `ClusterSession(app, session_cluster["a"].engine)` (every middleware takes an engine in place of settings)."""
    return InProcessCluster(clock=session_clock)
