"""The clusters of the end-to-end tests, and the logs of their hosts where a test fails."""

from tests.end_to_end.conftest import new_cluster, pytest_configure, pytest_runtest_makereport

__all__ = ["new_cluster", "pytest_configure", "pytest_runtest_makereport"]
