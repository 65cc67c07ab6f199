"""Command lines of app servers, as a user would write them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

APPS = "tests.end_to_end.apps"
BIN = Path(sys.executable).parent
FLASK = f"{APPS}.flask_app:app"
WSGI = f"{APPS}.wsgi_app:app"
DJANGO = f"{APPS}.django_app:wsgi"
STARLETTE = f"{APPS}.starlette_app:app"
ASGI = f"{APPS}.asgi_app:app"
DJANGO_ASYNC = f"{APPS}.django_app:asgi"
TOP = Path(__file__).parents[2]

Address = tuple[str, int]


def gunicorn(app: str, at: Address, *flags: str, workers: int = 2) -> list[str]:
    """`flags` come last and win; without any: gthread."""
    common = ["--no-control-socket", "--graceful-timeout", "5", "--workers", str(workers), "--bind", f"{at[0]}:{at[1]}"]
    return [str(BIN / "gunicorn"), *common, *(flags or ("--worker-class", "gthread", "--threads", "4")), app]


def uvicorn(app: str, at: Address, *flags: str, workers: int = 1) -> list[str]:
    common = ["--host", at[0], "--port", str(at[1]), "--workers", str(workers), "--no-access-log", "--lifespan", "off"]
    return [sys.executable, "-m", "uvicorn", *common, *flags, app]


def clustersession(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "clustersession", *arguments]


def bare_environ(home: Path) -> dict[str, str]:
    """What a fresh shell has, and warnings that matter; none of the test run's own settings, so that it is no test to the app."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(TOP),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "always::ResourceWarning,always::RuntimeWarning",
    }
