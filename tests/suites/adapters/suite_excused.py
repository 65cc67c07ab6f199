"""For pytest: the tests that are excused. Each must fail, so that none is excused for longer than it has to be."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect of those named for this suite that they fail."""
    table = tomllib.loads(Path(os.environ["SUITE_EXCUSED"]).read_text(encoding="utf-8"))
    reasons: dict[str, str] = table.get(os.environ["SUITE"], {})
    by_name = {f"{item.path.stem}.{item.name}": item for item in items}
    for name, reason in reasons.items():
        if name not in by_name:
            raise pytest.UsageError(f"{name} is excused, but there is no such test")
        by_name[name].add_marker(pytest.mark.xfail(reason=reason, strict=True))
