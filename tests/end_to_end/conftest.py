"""Clusters for tests: made in the test's own directory, gone with it, and their logs shown where a test fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .cluster import Cluster

NewCluster = Callable[..., Cluster]

_living: list[Cluster] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes ten seconds and more; `-m 'not slow'` leaves it out")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"log of {title}", text) for cluster in _living for title, text in cluster.logs()]
    return report


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[NewCluster]:
    """Makes clusters that end with the test."""
    with ExitStack() as stack:
        yield _maker(stack, tmp_path)


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewCluster]:
    """Makes clusters that end with the module: starting one takes seconds."""
    with ExitStack() as stack:
        yield _maker(stack, tmp_path_factory.mktemp("cluster"))


def _maker(stack: ExitStack, directory: Path) -> NewCluster:
    def make(count: int = 3, **settings: str) -> Cluster:
        made = stack.enter_context(Cluster(directory / f"{len(_living)}", count, **settings))
        _living.append(made)
        stack.callback(_living.remove, made)
        return made

    return make
