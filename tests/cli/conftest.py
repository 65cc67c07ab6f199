"""The clusters of the end-to-end tests, and the logs of their hosts where a test fails."""

from tests.end_to_end.conftest import module_cluster, pytest_runtest_makereport

__all__ = ["module_cluster", "pytest_runtest_makereport"]
