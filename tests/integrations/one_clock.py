"""One time for browsers, the old systems and the cluster, which tests move."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.core import signing
from itsdangerous import TimestampSigner


class Clock:
    """Unix seconds, from the real time on: what a test does not reach goes by that."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def everywhere(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, itsdangerous, Django's signatures and rows, cachelib's files."""
    for name in ("runtime.adoption", "runtime.mirroring", "runtime.issuing", "runtime.cookies"):
        monkeypatch.setattr(f"clustersession.{name}.time", clock)
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: int(clock()))
    monkeypatch.setattr(signing.TimestampSigner, "timestamp", lambda _: signing.b62_encode(int(clock())))
    monkeypatch.setattr("time.time", clock)
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.fromtimestamp(clock(), UTC))
    monkeypatch.setattr("cachelib.file.time", clock)
